"""Trends with honest error bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

from jinmaek.detect.trace import Trace

Z95 = 1.96


@dataclass(frozen=True, slots=True)
class Trend:
    """Change of y over the whole span of x, with the half width of its 95 % interval and the residual noise."""

    change: float
    half_width: float
    noise: float
    autocorrelation: float  # of the residuals at lag 1

    @property
    def falls(self) -> bool:
        """Whether the interval lies below 0."""
        return self.change + self.half_width < 0

    @property
    def rises(self) -> bool:
        """Whether it lies above 0."""
        return self.change - self.half_width > 0


def linear_trend(xs: Sequence[float], ys: Sequence[float]) -> Trend | None:
    """Least-squares slope times the span, with a Newey–West interval that allows for autocorrelated residuals.

    Bartlett weights over ``4·(n/100)^(2/9)`` lags (Newey & West 1994); ``None`` for fewer than 5 points.
    """
    num = len(xs)
    if num < 5 or xs[0] == xs[-1]:
        return None
    mean_x, mean_y = sum(xs) / num, sum(ys) / num
    centred = [x - mean_x for x in xs]
    spread = sum(x * x for x in centred)
    slope = sum(x * (y - mean_y) for x, y in zip(centred, ys, strict=True)) / spread
    residuals = [y - mean_y - slope * x for x, y in zip(centred, ys, strict=True)]
    scores = [x * rest for x, rest in zip(centred, residuals, strict=True)]
    lags = int(4 * (num / 100) ** (2 / 9))
    variance = sum(score * score for score in scores)
    for lag in range(1, lags + 1):
        weight = 1 - lag / (lags + 1)
        variance += 2 * weight * sum(a * b for a, b in zip(scores[lag:], scores[:-lag], strict=True))
    span = xs[-1] - xs[0]
    error = sqrt(max(variance, 0.0) * num / (num - 2)) / spread
    power = sum(rest * rest for rest in residuals)
    lagged = sum(a * b for a, b in zip(residuals[1:], residuals[:-1], strict=True))
    return Trend(slope * span, Z95 * error * span, sqrt(power / (num - 2)), lagged / power if power > 0 else 0.0)


def median(values: Sequence[float]) -> float:
    """The upper median; of at least one value."""
    return sorted(values)[len(values) // 2]


def healthy_losses(trace: Trace) -> list[tuple[int, float]]:
    """(step, loss) of the healthy records so far, neighbours joined where the run is long."""
    return [(point.step, point.mean) for point in trace.curve.closed() if point.mean is not None]


def loss_points(trace: Trace) -> tuple[list[float], list[float]]:
    """The steps of :func:`healthy_losses` and its losses, as :func:`linear_trend` takes them."""
    points = healthy_losses(trace)
    return [float(step) for step, _ in points], [loss for _, loss in points]
