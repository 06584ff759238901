"""A failing step under investigation: its state, its symptom, and the trials so far."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from jinmaek.core.record import StepRecord
from jinmaek.core.verdict import Family, Headroom, Location, Trial, TrialOutcome
from jinmaek.replay.control import Replayed
from jinmaek.replay.scene import Scene
from jinmaek.replay.symptom import Failure
from jinmaek.training.batches import Batch
from jinmaek.training.state import State

Tell = Callable[[Trial], None]


@dataclass(slots=True)
class Case:
    """One step of one run.

    ``before`` is the state just before the step; ``start`` an older one, from which histories are replayed;
    ``num_repeats`` how often each arm runs (more than once only where the device does not repeat itself).
    """

    scene: Scene
    step: int
    failure: Failure
    replayed: Replayed
    before: State
    start: State
    tell: Tell
    num_repeats: int = 1
    trials: list[Trial] = field(default_factory=list)
    location: Location | None = None
    headroom: Headroom | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def measure(self, state: State | None = None, batches: Sequence[Batch] | None = None) -> StepRecord:
        """The step on ``state`` (default: its own) and ``batches`` (default: its own)."""
        state = self.before if state is None else state
        if self.failure.symptom == "update_beyond_bound" and batches is None:
            return self.scene.update(state, self.step)
        return self.scene.measure(state, self.step, batches)

    def try_arm(
        self, arm: str, family: Family, run: Callable[[], StepRecord], facts: Mapping[str, Any] | None = None
    ) -> Trial:
        """Run the step under a change; one that runs out of memory is a trial that was not run."""
        started = time.perf_counter()
        readings: list[StepRecord] = []
        reason = None
        try:
            readings = [run() for _ in range(self.num_repeats)]
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            reason = "out_of_memory"
        num_failing = sum(map(self.failure.seen_in, readings))
        # Where repetitions differ, an arm heals only if none of them fails.
        outcome: TrialOutcome = "not_run" if reason else "fails" if num_failing else "heals"
        more = {"num_failing": num_failing, "num_repeats": self.num_repeats} if self.num_repeats > 1 else {}
        return self.note(
            Trial(
                arm=arm,
                family=family,
                outcome=outcome,
                loss=readings[0].loss if readings else None,
                grad_norm=readings[0].grad_norm if readings else None,
                seconds=time.perf_counter() - started,
                facts={**(facts or {}), **more},
                reason=reason,
            )
        )

    def note(self, trial: Trial) -> Trial:
        """Keep a trial and tell it."""
        self.trials.append(trial)
        self.tell(trial)
        return trial

    def outcome(self, arm: str) -> TrialOutcome | None:
        """How the arm went; ``None`` if it was not tried. Of several of one name, the first that healed."""
        found = [trial.outcome for trial in self.trials if trial.arm == arm]
        return "heals" if "heals" in found else found[0] if found else None

    def healed(self, *arms: str) -> list[str]:
        """Those of ``arms`` that healed."""
        return [arm for arm in arms if self.outcome(arm) == "heals"]

    @property
    def is_finite_symptom(self) -> bool:
        """Whether the step's numbers are finite, only too large."""
        return self.failure.symptom in ("loss_spike", "gradient_spike", "update_beyond_bound")

    @property
    def is_fp16(self) -> bool:
        """Whether the step is computed in fp16, wholly or in its 4-bit layers."""
        recipe = self.scene.session.recipe
        computing = recipe.model.compute_dtype if recipe.model.quantization in ("nf4", "fp4") else None
        return "fp16" in (recipe.train.precision, computing)


def is_finite(record: StepRecord) -> bool:
    """Whether loss and gradient are."""
    return all(value is None or math.isfinite(value) for value in (record.loss, record.grad_norm))
