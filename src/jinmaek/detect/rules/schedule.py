"""Rules on the learning rate and what moves it."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite

from jinmaek.core.finding import Finding
from jinmaek.detect.rule import Rule
from jinmaek.detect.trace import Trace

_ENOUGH = 3


class FrozenLr(Rule):
    """The lr never moves, stands on a value that nobody would type, and the loss lives: no update is applied."""

    name = "frozen-lr"
    family = "schedule"
    needs = ("lr", "loss")
    ids = ("scaler-skip-every-step",)
    min_records = _ENOUGH

    def findings(self, trace: Trace) -> Iterable[Finding]:
        """Only where no stretch of faults tells it already."""
        odometer = trace.odometer
        if odometer.num_moved or odometer.constant or trace.episodes.all or not odometer.last_lr:
            return
        if trace.num_records < _ENOUGH or trace.level.count < _ENOUGH or not odometer.typed_oddly:
            return
        yield Finding(
            rule=self.name,
            id="scaler-skip-every-step",
            severity="error",
            confidence="likely",
            first_step=trace.first_step,
            last_step=trace.record.step,
            evidence={"lr": odometer.last_lr, "records": odometer.readings, "level": trace.level.median},
            undecided=("constant-schedule",),
            weights="intact",
        )


class ZeroLr(Rule):
    """The lr is 0 while steps go on: nothing is learnt."""

    name = "zero-lr"
    family = "schedule"
    needs = ("lr",)
    ids = ("lr-zero", "scaler-skip-every-step")
    observes = True
    when = "lr"

    def __init__(self) -> None:
        self._first: int | None = None
        self._row = 0
        self._longest = 0
        self._span = (0, 0)
        self._bad_gradients = 0

    def observe(self, trace: Trace) -> bool:
        """Count zeros in a row."""
        record = trace.record
        if record.lr != 0.0:
            self._row, self._first = 0, None
            return False
        if record.optimizer_stepped is False:
            return False  # a warm-up that cannot start: the skipped steps are told by their own rules
        self._first = record.step if self._first is None else self._first
        self._row += 1
        grad = record.grad_norm
        self._bad_gradients += grad is not None and not isfinite(grad)
        if self._row > self._longest:
            self._longest, self._span = self._row, (self._first, record.step)
        return self._row == _ENOUGH

    def findings(self, trace: Trace) -> Iterable[Finding]:
        """A row of zeros; a single one may be the first step of a warm-up or the last of a decay."""
        if self._bad_gradients or trace.episodes.all:
            return
        if self._longest < _ENOUGH:
            yield from self._single(trace)
            return
        yield self._finding(trace, "lr-zero", "established", ())

    def _single(self, trace: Trace) -> Iterable[Finding]:
        """A lone line whose lr is 0 well into the data: a warm-up that cannot start."""
        epoch = trace.epoch
        if trace.num_records == self._longest == 1 and epoch is not None and 0.05 < epoch < 0.9:
            yield self._finding(trace, "scaler-skip-every-step", "possible", ("lr-zero",))
            yield self._finding(trace, "lr-zero", "possible", ("scaler-skip",))

    def _finding(self, trace: Trace, name: str, confidence: str, undecided: tuple[str, ...]) -> Finding:
        first, last = self._span
        return Finding(
            rule=self.name,
            id=name,
            severity="error",
            confidence="established" if confidence == "established" else "possible",
            first_step=first,
            last_step=last,
            evidence={"count": self._longest, "peak_lr": trace.odometer.max_lr, "level": trace.level.median or None},
            ruled_out=("end-of-schedule",) if confidence == "established" else (),
            undecided=undecided,
            weights="intact",
        )


class EndlessWarmup(Rule):
    """The lr still rises at the end of the run."""

    name = "endless-warmup"
    family = "schedule"
    needs = ("lr",)
    ids = ("warmup-longer-than-run",)
    min_records = 6

    def findings(self, trace: Trace) -> Iterable[Finding]:
        """Only where the run's end is known, or the warm-up is."""
        odometer, facts = trace.odometer, trace.facts
        rising = trace.reading is not None and trace.reading.moved
        if not rising or not odometer.always_rose or odometer.num_moved < 5:
            return
        last, end = trace.record.step, facts.max_steps
        planned = facts.warmup_steps is not None and end is not None and facts.warmup_steps >= end
        if not planned and (end is None or last < 0.9 * end):
            return
        yield Finding(
            rule=self.name,
            id="warmup-longer-than-run",
            severity="warning",
            confidence="established",
            first_step=trace.first_step,
            last_step=last,
            evidence={"lr": odometer.last_lr, "warmup_steps": facts.warmup_steps, "max_steps": end},
        )


