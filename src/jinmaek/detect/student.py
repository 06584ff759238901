"""Quantiles of Student's t distribution, to the last digits of a float."""

from __future__ import annotations

import math
from functools import cache


@cache
def student_quantile(probability: float, freedom: int) -> float:
    """The t with P(T ≤ t) = ``probability``, above 0 and below 1, for ``freedom`` ≥ 1 degrees of freedom."""
    if probability < 0.5:
        return -student_quantile(1 - probability, freedom)
    level = 2 * probability - 1
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
