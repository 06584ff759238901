"""Intervals for the mean and the slope of a series whose neighbours resemble each other.

Both use the equal-weighted cosine estimator of the long-run variance with Student's t (Müller 2004; recommended by
Lazarus, Lewis, Stock & Watson 2018, *HAR Inference: Recommendations for Practice*, J. Bus. Econ. Stat. 36(4), with
ν = 0.4·T^(2/3) cosines, here 8 at most). Unlike those of a Newey-West variance with normal quantiles its intervals keep
their level on short and slow series; ``docs/compare.md`` gives the measured coverage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import cos, pi, pow, sqrt

from jinmaek.detect.student import student_quantile

LEVEL = 0.95
POWER = 0.8
MOST_COSINES = 8  # more make narrower intervals, which miss noise that is slow as weights that drift
FEWEST = 8  # points of a series
MOST = 1024  # longer series are joined first: a mean of neighbours has the same long-run variance


@dataclass(frozen=True, slots=True)
class Estimated:
    """An estimate with its standard error and the degrees of freedom behind that."""

    value: float
    error: float
    freedom: int

    def half_width(self, level: float = LEVEL) -> float:
        """Half the width of the two-sided interval."""
        return student_quantile(0.5 + level / 2, self.freedom) * self.error

    def detectable(self, level: float = LEVEL, power: float = POWER) -> float:
        """The smallest true effect that the interval would keep apart from 0 with probability ``power``.

        (t_{1−α/2} + t_{power}) times the standard error (Bloom 1995, *Minimum Detectable Effects*).
        """
        return self.half_width(level) + student_quantile(power, self.freedom) * self.error


def mean_interval(values: Sequence[float]) -> Estimated | None:
    """Mean of a stationary series; ``None`` for fewer than :data:`FEWEST` points."""
    joined = join(values)
    num = len(joined)
    if num < FEWEST:
        return None
    mean = sum(joined) / num
    count = num_cosines(num)
    variance = long_run_covariance([x - mean for x in joined], None, range(1, count + 1))
    return Estimated(mean, sqrt(variance / num), count)


def slope_interval(values: Sequence[float]) -> Estimated | None:
    """Least-squares slope per point of a linear trend with stationary noise; ``None`` for too few points.

    Var(slope) = Ω / Σ(t − t̄)², Ω the long-run variance of the residuals (Grenander & Rosenblatt 1957). The first
    cosine is left out: nearly all of it is the trend, which the residuals lack.
    """
    joined = join(values)
    num, width = len(joined), join_width(len(values))
    if num < FEWEST:
        return None
    middle, mean = (num - 1) / 2, sum(joined) / num
    spread = num * (num * num - 1) / 12
    slope = sum((at - middle) * value for at, value in enumerate(joined)) / spread
    rests = [value - mean - slope * (at - middle) for at, value in enumerate(joined)]
    count = num_cosines(num)
    variance = long_run_covariance(rests, None, range(2, count + 2))
    return Estimated(slope / width, sqrt(variance / spread) / width, count)


def long_run_covariance(one: Sequence[float], other: Sequence[float] | None, cosines: range) -> float:
    """Equal-weighted mean of the products of the two series' cosine transforms (``None``: of one with itself)."""
    num, total = len(one), 0.0
    for number in cosines:
        weights = _cosine(num, number)
        first = sum(weight * value for weight, value in zip(weights, one, strict=True))
        second = first if other is None else sum(w * value for w, value in zip(weights, other, strict=True))
        total += first * second
    return 2 * total / num / len(cosines)


@lru_cache(maxsize=256)
def _cosine(num: int, number: int) -> tuple[float, ...]:
    return tuple(cos(pi * number * (at + 0.5) / num) for at in range(num))


def join(values: Sequence[float]) -> list[float]:
    """``values`` as means of neighbours, at most :data:`MOST`; what is left over at the beginning is dropped."""
    width = join_width(len(values))
    if width == 1:
        return list(values)
    start = len(values) % width
    return [sum(values[at : at + width]) / width for at in range(start, len(values), width)]


def join_width(num: int) -> int:
    """Neighbours that :func:`join` joins."""
    return -(-num // MOST) if num > MOST else 1


def num_cosines(num: int) -> int:
    """Of a series of so many points."""
    return max(3, min(MOST_COSINES, round(0.4 * pow(num, 2 / 3))))
