"""What a scenario is: a name, the right answer, and a recipe for one run of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Trainer = Literal["trainer", "jinmaek"]
HEALTHY = "healthy"


@dataclass(frozen=True, slots=True)
class Truth:
    """What really happened in one step, seen from inside the loop and not from its log."""

    step: int
    loss: float
    finite_gradient: bool
    applied: bool
    lr: float
    scale: float | None = None
    update_ratio: float | None = None

    @property
    def finite_loss(self) -> bool:
        """Whether the loss was a number."""
        return self.loss - self.loss == 0


Moment = int | tuple[int, int] | None
"""The first faulty step; two where it sets in by degrees: any step from the first to the second is right."""
Onset = Moment | Callable[[Sequence[Truth]], Moment]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One way to train, right or wrong.

    ``pathology`` is an id of the catalogue or ``healthy``; ``also`` are ids that are as right; ``how`` says in a
    sentence what is real and what was injected; ``job`` makes what the trainer's runner takes, from a seed.
    """

    name: str
    trainer: Trainer
    pathology: str
    how: str
    job: Callable[[int], Any]
    onset: Onset = None
    also: tuple[str, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong with it."""
        return self.pathology == HEALTHY

    def onset_of(self, truths: Sequence[Truth]) -> tuple[int, int] | None:
        """The first faulty step of a run, and the last that would do as its beginning."""
        moment = self.onset(truths) if callable(self.onset) else self.onset
        return (moment, moment) if isinstance(moment, int) else moment


def first_skip(after: int = 0) -> Callable[[Sequence[Truth]], int | None]:
    """The first step after ``after`` whose update was thrown away."""
    return lambda truths: next((truth.step for truth in truths if truth.step > after and not truth.applied), None)


def first_non_finite(truths: Sequence[Truth]) -> int | None:
    """The first step with a non-finite loss or gradient."""
    return next((truth.step for truth in truths if not (truth.finite_loss and truth.finite_gradient)), None)


def until_worse(truths: Sequence[Truth]) -> Moment:
    """From step 1 (the cause) to the first step whose loss is a nat above the start (the effect)."""
    start = sum(truth.loss for truth in truths[:3]) / 3
    return 1, next((truth.step for truth in truths[3:] if not truth.loss < start + 1), 1)


def until_learnt_by_heart(truths: Sequence[Truth]) -> Moment:
    """From step 1 (the copies) to the first loss below a twentieth of a nat (the effect)."""
    return 1, next((truth.step for truth in truths if truth.loss < 0.05), 1)


def until_risen(truths: Sequence[Truth]) -> Moment:
    """From step 2 (the cause) to where the mean loss of ten steps is half a nat above its lowest (the effect)."""
    means = [sum(truth.loss for truth in truths[at : at + 10]) / 10 for at in range(len(truths) - 9)]
    lowest = min(means[: len(means) * 2 // 3])
    after = means.index(lowest)
    risen = next((at for at in range(after, len(means)) if means[at] > lowest + 0.5), None)
    return None if risen is None else (2, truths[risen + 9].step)
