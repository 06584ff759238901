"""How far the losses of two runs lie apart, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import isfinite, sqrt

from jinmaek.comparison.reading import Run
from jinmaek.comparison.windows import Window
from jinmaek.core.comparison import HeldOut, Interval
from jinmaek.core.record import EvaluationRecord
from jinmaek.detect.robust_variance import Estimated, mean_interval

FEWEST_EXAMPLES = 10


def interval(estimated: Estimated, num: int, level: float) -> Interval:
    """``estimated`` as the two-sided interval at ``level``."""
    half = estimated.half_width(level)
    return Interval(
        value=estimated.value,
        low=estimated.value - half,
        high=estimated.value + half,
        level=level,
        num=num,
        detectable=estimated.detectable(level),
    )


def mean_difference(pairs: Sequence[tuple[float, float]]) -> Estimated | None:
    """Of the losses (first, other) of windows in order: other minus first, neighbours resembling each other."""
    return mean_interval([other - first for first, other in pairs])


def late_half(windows: Sequence[Window]) -> list[Window]:
    """The windows of the second half of the common steps."""
    middle = (windows[0].start + windows[-1].step) / 2
    return [window for window in windows if window.start >= middle]


def correlation(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Of the two losses' changes from window to window: trends drop out, what the batch does stays."""
    steps = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(pairs)]
    if len(steps) < 8:
        return None
    first, other = sum(one * one for one, _ in steps), sum(two * two for _, two in steps)
    if first == 0 or other == 0:
        return None
    return sum(one * two for one, two in steps) / sqrt(first * other)


def held_out_difference(first: Run, other: Run) -> tuple[HeldOut, Estimated | None, int] | None:
    """The last held-out losses, with the paired estimate and the number of examples; ``None`` where one has none."""
    one, two = _last(first), _last(other)
    if one is None or two is None:
        return None
    # Of a loss that is not finite the finite examples tell nothing.
    pairs = _paired(first, one, other, two) if isfinite(one.loss) and isfinite(two.loss) else []
    found = HeldOut(first_step=one.step, other_step=two.step, first_loss=one.loss, other_loss=two.loss)
    if len(pairs) < FEWEST_EXAMPLES:
        return found, None, len(pairs)
    tokens = sum(count for count, _, _ in pairs)
    losses = [sum(count * pair[place] for count, *pair in pairs) / tokens for place in (0, 1)]
    found = HeldOut(first_step=one.step, other_step=two.step, first_loss=losses[0], other_loss=losses[1])
    return found, _ratio_estimate([(count, high - low) for count, low, high in pairs]), len(pairs)


def _ratio_estimate(rows: Sequence[tuple[int, float]]) -> Estimated:
    """Mean of a difference per token over examples of unlike length (tokens, difference).

    A ratio of sums: its standard error from the residuals (Cochran 1977, *Sampling Techniques*, §6.3).
    """
    num, tokens = len(rows), sum(count for count, _ in rows)
    value = sum(count * difference for count, difference in rows) / tokens
    rests = [count * (difference - value) for count, difference in rows]
    error = sqrt(num / (num - 1) * sum(rest * rest for rest in rests)) / tokens
    return Estimated(value, error, num - 1)


def last_held_out(run: Run) -> float | None:
    """The last held-out loss after training began; ``None`` where there is none or it is not finite."""
    last = _last(run)
    return None if last is None or not isfinite(last.loss) else last.loss


def _last(run: Run) -> EvaluationRecord | None:
    """Not the one before the first step: it says nothing of the run."""
    return next((each for each in reversed(run.evaluations) if each.step > 0), None)


def _paired(first: Run, one: EvaluationRecord, other: Run, two: EvaluationRecord) -> list[tuple[int, float, float]]:
    """(tokens, first, other) of every held-out example that both scored."""
    mine, its = _by_content(first, one), _by_content(other, two)
    return [
        (tokens, loss, its[key][1])
        for key, (tokens, loss) in mine.items()
        if key in its and isfinite(loss) and isfinite(its[key][1])
    ]


def held_out_keys(run: Run) -> frozenset[tuple[str, int]]:
    """The held-out examples by content; empty where they are not recorded."""
    last = _last(run)
    return frozenset() if last is None else frozenset(_by_content(run, last))


def _by_content(run: Run, evaluation: EvaluationRecord) -> dict[tuple[str, int], tuple[int, float]]:
    """Content key and which of its copies -> loss tokens and mean loss."""
    losses = evaluation.example_losses
    if losses is None or len(run.held_out) != len(losses):
        return {}
    found: dict[tuple[str, int], tuple[int, float]] = {}
    copies: dict[str, int] = {}
    for (key, count), loss in zip(run.held_out, losses, strict=True):
        copies[key] = copies.get(key, 0) + 1
        found[key, copies[key]] = count, loss
    return found
