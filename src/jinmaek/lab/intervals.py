"""Student's t intervals of means over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from statistics import fmean, stdev

LEVEL = 0.95


def mean_interval(values: Sequence[float], level: float = LEVEL) -> tuple[float, float | None]:
    """Mean and half-width of its interval at ``level``; ``None`` for a single value, which has no interval.

    Assumes that the values are independent and near normal, as means of many tokens' losses over seeds are. Values
    that are all the same give a half-width of 0.
    """
    mean = fmean(values)
    if len(values) < 2:
        return mean, None
    spread = 0.0 if len(set(values)) == 1 else stdev(values)
    return mean, t_quantile(level, len(values) - 1) * spread / math.sqrt(len(values))


@cache
def t_quantile(level: float, freedom: int) -> float:
    """The t with P(|T| ≤ t) = ``level`` for Student's distribution with ``freedom`` ≥ 1 degrees of freedom."""
    low, high = 0.0, 1.0
    while _within(high, freedom) < level:
        high *= 2
    for _ in range(200):
        middle = (low + high) / 2
        if middle in (low, high):
            break
        low, high = (middle, high) if _within(middle, freedom) < level else (low, middle)
    return high


def _within(t: float, freedom: int) -> float:
    """P(|T| ≤ t) in closed form: Abramowitz & Stegun, Handbook of Mathematical Functions, 26.7.3 and 26.7.4."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    if freedom == 1:
        return 2 * angle / math.pi
    term = cosine if odd else 1.0
    total = term
    for number in range(2 + odd, freedom - 1, 2):
        term *= cosine**2 * (number - 1) / number
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total
