"""One stretch of records that show a numeric fault, and the healthy run before it."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import sqrt

GAP_RECORDS = 2  # healthy windows that do not end a stretch
BLOW_UP = 3.0  # times the level
ABSURD = 25.0  # nats: far worse than guessing among any vocabulary


@dataclass(slots=True)
class Before:
    """The healthy run up to the fault, as it stood then."""

    records: int
    level: float | None
    noise: float
    value: float | None
    step: int | None
    lr: float | None
    rising: int  # consecutive rises of the loss that ended here
    blow_up: tuple[int, float] | None = None


@dataclass(slots=True)
class Episode:
    """One stretch. Counts are of faulty records; ``good_after`` of healthy ones since the last faulty one."""

    before: Before
    first_step: int
    last_step: int = 0
    records: int = 0
    zeros: int = 0
    zeros_without_gradient: int = 0
    non_finite: int = 0
    infinite: int = 0
    alive_between: int = 0  # records at the ordinary level between faulty ones
    alive_after: int = 0  # finite losses, diluted ones too, after a record whose loss or gradient was bad
    grads_alive: int = 0  # finite gradients beside a bad loss: NaN weights have none
    grads_bad: int = 0
    grads_zero: int = 0
    thrown_away: int = 0  # the record itself says that the optimizer did not step
    applied_anyway: int = 0  # it says that it did
    frozen: int = 0
    partial: int = 0
    moved: int = 0
    accuracy_gone: int = 0
    losses_alive: int = 0
    read_skipped: int = 0
    read_steps: int = 0
    frozen_steps: int = 0
    longest_frozen: int = 0
    rested_steps: int = 0  # the lr stood where a schedule may stand, as at a typed first value
    moved_after_freeze: int = 0
    released_at: int | None = None  # first step at which the lr moved on after a freeze
    good_after: int = 0
    scale_first: float | None = None
    scale_last: float | None = None
    evals_finite: int = 0
    evals_bad: int = 0
    lr_first: float | None = None
    lr_last: float | None = None
    finite_inside: list[tuple[int, float, int]] = field(default_factory=list)
    windows: list[tuple[int, int, int]] = field(default_factory=list)

    @property
    def recovered(self) -> bool:
        """Healthy records followed, more than separate two faults of one stretch."""
        return self.good_after > GAP_RECORDS

    @property
    def from_start(self) -> bool:
        """No healthy record came before."""
        return self.before.records == 0

    @property
    def burst(self) -> float | None:
        """A finite loss far beyond any level, before the fault or in it."""
        if self.before.blow_up is not None:
            return self.before.blow_up[1]
        limit = ABSURD if self.before.level is None else max(ABSURD, BLOW_UP * self.before.level)
        highest = max((value for _, value, _ in self.finite_inside), default=0.0)
        return highest if highest > limit else None

    @property
    def alive_after_release(self) -> bool:
        """Finite losses were printed after the lr had moved on again: the weights had not been touched.

        Two: the first finite batch is the very one whose update, by 0·inf, would write the NaN.
        """
        if self.released_at is None:
            return False
        return sum(step > self.released_at for step, _, _ in self.finite_inside) >= 2

    @property
    def loss_bad(self) -> int:
        """Records whose loss was masked or not finite."""
        return self.zeros + self.non_finite


def is_sentinel(grad: float) -> bool:
    """Whether a gradient norm is DeepSpeed's code for "not finite": −1 for each group, hence √groups.

    Source: deepspeed/runtime/zero/stage_1_and_2.py, ``scaled_global_norm``; printed with 3 digits or all.
    """
    for groups in range(1, 9):
        root = sqrt(groups)
        if abs(grad - root) < 1e-12 or (len(repr(grad)) <= 5 and abs(grad - root) < 5e-4):
            return True
    return False
