"""Recognise a cosine schedule in the lr column, and read applied steps from it exactly.

With lr = peak/2·(1 + cos(π·φ)), φ runs straight from 0 to 1 over the schedule: for the right peak the steps of the
healthy lines are a straight line in φ, for a wrong one they are not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import acos, floor, log10, pi

_ENOUGH = 4  # points, of which two fix the line and the others confirm it
_BEND = 0.2  # steps
_HIGHEST = 2.0  # times the highest lr seen: how far above it the peak may lie


@dataclass(frozen=True, slots=True)
class Cosine:
    """A cosine decay from ``peak`` to 0 over ``length`` applied steps."""

    peak: float
    length: float

    def applied(self, lr: float) -> float | None:
        """Applied steps since the peak."""
        place = 2 * lr / self.peak - 1
        return self.length * acos(place) / pi if -1 <= place <= 1 else None


def fit_cosine(points: Sequence[tuple[int, float]]) -> Cosine | None:
    """The cosine that the points (step, lr) lie on to a hundredth of a step, if there is one.

    The points must lie after the peak and before any skipped step; skips before them do not matter.
    """
    if len(points) < _ENOUGH or points[0][1] <= 0 or not _bends(points):
        return None
    highest = max(lr for _, lr in points)
    for peak in _typed(highest):
        length = _length(points, peak)
        if length is not None:
            return Cosine(peak, length)
    return None


def _bends(points: Sequence[tuple[int, float]]) -> bool:
    """Whether the points leave their chord by enough steps to tell a cosine from a straight line."""
    (first_step, first), (last_step, last) = points[0], points[-1]
    if first <= last:
        return False
    slope = (last_step - first_step) / (last - first)
    return max(abs(step - first_step - slope * (lr - first)) for step, lr in points) > _BEND


def _typed(highest: float) -> list[float]:
    """Peaks that somebody would type, from the highest lr seen upwards, and that one itself."""
    exponent = floor(log10(highest))
    tens = [float(f"{tenth / 10}e{power}") for power in (exponent, exponent + 1) for tenth in range(10, 100)]
    return [highest, *(peak for peak in tens if highest < peak <= _HIGHEST * highest)]


def _length(points: Sequence[tuple[int, float]], peak: float) -> float | None:
    phases = [acos(max(-1.0, min(1.0, 2 * lr / peak - 1))) / pi for _, lr in points]
    (first_step, _), (last_step, _) = points[0], points[-1]
    span = phases[-1] - phases[0]
    if span <= 1e-9:
        return None
    length = (last_step - first_step) / span
    off = max(
        abs(step - first_step - length * (phase - phases[0])) for (step, _), phase in zip(points, phases, strict=True)
    )
    # A straight decay fits no cosine; a cosine's length is a whole number of steps.
    return length if off < 0.01 and abs(length - round(length)) < 0.02 else None
