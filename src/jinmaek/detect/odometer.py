"""Read how many optimizer steps were really applied from the learning-rate column.

A schedule advances once for each applied optimizer step (transformers steps it only when the loss scaler did
not skip). Between two lines of a log the lr therefore moves by as many schedule steps as updates were applied.
Only two shapes are counted, for they alone can be recognised without doubt: a straight line (three windows of one
slope) and a cosine (:mod:`jinmaek.detect.schedules`), both printed in full. Of any other schedule, and of rounded
prints, the odometer says only whether the lr moved or stood still.
"""

from __future__ import annotations

from dataclasses import dataclass

from jinmaek.detect.schedules import Cosine, Digits, fit_cosine, significant_digits
from jinmaek.detect.steps import Numbering

_FIT_AT = frozenset((4, 5, 6, 8, 12, 16, 24, 32, 64, 128))
_MAX_FITTED = 128
_SAME = 1e-6  # relative: slopes of a straight line differ by rounding only
_WHOLE = 0.01  # steps: applied updates are whole numbers
_ALIKE = 6  # windows in a row that lose the same number of steps: rather a gentler slope
_FLOOR = 0.02  # of the peak: where decays are made to end


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
        if self.applied is None or self.pending or self.applied == self.num_steps:
            return 0
        return max(0, self.num_steps - round(self.applied))