class LrJump(Rule):
    """The lr jumps to where it was long before: the schedule was started again."""

    name = "lr-jump"
    family = "schedule"
    needs = ("lr",)
    ids = ("resume-state-lost",)
    min_records = 6
    observes = True
    when = "lr"

    def __init__(self) -> None:
        self._lr: float | None = None
        self._peak = 0.0
        self._falls = 0
        self._fall = self._fall_before = 0.0
        self._fall_step = 0
        self._jumps: list[tuple[int, float, float]] = []

    def observe(self, trace: Trace) -> bool:
        """A rise, after several falls, back to the early lr; or a sudden fall to the foot of a new warm-up."""
        lr, before = trace.record.lr, self._lr
        self._lr = lr
        if lr is None or before is None or lr == before or not isfinite(lr):
            return False
        highest = lr if lr > before else before
        if highest > self._peak:
            self._peak = highest
        if lr < before:
            self._falls += 1
            self._fall_before, self._fall, self._fall_step = self._fall, before - lr, trace.record.step
            return False
        sudden = self._fall > 2.5 * self._fall_before and self._fall > 0.1 * self._peak
        # Cosine with restarts falls to nearly 0, ever more gently, before each one: no jump.
        resumed = trace.said("resumed") > 0
        far = before > (0.1 if resumed else 0.2) * self._peak
        big = lr > 1.15 * before and self._falls >= 3 and (sudden or far)
        if big and sudden:
            self._jumps.append((self._fall_step, before + self._fall, before))
        elif big:
            self._jumps.append((trace.record.step, before, lr))
        self._falls, self._fall_before, self._fall = 0, 0.0, 0.0
        return big

    def findings(self, trace: Trace) -> Iterable[Finding]:
        """One or two jumps; more are a schedule with restarts."""
        resumed = trace.said("resumed") > 0
        if not self._jumps or len(self._jumps) > 2:
            return
        step, before, after = self._jumps[0]
        if (trace.facts.schedule or "").endswith("restarts"):
            return
        yield Finding(
            rule=self.name,
            id="resume-state-lost",
            severity="warning",
            confidence="established" if resumed else "likely",
            first_step=step,
            last_step=step,
            evidence={"lr_before": before, "lr_after": after, "peak_lr": self._peak},
            undecided=() if resumed else ("cyclic-schedule",),
        )


class ScheduleOutOfStep(Rule):
    """The lr moves on although the update was thrown away."""

    name = "schedule-out-of-step"
    family = "schedule"
    needs = ("lr", "optimizer_stepped")
    ids = ("schedule-ignores-skips",)
    min_records = 3
    observes = True
    when = "lr"

    def __init__(self) -> None:
        self._skipped = False
        self._first = self._last = 0
        self._count = self._still = 0

    def observe(self, trace: Trace) -> bool:
        """Compare the lr after a skipped step with the lr before it."""
        reading = trace.reading
        if self._skipped and reading is not None:
            if reading.moved:
                self._count += 1
                self._first = self._first or trace.record.step
                self._last = trace.record.step
            else:
                self._still += 1
        self._skipped = trace.record.optimizer_stepped is False
        return self._count == 3

    def findings(self, trace: Trace) -> Iterable[Finding]:
        """A schedule that follows the steps tried."""
        if self._count < 3 or self._still > self._count:
            return
        yield Finding(
            rule=self.name,
            id="schedule-ignores-skips",
            severity="warning",
            confidence="established",
            first_step=self._first,
            last_step=self._last,
            evidence={"count": self._count},
        )
