"""Recognise a cosine schedule in the lr column, and read applied steps from it exactly.

With lr = floor + (peak − floor)/2·(1 + cos(π·φ)), φ runs straight from 0 to 1 over the schedule: for the right peak
and floor the steps of the healthy lines are a straight line in φ, for wrong ones they are not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import acos, floor, isfinite, log10, pi

_ENOUGH = 4  # points, of which two fix the line and the others confirm it
_BEND = 0.2  # steps
_OFF = 1e-4  # steps: what is left of a true cosine printed in full is a millionth
_HIGHEST = 2.0  # times the highest lr seen: how far above it the peak may lie
_FLOORS = (0.0, 0.1, 0.01, 0.05, 0.2, 0.02, 0.25, 0.5)  # of the peak
_EXACT_DIGITS = 12  # so many significant digits are no rounded print


class Digits:
    """How precisely the lr is printed. ``exact``: known to be in full, however short its digits."""

    __slots__ = ("_most", "_place", "exact")

    def __init__(self, *, exact: bool = False) -> None:
        self.exact = exact
        self._most = 1
        self._place = float("inf")

    def see(self, lr: float) -> None:
        """Take note of a printed value."""
        if lr <= 0 or not isfinite(lr):
            return
        digits = significant_digits(lr)
        self._most = max(self._most, digits)
        self._place = min(self._place, 10.0 ** (floor(log10(lr)) - digits + 1))

    @property
    def full(self) -> bool:
        """Whether nothing was rounded away."""
        return self.exact or self._most >= _EXACT_DIGITS

    def unit(self, lr: float) -> float:
        """The last printed place of values as large as ``lr``, whether digits or decimals are fixed."""
        if self.full or lr <= 0 or not isfinite(lr):
            return 0.0
        return max(float(10.0 ** (floor(log10(lr)) - self._most + 1)), self._place)


@dataclass(frozen=True, slots=True)
class Cosine:
    """A cosine decay from ``peak`` to ``floor`` over ``length`` applied steps."""

    peak: float
    floor: float
    length: float

    def applied(self, lr: float) -> float | None:
        """Applied steps since the peak."""
        place = 2 * (lr - self.floor) / (self.peak - self.floor) - 1
        return self.length * acos(place) / pi if -1 <= place <= 1 else None

    def over(self, lr: float) -> bool:
        """Whether the decay has come to its end."""
        return lr <= self.floor + 1e-9 * self.peak


def fit_cosine(points: Sequence[tuple[int, float]]) -> Cosine | None:
    """The cosine that the points (step, lr) lie on, if there is one.

    The points must lie after the peak and before any skipped step; skips before them do not matter.
    """
    if len(points) < _ENOUGH or points[-1][1] <= 0 or not _bends(points):
        return None
    for peak in _typed(max(lr for _, lr in points)):
        for share in _FLOORS:
            length = _length(points, peak, share * peak)
            if length is not None:
                return Cosine(peak, share * peak, length)
    return None


def significant_digits(value: float) -> int:
    """Digits that ``value`` needs."""
    return len(repr(value).partition("e")[0].replace(".", "").replace("-", "").strip("0"))


def _bends(points: Sequence[tuple[int, float]]) -> bool:
    """Whether the points leave their chord by enough steps to tell a cosine from a straight line."""
    (first_step, first), (last_step, last) = points[0], points[-1]
    if first <= last:
        return False
    slope = (last_step - first_step) / (last - first)
    return max(abs(step - first_step - slope * (lr - first)) for step, lr in points) > _BEND


def _typed(highest: float) -> Iterator[float]:
    """Peaks that somebody would type, from the highest lr seen upwards, and that one itself."""
    yield highest
    exponent = floor(log10(highest))
    for power in (exponent, exponent + 1):
        for tenth in range(10, 100):
            peak = float(f"{tenth / 10}e{power}")
            if highest < peak <= _HIGHEST * highest:
                yield peak


def _length(points: Sequence[tuple[int, float]], peak: float, low: float) -> float | None:
    (first_step, first), (last_step, last) = points[0], points[-1]
    if last < low:
        return None
    scale = 2 / (peak - low)
    start = acos(max(-1.0, min(1.0, (first - low) * scale - 1))) / pi
    span = acos(max(-1.0, min(1.0, (last - low) * scale - 1))) / pi - start
    if span <= 1e-9:
        return None
    length = (last_step - first_step) / span
    if abs(length - round(length)) > 10 * _OFF:
        return None  # a cosine's length is a whole number of steps
    for step, lr in points:
        phase = acos(max(-1.0, min(1.0, (lr - low) * scale - 1))) / pi
        if abs(step - first_step - length * (phase - start)) > _OFF:
            return None
    return length
