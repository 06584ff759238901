"""What several runs have in common and where they differ: settings, versions, device, data, fingerprints."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from jinmaek.core.record import RunFacts
from jinmaek.report.page.gather import RunView
from jinmaek.report.page.secrets import without_secrets

_SECTIONS = (
    "settings", "max_steps", "schedule_steps", "steps_per_epoch", "seed", "determinism", "kernels", "versions", "git",
    "device", "data", "trainable", "fingerprints",
)  # fmt: skip
_ABOUT_THE_LOG = ("source", "steps_known", "versions", "data", "betas")  # of RunFacts: no facts of the training
_SETTINGS = "settings."


@dataclass(frozen=True, slots=True)
class Entry:
    """One fact of every run; ``None`` where a run does not say it."""

    name: str
    values: tuple[str | None, ...]

    @property
    def differs(self) -> bool:
        """Whether two runs say different things; one that says nothing contradicts nobody."""
        return len({value for value in self.values if value is not None}) > 1

    @property
    def is_partial(self) -> bool:
        """Whether some run does not say it."""
        return None in self.values and not self.differs


def ledger(runs: Sequence[RunView]) -> list[Entry]:
    """Every fact that some run tells, those that differ first."""
    told = [dict(_facts(run)) for run in runs]
    names = list(dict.fromkeys(name for facts in told for name in facts))
    entries = [Entry(name, tuple(facts.get(name) for facts in told)) for name in names]
    return sorted(entries, key=lambda entry: (not entry.differs, not entry.is_partial))


def _facts(run: RunView) -> Iterator[tuple[str, str]]:
    if not run.manifest:
        yield from _log_facts(run.facts)
        return
    for section in _SECTIONS:
        if section in run.manifest:
            yield from flat(section, run.manifest[section])


def _log_facts(facts: RunFacts) -> Iterator[tuple[str, str]]:
    for each in fields(facts):
        value = getattr(facts, each.name)
        if each.name not in _ABOUT_THE_LOG and value is not None:
            yield each.name, shown(value)
    yield from flat("versions", facts.versions)


def flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    """``section.key`` and value of everything below ``name``; a setting loses the word ``settings``."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from flat(f"{name}.{key}", item)
    elif value is not None:
        told = name.removeprefix(_SETTINGS)
        yield told, without_secrets(told, shown(value))


def shown(value: Any) -> str:
    """The value as a recipe would write it."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
