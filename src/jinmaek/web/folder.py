"""The runs folder: which runs there are, and what a line says about each.

A browser names a run by its id, and only ids of this listing are looked up: no path is ever made from what a browser
sends.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from jinmaek.ingest.follow import Follower
from jinmaek.ingest.jinmaek_run import record_of
from jinmaek.report.page.gather import read_events

DEEPEST = 4  # sweeps/NAME/trials/001
MOST_RUNS = 2000
_TAIL = 1 << 16  # bytes of steps.jsonl in which its last step is looked for


@dataclass(frozen=True, slots=True, kw_only=True)
class RunLine:
    """What the list tells of a run.

    Attributes:
        id: its path within the runs folder.
        state: ``completed``, ``interrupted``, ``skipped_steps``, ``no_updates``, or ``open``: no end is recorded.
        step, max_steps: how far it is; ``None`` where it is not said.
        findings: ids of what the rules found while it ran, each once.
        captures: steps of the snapshots that are kept.
        verdicts: step, outcome and shown causes of each verdict.
        held_out: newest held-out loss.
        written: time of the last write, ISO, to the minute.
    """

    id: str
    state: str
    step: int | None
    max_steps: int | None
    findings: tuple[str, ...]
    captures: tuple[int, ...]
    verdicts: tuple[Mapping[str, Any], ...]
    held_out: Any
    written: str


class RunsFolder:
    """All runs below one folder."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()

    def paths(self) -> dict[str, Path]:
        """Id and directory of every run, the one written to last coming first."""
        found = dict(self._walk(self.root, 0))
        newest = sorted(found, key=lambda name: _written(found[name]), reverse=True)
        return {name: found[name] for name in newest[:MOST_RUNS]}

    def find(self, names: Sequence[str]) -> list[Path] | None:
        """The directories of the runs ``names``; ``None`` if one of them is not in the listing."""
        paths = self.paths()
        return [paths[name] for name in names] if names and all(name in paths for name in names) else None

    def lines(self) -> list[RunLine]:
        """What to tell of every run."""
        return [run_line(name, path) for name, path in self.paths().items()]

    def _walk(self, folder: Path, depth: int) -> Iterator[tuple[str, Path]]:
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            return
        if any(entry.name == "run.json" and entry.is_file(follow_symlinks=False) for entry in entries):
            yield folder.relative_to(self.root).as_posix() if folder != self.root else folder.name, folder
            return
        for entry in entries:
            # A link may lead anywhere: it is not followed.
            if depth < DEEPEST and entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                yield from self._walk(Path(entry.path), depth + 1)


def run_line(name: str, path: Path) -> RunLine:
    """The line of one run; damaged files leave gaps in it, and nothing else."""
    follower = Follower(path)
    follower.read_manifest()
    events = read_events(path / "events.jsonl")
    state, held_out = "open", None
    findings: dict[str, None] = {}
    verdicts: dict[Any, Mapping[str, Any]] = {}
    for event in events:
        kind = event.get("event")
        if kind == "end":
            state = str(event.get("end"))
        elif kind == "resumed":
            state = "open"
        elif kind == "evaluation":
            held_out = event.get("loss")
        elif kind == "finding":
            findings[str(event.get("id"))] = None
        elif kind == "verdict":
            verdicts[event.get("step")] = event
    return RunLine(
        id=name,
        state=state,
        step=_last_step(path / "steps.jsonl"),
        max_steps=follower.facts.max_steps,
        findings=tuple(findings),
        captures=tuple(sorted({step for file in _captures(path) if (step := _number(file.stem)) is not None})),
        verdicts=tuple(verdicts.values()),
        held_out=held_out,
        written=datetime.fromtimestamp(_written(path)).isoformat(" ", "minutes"),
    )


def _captures(path: Path) -> list[Path]:
    folder = path / "captures"
    return [*folder.glob("step-*.safetensors"), *folder.glob("kept/step-*.safetensors")]


def _number(stem: str) -> int | None:
    digits = stem.removeprefix("step-")
    return int(digits) if digits.isdigit() else None


def _last_step(path: Path) -> int | None:
    try:
        with path.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - _TAIL))
            lines = stream.read().split(b"\n")[:-1]
    except OSError:
        return None
    for line in reversed(lines):
        record = record_of(line)
        if record is not None:
            return record.step
    return None


def _written(run: Path) -> float:
    times = []
    for name in ("run.json", "steps.jsonl", "events.jsonl"):
        try:
            times.append((run / name).stat().st_mtime)
        except OSError:
            continue
    return max(times, default=0.0)
