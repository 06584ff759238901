"""Read how many optimizer steps were really applied from the learning-rate column.

A schedule advances once for each applied optimizer step (transformers steps it only when the loss scaler did
not skip). Between two lines of a log the lr therefore moves by as many schedule steps as updates were applied.
A cosine is recognised and inverted. For any other schedule the slope that a full window should have is
extrapolated from the last three full windows; their second difference, 0 for a linear schedule, says how far a
curved one may be off.
"""

from __future__ import annotations

from dataclasses import dataclass

from jinmaek.detect.schedules import Cosine, fit_cosine
from jinmaek.detect.steps import Numbering

_EXACT_DIGITS = 12  # so many significant digits are no rounded print
_FIT_AT = frozenset((4, 5, 6, 8, 12, 16, 24, 32, 64, 128))
_MAX_FITTED = 128
_SAME = 1e-6  # relative: slopes of a straight line differ by rounding only
_STEADY = 0.2  # two neighbouring slopes that differ by less belong to one piece of the schedule


@dataclass(slots=True)
class Reading:
    """What the lr says of one record. ``applied`` is ``None`` where the schedule cannot tell.

    ``frozen``: the lr is the previous one to the bit although the schedule was moving.
    ``pending``: a partial advance while the lr rises; the next line tells a skip from the warm-up's end.
    """

    step: int
    num_steps: int
    applied: float | None = None
    frozen: bool = False
    moved: bool = False
    pending: bool = False

    @property
    def skipped(self) -> int:
        """Steps without update, as far as known; a window's rounding error is not a skip."""
        if self.applied is None or self.pending:
            return 0
        return max(0, self.num_steps - round(self.applied))


