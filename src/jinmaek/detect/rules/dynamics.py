"""Rules on how the loss moves."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite

from jinmaek.core.finding import Finding
from jinmaek.detect.rule import Rule
from jinmaek.detect.trace import Trace
from jinmaek.detect.trend import linear_trend, loss_points, median

_EARLY = 512  # gradient norms kept
_BEFORE = 8  # of them, the level before a spike
_NARROW = 0.04  # of the level: an interval of the trend that leaves no room for much of one
_NOTED, _GRAVE = 20.0, 100.0  # times the median gradient norm


class Spike(Rule):
    """Values far above the level that the loss or the gradient comes back from."""

    name = "spike"
    family = "dynamics"
    needs = ("loss|grad_norm",)
    ids = ("outlier-batch", "grad-spike-finite")
    min_records = 5
    observes = True

    def __init__(self) -> None:
        self._losses: list[tuple[int, float, float]] = []
        self._num_losses = 0
        self._grads: list[tuple[int, float]] = []  # the first ones, and of the later ones those that stand out

    def observe(self, trace: Trace) -> bool:
        """Note what stands out."""
        value, grad, record = trace.value, trace.record.grad_norm, trace.record
        level, grads = trace.level, trace.grad_level
        if value is not None and value > level.high and trace.loss_state == "finite":
            self._num_losses += 1
            self._losses = [*self._losses[-63:], (record.step, value, level.median)]
        early = len(self._grads) < _EARLY
        if grad is not None and (early or grad > grads.high) and isfinite(grad) and len(self._grads) < 2 * _EARLY:
            self._grads.append((record.step, grad))
        return False

    def findings(self, trace: Trace) -> Iterable[Finding]:
        """Losses as a note; gradients too, unless they are a hundred times the others."""
        last = trace.record.step
        over = [spike for spike in self._losses if spike[0] < last]
        if over and self._num_losses <= 0.1 * trace.num_records and trace.num_records >= 10:
            step, value, level = max(over, key=lambda spike: spike[1])
            yield self._finding("outlier-batch", self._num_losses, (over[0][0], over[-1][0]), (step, value, level))
        spikes = self._grad_spikes()
        if not spikes or len(spikes) > 0.3 * len(self._grads):
            return
        peak = max(spikes, key=lambda spike: spike[1] / spike[2])
        yield self._finding("grad-spike-finite", len(spikes), (spikes[0][0], spikes[-1][0]), peak)

    def _grad_spikes(self) -> list[tuple[int, float, float]]:
        """Gradient norms far above the ones before them, with that level."""
        spikes: list[tuple[int, float, float]] = []
        before: list[float] = []
        for step, grad in self._grads:
            level = median(before[-_BEFORE:]) if len(before) >= 2 else 0.0
            if level > 0 and grad > _NOTED * level:
                spikes.append((step, grad, level))
            else:
                before.append(grad)
        return spikes if len(self._grads) >= 5 else []

    def _finding(self, name: str, count: int, span: tuple[int, int], peak: tuple[int, float, float]) -> Finding:
        step, value, level = peak
        grave = name == "grad-spike-finite" and value > _GRAVE * level
        return Finding(
            rule=self.name,
            id=name,
            severity="warning" if grave else "note",
            confidence="likely",
            first_step=span[0],
            last_step=span[1],
            evidence={"count": count, "peak": value, "peak_step": step, "level": level},
            ruled_out=("lr-too-high-divergence",),
        )


class Stuck(Rule):
    """The loss does not move from where it started."""

    name = "stuck"
    family = "dynamics"
    needs = ("loss",)
    ids = ("stuck-from-start",)
    min_records = 20

    def findings(self, trace: Trace) -> Iterable[Finding]:
        """Seen from the first step on, with an interval narrow enough to say so."""
        found = _flatness(trace)
        early = trace.first_step <= 2 * trace.record.num_steps or trace.first_step <= 0.02 * trace.record.step
        if found is None or not early or not trace.facts.steps_known:
            return
        change, half, level = found
        if abs(change) > 0.02 * level or half > _NARROW * level:
            return
        yield _flat_note(self.name, "stuck-from-start", trace, change, half)


class Plateau(Rule):
    """The last half of the run shows no improvement that its noise could not explain."""

    name = "plateau"
    family = "dynamics"
    needs = ("loss",)
    ids = ("plateau",)
    min_records = 40

    def findings(self, trace: Trace) -> Iterable[Finding]:
        """A note: mostly this is what the data has to give."""
        xs, ys = loss_points(trace)
        half = len(xs) // 2
        trend = linear_trend(xs[half:], ys[half:])
        if trend is None or trend.falls or trend.rises or trace.episodes.all:
            return
        yield _flat_note(self.name, "plateau", trace, trend.change, trend.half_width, int(xs[half]))


def _flat_note(
    rule: str, name: str, trace: Trace, change: float, half: float, first_step: int | None = None
) -> Finding:
    return Finding(
        rule=rule,
        id=name,
        severity="note",
        confidence="likely" if half <= _NARROW * abs(trace.level.median) else "possible",
        first_step=trace.first_step if first_step is None else first_step,
        last_step=trace.record.step,
        evidence={
            "change": change,
            "half_width": half,
            "noise": trace.level.noise,
            "level": trace.level.median,
            "lr": trace.odometer.max_lr or None,
        },
    )


def _flatness(trace: Trace) -> tuple[float, float, float] | None:
    """Change over the run, half width of its interval, level; ``None`` where a trend shows or nothing can."""
    xs, ys = loss_points(trace)
    trend = linear_trend(xs, ys)
    if trend is None or trend.falls or trend.rises:
        return None
    return trend.change, trend.half_width, abs(trace.level.median)
