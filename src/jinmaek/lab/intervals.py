"""Student's t intervals of means over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from jinmaek.detect.student import student_quantile

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
    return mean, student_quantile(0.5 + level / 2, len(values) - 1) * spread / math.sqrt(len(values))
