"""All that is known of a run, for its page: numbers, diagnosis, verdicts, manifest, what happened beside the steps."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinmaek.core.record import RunFacts
from jinmaek.core.verdict import Verdict
from jinmaek.detect import Diagnosed, diagnose
from jinmaek.ingest import LogSource
from jinmaek.report.page.columns import Columns
from jinmaek.store import read_verdicts

_LARGEST_EVENT = 1 << 20  # bytes of a line of events.jsonl


@dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """One run.

    Attributes:
        name: path or name as given.
        columns: its numbers.
        diagnosed: what the rules made of it.
        facts: what its source says of the run as a whole.
        manifest: ``run.json``; empty for other trainers' logs.
        samples: question, answer before and after training (``None``: not asked then).
        end: the last ``end`` event; ``None`` where none was written.
        verdicts: what ``prove`` found, by step.
        unread: files in ``captures`` that should be verdicts and are none.
    """

    name: str
    columns: Columns
    diagnosed: Diagnosed
    facts: RunFacts
    manifest: Mapping[str, Any] = field(default_factory=dict)
    samples: tuple[tuple[str, str | None, str | None], ...] = ()
    end: Mapping[str, Any] | None = None
    verdicts: tuple[Verdict, ...] = ()
    unread: tuple[str, ...] = ()


def gather(
    source: LogSource, folder: Path | None, others: Sequence[RunView], progress: Callable[[int], None]
) -> RunView:
    """Read a run to its end.

    Args:
        source: its log.
        folder: the run directory, if it is jinmaek's.
        others: runs gathered before, for the rule that compares schedules.
        progress: told the number of items read, every few thousand.

    Raises:
        LogError: the log cannot be read.
    """
    columns = Columns()
    diagnosed = diagnose(
        source, [other.diagnosed for other in others], progress, watch=lambda item, _: columns.observe(item)
    )
    if folder is None:
        return RunView(name=source.name, columns=columns, diagnosed=diagnosed, facts=source.facts)
    events = read_events(folder / "events.jsonl")
    ends = [event for event in events if event.get("event") == "end"]
    resumed = [place for place, event in enumerate(events) if event.get("event") == "resumed"]
    ended = bool(ends) and (not resumed or events.index(ends[-1]) > resumed[-1])
    verdicts, unread = read_verdicts(folder / "captures")
    return RunView(
        name=source.name,
        columns=columns,
        diagnosed=diagnosed,
        facts=source.facts,
        manifest=_manifest(folder / "run.json"),
        samples=_samples(events),
        end=ends[-1] if ended else None,
        verdicts=tuple(verdicts),
        unread=tuple(unread),
    )


def folder_of(source: LogSource, root: Path) -> Path | None:
    """The run directory that ``source``, found in ``root``, lies in, if it is one of jinmaek's."""
    for folder in (root, root / source.name, Path(source.name)):
        if (folder / "run.json").is_file():
            return folder
    return None


def read_events(path: Path) -> list[dict[str, Any]]:
    """The lines of ``events.jsonl`` that are whole; a log that somebody damaged still tells the rest."""
    events = []
    try:
        with path.open("rb") as file:
            for line in iter(lambda: file.readline(_LARGEST_EVENT), b""):
                try:
                    event = json.loads(line)
                except (ValueError, RecursionError):
                    continue
                if isinstance(event, dict):
                    events.append(event)
    except OSError:
        return []
    return events


def _manifest(path: Path) -> Mapping[str, Any]:
    try:
        manifest = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return manifest if isinstance(manifest, dict) else {}


def _samples(events: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, str | None, str | None], ...]:
    asked: dict[str, dict[bool, str]] = {}
    for event in events:
        if event.get("event") == "sample":
            asked.setdefault(str(event.get("question")), {})[bool(event.get("trained"))] = str(event.get("answer"))
    return tuple((question, said.get(False), said.get(True)) for question, said in asked.items())