class Odometer:
    """Takes (step, lr) line by line. ``exact``: the lr is known to be printed in full."""

    def __init__(self, *, exact: bool = False) -> None:
        self.readings = 0
        self.num_moved = 0
        self.num_fell = 0
        self.max_lr = 0.0
        self.first_lr: float | None = None
        self.last_lr: float | None = None
        self.total_skipped = 0
        self.windows_read = 0
        self._digits = Digits(exact=exact)
        self._last: Reading | None = None
        self._slopes: list[float] = []  # per step, of the last windows that lie on one straight line
        self._partial: float | None = None  # slope of the window before, if it was partly skipped
        self._num_alike = 0  # such windows in a row, with that slope
        self._move = 0.0  # of the lr over the last window that moved it
        self._falling: list[tuple[int, float]] = []  # (step, lr) since the last rise, before any skip
        self._cosine: Cosine | None = None

    def read(self, step: int, lr: float, num_steps: int) -> Reading:
        """The reading of this record; may settle that the previous one was a skip, not a corner."""
        reading = Reading(step, num_steps)
        self.readings += 1
        if self.readings <= _MAX_FITTED:
            self._digits.see(lr)
        if self.last_lr is None:
            self.first_lr = lr
        else:
            self._compare(reading, lr - self.last_lr, lr)
        self.last_lr, self._last = lr, reading
        if lr > self.max_lr:
            self.max_lr = lr
        return reading

    @property
    def steady_slope(self) -> float | None:
        """Change of the lr per applied step on the straight line that the last windows lie on."""
        return self._slopes[-1] if len(self._slopes) == 3 else None

    @property
    def constant(self) -> bool:
        """The lr never moved, and its value looks like one that somebody typed."""
        return self.num_moved == 0 and (self.last_lr is None or significant_digits(self.last_lr) <= 3)

    @property
    def typed_oddly(self) -> bool:
        """The last lr has more digits than anybody types."""
        return self.last_lr is not None and significant_digits(self.last_lr) > 6

    @property
    def always_rose(self) -> bool:
        """The lr went up at every line that moved it."""
        return self.num_moved > 0 and self.num_fell == 0

    def linear_schedule(self, length: int) -> Numbering | None:
        """The linear decay to 0 over ``length`` steps that the last full windows belong to, if they are linear."""
        slope = self.steady_slope
        if slope is None or slope >= 0 or self._last is None or self.last_lr is None:
            return None
        applied = length - round(self.last_lr / -slope)
        # transformers ≥ 4.5x prints the lr that the step used, older versions the next one: one step of doubt.
        skipped = max(0, self._last.step - applied - self.total_skipped - 1)
        return Numbering((), self._last.num_steps, self.max_lr, length, skipped)

    def _compare(self, reading: Reading, delta: float, lr: float) -> None:
        slope = delta / reading.num_steps
        if delta == 0.0:
            self._stand(reading, lr)
            return
        reading.moved = True
        self.num_moved += 1
        self.num_fell += delta < 0
        self._move = abs(delta)
        steady = self.steady_slope
        if steady is not None and abs(slope - steady) <= _SAME * abs(steady):
            self._full(reading, slope)  # the common case: one more full window of a straight line
            return
        applied = self._by_cosine(reading, lr, delta)
        if applied is None and steady is not None and self._digits.full and not self._ends(lr):
            applied = delta / steady
        if applied is None or not 0 < applied < reading.num_steps + 0.5 or abs(applied - round(applied)) > _WHOLE:
            self._begin(slope)  # another piece of the schedule: a corner, a restart
        elif reading.num_steps - applied <= 0.5:
            self._full(reading, slope)
        else:
            self._part(reading, applied, slope)

    def _stand(self, reading: Reading, lr: float) -> None:
        """The lr is the one before: frozen, or at rest by design."""
        if self._may_rest(lr):
            self._slopes = []
            return
        reading.frozen = True
        if self._cosine is not None or (self.steady_slope is not None and self._digits.full):
            reading.applied = 0.0
            reading.pending = self.steady_slope is not None and self.steady_slope > 0
            self.windows_read += 1
            self.total_skipped += reading.skipped
        self._partial = None

    def _full(self, reading: Reading, slope: float) -> None:
        reading.applied = float(reading.num_steps)
        self.windows_read += 1
        self._partial = None
        if slope > 0:
            self._settle_last()

    def _part(self, reading: Reading, applied: float, slope: float) -> None:
        """A window of which some steps were skipped; many alike in a row are another straight line."""
        alike = self._partial is not None and abs(slope - self._partial) <= _SAME * abs(slope)
        self._num_alike = self._num_alike + 1 if alike else 1
        if self._num_alike >= _ALIKE and reading.num_steps > 1 and self._cosine is None:
            self._begin(slope)
            return
        reading.applied = applied
        reading.pending = slope > 0
        self.windows_read += 1
        if slope > 0:
            self._settle_last()
        self.total_skipped += reading.skipped
        self._partial = slope

    def _begin(self, slope: float) -> None:
        """Take this window for the next of a straight line, or the first of another one."""
        self._partial = None
        alike = bool(self._slopes) and abs(slope - self._slopes[-1]) <= _SAME * abs(slope)
        self._slopes = [*self._slopes[-2:], slope] if alike else [slope]

    def _settle_last(self) -> None:
        """A partial advance on the way up was a skip if the lr still rises after it."""
        last = self._last
        if last is not None and last.pending:
            last.pending = False
            self.total_skipped += last.skipped

    def _by_cosine(self, reading: Reading, lr: float, delta: float) -> float | None:
        """Applied steps of this window by the cosine that the schedule was recognised as."""
        if delta > 0:
            self._falling.clear()
            self._cosine = None
            return None
        if self._cosine is not None and self.last_lr is not None:
            before, now = self._cosine.applied(self.last_lr), self._cosine.applied(lr)
            return None if before is None or now is None else now - before
        if self.total_skipped == 0 and len(self._falling) < _MAX_FITTED:
            self._falling.append((reading.step, lr))
            if len(self._falling) in _FIT_AT and self._digits.full:
                self._cosine = fit_cosine(self._falling)
        return None

    def _ends(self, lr: float) -> bool:
        """Whether a decay may be made to end at this lr: 0, or a small one that somebody typed."""
        return lr == 0.0 or (lr < _FLOOR * self.max_lr and significant_digits(lr) <= 3)

    def _may_rest(self, lr: float) -> bool:
        """Whether a schedule may rest at this lr by design: where it never moved and somebody typed it, at a typed
        peak after a warm-up, at the end of a decay; or whether its next move is too small for the printed digits."""
        if self.num_moved == 0:
            return significant_digits(lr) <= 6
        if self._ends(lr) or self._move <= 3 * self._digits.unit(self.max_lr):
            return True
        if self._cosine is not None:
            return self._cosine.over(lr)
        if lr >= self.max_lr * (1 - 1e-9):
            return significant_digits(lr) <= 3 or not self._slopes
        return self._move < 1e-6 * self.max_lr