class Odometer:
    """Takes (step, lr) line by line."""

    def __init__(self) -> None:
        self.readings = 0
        self.num_moved = 0
        self.num_fell = 0
        self.max_lr = 0.0
        self.first_lr: float | None = None
        self.last_lr: float | None = None
        self.total_skipped = 0
        self.windows_read = 0
        self._slopes: list[float] = []  # of the last three full windows, per step
        self.exact = False  # the lr is known to be printed in full
        self._last: Reading | None = None
        self._digits = 0
        self._steady: float | None = None  # slope of the straight line that the last windows lie on
        self._falling: list[tuple[int, float]] = []  # (step, lr) since the last rise, before any skip
        self._cosine: Cosine | None = None

    def read(self, step: int, lr: float, num_steps: int) -> Reading:
        """The reading of this record; may settle that the previous one was a skip, not a corner."""
        reading = Reading(step, num_steps)
        self.readings += 1
        steady = self._steady
        if steady is not None and self.last_lr is not None:
            delta, full = lr - self.last_lr, steady * num_steps
            if abs(delta - full) <= _SAME * abs(full):  # the common case: one more full window of a straight line
                reading.applied, reading.moved = float(num_steps), True
                self.num_moved += 1
                self.num_fell += delta < 0
                self.windows_read += 1
                self.last_lr, self._last = lr, reading
                self.max_lr = max(self.max_lr, lr)
                return reading
            self._steady = None
        if self.readings <= 64:
            self._digits = max(self._digits, _significant_digits(lr))
        if self.last_lr is None:
            self.first_lr = lr
        else:
            self._compare(reading, lr - self.last_lr, lr)
        self.last_lr = lr
        self.max_lr = max(self.max_lr, lr)
        self._last = reading
        return reading

    @property
    def expected_slope(self) -> float | None:
        """Change of the lr per applied step that the next full window should show."""
        if len(self._slopes) < 3:
            return None
        first, second, third = self._slopes
        return 3 * third - 3 * second + first

    @property
    def constant(self) -> bool:
        """The lr never moved, and its value looks like one that somebody typed."""
        return self.num_moved == 0 and (self.last_lr is None or _significant_digits(self.last_lr) <= 3)

    @property
    def typed_oddly(self) -> bool:
        """The last lr has more digits than anybody types."""
        return self.last_lr is not None and _significant_digits(self.last_lr) > 6

    @property
    def always_rose(self) -> bool:
        """The lr went up at every line that moved it."""
        return self.num_moved > 0 and self.num_fell == 0

    def linear_schedule(self, length: int) -> Numbering | None:
        """The linear decay to 0 over ``length`` steps that the last full windows belong to, if they are linear."""
        if len(self._slopes) < 2 or self._last is None or self.last_lr is None:
            return None
        before, slope = self._slopes[-2:]
        if slope >= 0 or abs(slope - before) > 1e-4 * abs(slope):
            return None
        applied = length - round(self.last_lr / -slope)
        # transformers ≥ 4.5x prints the lr that the step used, older versions the next one: one step of doubt.
        skipped = max(0, self._last.step - applied - self.total_skipped - 1)
        return Numbering((), self._last.num_steps, self.max_lr, length, skipped)

    def _compare(self, reading: Reading, delta: float, lr: float) -> None:
        reading.moved = delta != 0.0
        self.num_moved += reading.moved
        self.num_fell += delta < 0
        slope = delta / reading.num_steps
        expected = self.expected_slope
        if lr == 0.0 or (delta == 0.0 and self._may_rest(lr)):
            self._slopes = [slope] * 3 if delta == 0.0 else []  # the schedule's end, or its constant part
            return
        exact = self._by_cosine(reading, lr, delta)
        if exact is not None:
            reading.frozen = delta == 0.0
            self._count(reading, exact, slope, 0.0)
            return
        if expected is None or expected == 0.0:
            reading.frozen = delta == 0.0
            self._learn(slope)
            return
        applied = delta / expected
        tolerance = self._tolerance(lr, expected, reading.num_steps)
        if applied < -tolerance or applied > reading.num_steps * 1.2 + tolerance:
            self._slopes = [slope]  # another piece of the schedule begins: a corner, a restart
            return
        reading.frozen = delta == 0.0
        self._count(reading, applied, slope, tolerance)

    def _by_cosine(self, reading: Reading, lr: float, delta: float) -> float | None:
        """Applied steps of this window by the cosine that the schedule was recognised as."""
        if delta > 0:
            self._falling.clear()
            self._cosine = None
            return None
        if self._cosine is not None and self.last_lr is not None:
            before, now = self._cosine.applied(self.last_lr), self._cosine.applied(lr)
            return None if before is None or now is None else now - before
        if self.total_skipped == 0 and delta < 0 and len(self._falling) < _MAX_FITTED:
            self._falling.append((reading.step, lr))
            if len(self._falling) in _FIT_AT and self._digits >= _EXACT_DIGITS:
                self._cosine = fit_cosine(self._falling)
        return None

    def _count(self, reading: Reading, applied: float, slope: float, tolerance: float) -> None:
        """Applied steps of a window whose full advance is known."""
        readable = tolerance <= 0.3 * reading.num_steps
        if reading.num_steps - applied <= 0.5 + tolerance or not readable:
            if readable:
                reading.applied = float(reading.num_steps)
                self.windows_read += 1
            self._learn(slope)
            return
        reading.applied = max(applied, 0.0)
        reading.pending = slope >= 0 and bool(self._slopes) and self._slopes[-1] > 0
        self.windows_read += 1
        self._settle_last(slope)
        self.total_skipped += reading.skipped

    def _may_rest(self, lr: float) -> bool:
        """Whether a schedule may rest at this lr by design: where it never moved and somebody typed it, at a typed
        peak after a warm-up, at the floor of a decay that had died away."""
        if self.num_moved == 0:
            return _significant_digits(lr) <= 6
        if lr >= self.max_lr * (1 - 1e-9):
            return _significant_digits(lr) <= 3 or self._slopes == [0.0] * 3
        return bool(self._slopes) and abs(self._slopes[-1]) < 1e-6 * self.max_lr

    def _settle_last(self, delta: float) -> None:
        """A partial advance on the way up was a skip if the lr still rises after it."""
        last = self._last
        if last is not None and last.pending and delta > 0:
            last.pending = False
            self.total_skipped += last.skipped

    def _learn(self, slope: float) -> None:
        if self._slopes and abs(slope - self._slopes[-1]) > _STEADY * abs(self._slopes[-1]):
            self._slopes = [slope]
        else:
            self._slopes = [*self._slopes[-2:], slope]
            first = self._slopes[0]
            straight = len(self._slopes) == 3 and max(self._slopes) - min(self._slopes) <= _SAME * abs(first)
            self._steady = first if straight and first < 0.0 and self._cosine is None else None
        if slope > 0:
            self._settle_last(slope)

    def _tolerance(self, lr: float, slope: float, num_steps: int) -> float:
        """Steps of uncertainty: from the schedule's curvature, and from the digits that the log prints."""
        first, second, third = self._slopes
        curvature = abs(third - 2 * second + first) / abs(slope) * num_steps
        if self.exact or self._digits >= _EXACT_DIGITS or lr <= 0.0:
            return curvature
        unit = 10.0 ** (int(f"{lr:e}".partition("e")[2]) - max(self._digits, 1) + 1)
        return curvature + 0.7 * unit / abs(slope)


def _significant_digits(value: float) -> int:
    mantissa = repr(value).partition("e")[0].replace(".", "").replace("-", "").strip("0")
    return len(mantissa)
