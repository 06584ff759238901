"""Number the records of a log that prints no steps, from a linear schedule's lr.

With a linear schedule lr = peak·(1 − applied/T). A peak that people type, and a logging interval for which every
line comes out as a whole number of applied steps, give T and the steps; the printed epochs must agree.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor, isfinite, log10

_MANTISSAS = (1.0, 2.0, 5.0, 3.0, 4.0, 1.5, 2.5, 6.0, 8.0, 7.0, 9.0)  # commonest first
_INTERVALS = (1, 2, 5, 10, 20, 25, 50, 100, 200, 250, 500, 1000)
_MIN_LINES = 5


@dataclass(frozen=True, slots=True)
class Numbering:
    """Steps of the lines, and the schedule they follow from."""

    steps: tuple[int, ...]
    interval: int
    peak_lr: float
    schedule_steps: int
    skipped_before: int


def infer_steps(lrs: Sequence[float | None], epochs: Sequence[float | None]) -> Numbering | None:
    """The numbering of a log whose lr decays linearly, or ``None`` where the lr does not say.

    Args:
        lrs: lr of each line.
        epochs: epoch of each line, rounded as it was printed.
    """
    known = [lr for lr in lrs if lr is not None and isfinite(lr)]
    if len(known) != len(lrs) or len(known) < _MIN_LINES:
        return None
    falls = [before - after for before, after in pairwise(known)]
    if min(falls) < 0 or max(falls) <= 0:
        return None
    fall = _usual(falls)
    if fall is None:
        return None
    fits = (_number(known, epochs, fall, peak, interval) for peak in _peaks(known[0]) for interval in _INTERVALS)
    return next((fit for fit in fits if fit is not None), None)


def _usual(falls: Sequence[float]) -> float | None:
    """The fall that a full window has: the commonest of the larger ones."""
    top = max(falls)
    counted = Counter(round(fall / top, 3) for fall in falls if fall > 0.5 * top)
    share, count = counted.most_common(1)[0]
    if share < 0.99 or count < 3:
        return None
    full = [fall for fall in falls if round(fall / top, 3) == share]
    return sum(full) / len(full)


def _peaks(first: float) -> list[float]:
    """Typed peak rates from the first lr up to twenty times it, the commonest first."""
    low = floor(log10(first))
    peaks = [float(f"{mantissa}e{exponent}") for mantissa in _MANTISSAS for exponent in (low, low + 1)]
    return [peak for peak in peaks if first <= peak <= 20 * first]


def _number(
    lrs: Sequence[float], epochs: Sequence[float | None], fall: float, peak: float, interval: int
) -> Numbering | None:
    length = interval * peak / fall
    if abs(length - round(length)) > 1e-3 * max(1.0, length / 1000):
        return None
    length = round(length)
    applied = [length * (1 - lr / peak) for lr in lrs]
    if any(abs(count - round(count)) > 0.02 for count in applied):
        return None
    first = max(interval, ceil(round(applied[0]) / interval) * interval)
    steps = tuple(first + interval * line for line in range(len(lrs)))
    if not _agrees(steps, epochs):
        return None
    return Numbering(steps, interval, peak, length, first - round(applied[0]))


def _agrees(steps: Sequence[int], epochs: Sequence[float | None]) -> bool:
    """Whether some number of steps an epoch explains every printed epoch (rounded to its digits)."""
    low, high = 0.0, float("inf")
    for step, epoch in zip(steps, epochs, strict=True):
        if epoch is None:
            continue
        decimals = len(repr(epoch).partition(".")[2].rstrip("0"))
        half = 0.5 * 10.0 ** -max(decimals, 2)
        low = max(low, step / (epoch + half))
        if epoch > half:
            high = min(high, step / (epoch - half))
    return low <= high * (1 + 1e-9)
