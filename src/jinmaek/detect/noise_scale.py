"""How noisy the gradient of a batch is, from its norm at two batch sizes.

McCandlish, Kaplan, Amodei & the OpenAI Dota Team 2018, *An Empirical Model of Large-Batch Training*
(arXiv 1812.06162), appendix A.1. With the norms of the gradient of ``b`` tokens and of all ``B`` tokens of a step

    |G|² = (B·|g_B|² − b·|g_b|²) / (B − b)          tr Σ = (|g_b|² − |g_B|²) / (1/b − 1/B)

are unbiased, and the simple noise scale is tr Σ / |G|²: a batch much smaller than that is mostly noise, one much larger
wastes examples. Here a batch is counted in loss tokens, since a step's loss is their mean.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite, sqrt

from jinmaek.core.record import StepRecord
from jinmaek.detect.curve import Curve
from jinmaek.detect.robust_variance import (
    LEVEL,
    Estimated,
    join,
    long_run_covariance,
    mean_interval,
    num_cosines,
)
from jinmaek.detect.student import student_quantile

FEWEST = 20  # points: one step's estimate is nearly all noise


@dataclass(frozen=True, slots=True)
class NoiseScale:
    """``value`` tokens, with its 95 % interval (``inf``: the gradient may average to nothing).

    ``signal``: |G|², the squared norm of the noiseless gradient, with its error; ``batch_tokens``: of a step.
    """

    value: float
    low: float
    high: float
    signal: Estimated
    batch_tokens: float


class NoiseScaleMeter:
    """Takes the records of a run in bounded memory."""

    def __init__(self) -> None:
        self._signal = Curve()
        self._noise = Curve()
        self._tokens = Curve()

    def add(self, record: StepRecord) -> None:
        """Take a step that recorded the gradient norm of its first microbatch."""
        small, big = record.first_grad_norm, record.grad_norm
        few, all_tokens = record.first_loss_tokens, record.num_loss_tokens
        if small is None or big is None or not few or not all_tokens or few >= all_tokens:
            return
        if not isfinite(small) or not isfinite(big):
            return
        self._signal.add(record.step, (all_tokens * big * big - few * small * small) / (all_tokens - few))
        self._noise.add(record.step, (small * small - big * big) / (1 / few - 1 / all_tokens))
        self._tokens.add(record.step, all_tokens)

    def measured(self, first_step: int) -> NoiseScale | None:
        """The noise scale over the steps from ``first_step`` on; ``None`` where too few recorded it."""
        signal, noise, tokens = (_after(each, first_step) for each in (self._signal, self._noise, self._tokens))
        if len(signal) < FEWEST:
            return None
        size = mean_interval(signal)
        assert size is not None
        low, high = _ratio_interval(noise, signal)
        value = sum(noise) / sum(signal) if sum(signal) > 0 else inf
        return NoiseScale(max(value, 0.0), low, high, size, sum(tokens) / len(tokens))


def _after(curve: Curve, step: int) -> list[float]:
    return [point.mean for point in curve.closed() if point.step >= step and point.mean is not None]


def _ratio_interval(above: Sequence[float], below: Sequence[float]) -> tuple[float, float]:
    """Interval of mean(above) / mean(below) by Fieller's theorem (1954), both series autocorrelated.

    The ratios r for which the mean of ``above − r·below`` is not told from 0; unbounded where that of ``below`` is not.
    """
    top, bottom = join(above), join(below)
    num = len(top)
    a, b = sum(top) / num, sum(bottom) / num
    top, bottom = [x - a for x in top], [x - b for x in bottom]
    cosines = range(1, num_cosines(num) + 1)
    t = student_quantile(0.5 + LEVEL / 2, len(cosines)) ** 2 / num
    var_a, var_b = (t * long_run_covariance(each, None, cosines) for each in (top, bottom))
    both = t * long_run_covariance(top, bottom, cosines)
    # (a − r·b)² = t²·(var_a − 2·r·both + r²·var_b), a quadratic in r.
    square, middle, rest = b * b - var_b, a * b - both, a * a - var_a
    root = middle * middle - square * rest
    if root < 0 or (rest <= 0 and square <= 0) or b <= 0 < square:
        return 0.0, inf
    if square <= 0:  # the signal is not told from 0: only small ratios are excluded
        return (middle - sqrt(root)) / square if square < 0 else rest / (2 * middle), inf
    return max((middle - sqrt(root)) / square, 0.0), (middle + sqrt(root)) / square
