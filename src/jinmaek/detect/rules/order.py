"""Rules on the order of the data, read from the loss."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from math import sqrt

from jinmaek.core.finding import Finding
from jinmaek.detect.rule import Rule
from jinmaek.detect.trace import Trace
from jinmaek.detect.trend import healthy_losses, linear_trend, median


class EpochStaircase(Rule):
    """The loss drops at each epoch border: rows seen before are known."""

    name = "epoch-staircase"
    family = "dynamics"
    needs = ("loss", "epoch")
    ids = ("epoch-staircase",)
    min_records = 12

    def findings(self, trace: Trace) -> Iterable[Finding]:
        """A drop over the border larger than the noise on both sides of it."""
        drops = []
        for border in trace.epochs.borders:
            if len(border.before) < 4 or len(border.after) < 4:
                continue
            drop = median(border.before) - median(border.after)
            noise = _spread(border.before) / sqrt(len(border.before)) + _spread(border.after) / sqrt(len(border.after))
            if drop > 3 * noise and drop > 0.05 * median(border.before):
                drops.append((border.step, drop))
        if not drops:
            return
        yield Finding(
            rule=self.name,
            id="epoch-staircase",
            severity="note",
            confidence="likely",
            first_step=drops[0][0],
            last_step=drops[-1][0],
            evidence={"count": len(drops), "loss_drop": max(drop for _, drop in drops)},
            ruled_out=("lr-too-high-divergence",),
        )


class OrderedData(Rule):
    """The loss follows the order of the data instead of being noise around a trend."""

    name = "ordered-data"
    family = "dynamics"
    needs = ("loss",)
    ids = ("not-shuffled", "length-group-sawtooth")
    min_records = 24

    def findings(self, trace: Trace) -> Iterable[Finding]:
        """The same profile in every epoch, or blocks at levels of their own; a short period is length grouping."""
        if trace.episodes.all or trace.facts.objective != "sft":
            return
        repeated = _repeated_profile(trace)
        blocks = _blocks(trace)
        if repeated is None and blocks is None:
            return
        period = _sawtooth(trace)
        evidence = {"correlation": repeated, "period": period} | (blocks or {})
        grouped = period is not None
        yield Finding(
            rule=self.name,
            id="length-group-sawtooth" if grouped else "not-shuffled",
            severity="note" if grouped else "warning",
            confidence="likely" if repeated is not None or grouped else "possible",
            first_step=trace.first_step if blocks is None else int(blocks["jump_step"]),
            last_step=trace.record.step,
            evidence={name: value for name, value in evidence.items() if value is not None},
            undecided=("length-grouping", "curriculum"),
            weights="intact",
        )


def _repeated_profile(trace: Trace) -> float | None:
    """Correlation between the loss profiles of successive epochs, where it is beyond chance."""
    profiles = [_residual(profile) for profile in trace.epochs.profiles]
    whole = [profile for profile in profiles if profile is not None]
    pairs = [_correlation(first, second) for first, second in pairwise(whole)]
    if not pairs or len(whole[0]) < 10:
        return None
    mean = sum(pairs) / len(pairs)
    # Standard error of a correlation of white noise: 1/sqrt(n); four of them, and a half at least.
    chance = 4 / sqrt(len(whole[0]) * len(pairs))
    return mean if mean > max(0.5, chance) else None


def _residual(profile: list[list[float]]) -> list[float] | None:
    """Bin means less their linear trend; ``None`` for an epoch that does not fill its bins."""
    filled = [total / count for total, count in profile if count]
    if len(filled) < 0.9 * len(profile):
        return None
    means = [total / count if count else filled[0] for total, count in profile]
    num = len(means)
    centre, mean = (num - 1) / 2, sum(means) / num
    slope = sum((i - centre) * (value - mean) for i, value in enumerate(means)) / sum(
        (i - centre) ** 2 for i in range(num)
    )
    return [value - mean - slope * (i - centre) for i, value in enumerate(means)]


def _correlation(first: list[float], second: list[float]) -> float:
    power = sqrt(sum(a * a for a in first) * sum(b * b for b in second))
    return sum(a * b for a, b in zip(first, second, strict=True)) / power if power > 0 else 0.0


def _blocks(trace: Trace) -> dict[str, float] | None:
    """Jumps up between long flat stretches, far above their noise: at least one, and autocorrelated residuals."""
    points = healthy_losses(trace)
    means = [loss for _, loss in points]
    trend = linear_trend([float(i) for i in range(len(means))], means)
    width = max(5, len(means) // 12)
    if trend is None or trend.autocorrelation < 0.6 or len(means) < 4 * width:
        return None
    jumps = []
    for index in range(width, len(means) - width):
        before, after = means[index - width : index], means[index : index + width]
        noise = max(_spread(before), _spread(after), 1e-9)
        rise = median(after) - median(before)
        if rise > 3 * noise and rise > 0.15 * median(before):
            jumps.append((rise / noise, index, rise))
    if not jumps:
        return None
    _, index, rise = max(jumps)
    return {"jump_step": points[index][0], "jump": rise}


def _sawtooth(trace: Trace) -> int | None:
    """Period, in records, of a short regular pattern; ``None`` without one."""
    values = [value for _, value in trace.head[:1024]]
    steps = [b - a for a, b in pairwise(values)]
    if len(steps) < 40:
        return None
    power = sum(step * step for step in steps)
    if power <= 0:
        return None
    scores = {
        lag: sum(a * b for a, b in zip(steps[lag:], steps[:-lag], strict=True))
        / power
        * len(steps)
        / (len(steps) - lag)
        for lag in range(3, min(128, len(steps) // 3))
    }
    lag = max(scores, key=lambda lag: scores[lag])
    return lag if scores[lag] > 0.4 else None


def _spread(values: list[float]) -> float:
    """Standard deviation from the differences of neighbours: a trend within does not enter."""
    squares = [(b - a) * (b - a) for a, b in pairwise(values)]  # a power would raise where a product overflows
    return sqrt(sum(squares) / (2 * len(squares))) if squares else 0.0
