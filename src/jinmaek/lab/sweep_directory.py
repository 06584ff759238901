"""Where a sweep keeps what it knows.

::

    sweep.json      design: recipe, varied settings, seeds, every trial with its whole recipe
    trials/001/     the run of a trial, as `jinmaek train` writes it
    outcomes/001.json   how it ended
    logs/001.log    what its process printed
    stop            there while the sweep is being stopped: trials save and end
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinmaek.core.codec import plain
from jinmaek.core.errors import RunError
from jinmaek.core.version import VERSION
from jinmaek.lab.design import Design
from jinmaek.lab.outcome import Outcome, decode_outcome
from jinmaek.store.run_directory import storage

SWEEPS = Path("runs/sweeps")
_IDENTITY = ("recipe", "purpose", "factors", "kind", "controlled", "arms", "base")
_GROWING = ("seeds", "trials")


@dataclass(frozen=True, slots=True)
class SweepDirectory:
    """The paths of one sweep and its small files."""

    path: Path

    @property
    def plan_path(self) -> Path:
        """``sweep.json``."""
        return self.path / "sweep.json"

    @property
    def stop_path(self) -> Path:
        """There while the sweep is being stopped."""
        return self.path / "stop"

    def run_path(self, number: int) -> Path:
        """The run directory of a trial."""
        return self.path / "trials" / f"{number:03d}"

    def outcome_path(self, number: int) -> Path:
        """How a trial ended."""
        return self.path / "outcomes" / f"{number:03d}.json"

    def log_path(self, number: int) -> Path:
        """What a trial's process printed."""
        return self.path / "logs" / f"{number:03d}.log"

    def check(self, design: Design, purpose: str) -> None:
        """See that the plan which is there, if one is, is the same; more seeds may be added to it.

        Raises:
            RunError: the folder holds another sweep (named: what differs), or something else.
        """
        if not self.plan_path.exists():
            if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
                raise RunError("lab.folder_taken", path=self.path)
            return
        planned, kept = describe(design, purpose), self.read_plan()
        differs = [name for name in _IDENTITY if kept[name] != planned[name]]
        differs += [name for name in _GROWING if kept[name] != planned[name][: len(kept[name])]]
        if differs:
            raise RunError("lab.other_sweep", path=self.path, differs=", ".join(differs))

    def create_or_check(self, design: Design, purpose: str) -> None:
        """Write the plan, after :meth:`check`, and make the folders.

        Raises:
            RunError: as :meth:`check`.
            StorageError: it cannot be written.
        """
        self.check(design, purpose)
        with storage(self.path):
            for folder in ("trials", "outcomes", "logs"):
                (self.path / folder).mkdir(parents=True, exist_ok=True)
        write_json(self.plan_path, describe(design, purpose))

    def read_plan(self) -> dict[str, Any]:
        """What ``sweep.json`` says.

        Raises:
            RunError: there is none, or it is no plan.
        """
        if not self.plan_path.is_file():
            raise RunError("lab.no_sweep", path=self.path)
        try:
            plan: dict[str, Any] = json.loads(self.plan_path.read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise RunError("run.unreadable", path=self.plan_path, error=error) from error
        lacking = [key for key in (*_IDENTITY, *_GROWING) if not isinstance(plan, dict) or key not in plan]
        if lacking:
            raise RunError("run.unreadable", path=self.plan_path, error=f"no {', '.join(lacking)}")
        return plan

    def outcome(self, number: int) -> Outcome | None:
        """How a trial ended; ``None`` while it has not, or where its file is torn."""
        try:
            return decode_outcome(json.loads(self.outcome_path(number).read_text("utf-8")))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def outcomes(self, trials: int) -> dict[int, Outcome]:
        """The outcomes of trials 1 … ``trials`` by number; those that have none are left out."""
        found = {number: self.outcome(number) for number in range(1, trials + 1)}
        return {number: outcome for number, outcome in found.items() if outcome is not None}

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Within, no other process runs this sweep.

        Raises:
            RunError: another one does.
        """
        with storage(self.path), (self.path / ".lock").open("w", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise RunError("lab.busy", path=self.path) from error
            self.stop_path.unlink(missing_ok=True)
            yield


def describe(design: Design, purpose: str) -> dict[str, Any]:
    """The design as ``sweep.json`` keeps it. ``purpose``: ``compare`` arms, or ``find lr``."""
    described = {
        "jinmaek": VERSION,
        "purpose": purpose,
        "recipe": design.recipe.model_dump(mode="json", exclude_unset=True),
        "factors": [{"key": factor.key, "values": list(factor.values)} for factor in design.factors],
        "kind": design.kind,
        "controlled": design.controlled,
        "seeds": list(design.seeds),
        "base": design.base,
        "arms": [
            {
                "name": arm.name,
                "settings": list(arm.settings),
                "controls": list(arm.controls),
                "refused": arm.refusal,
            }
            for arm in design.arms
        ],
        "trials": [
            {"number": trial.number, "arm": trial.arm, "seed": trial.seed, "recipe": design.recipe_of(trial)}
            for trial in design.trials
        ],
    }
    kept: dict[str, Any] = json.loads(json.dumps(plain(described), ensure_ascii=False))
    return kept


def write_json(path: Path, facts: Any) -> None:
    """Write ``path`` in one piece.

    Raises:
        StorageError: the disk does not take it.
    """
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.write_text(json.dumps(plain(facts), ensure_ascii=False, allow_nan=False, indent=1) + "\n", "utf-8")
        draft.replace(path)
