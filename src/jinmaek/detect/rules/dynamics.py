"""Rules on how the loss moves."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite

from jinmaek.core.finding import Finding
from jinmaek.detect.rule import Rule
from jinmaek.detect.trace import Trace
from jinmaek.detect.trend import linear_trend, loss_points


class Spike(Rule):
    """Single values far above the level that the loss or the gradient comes back from."""

    name = "spike"
    family = "dynamics"
    needs = ("loss|grad_norm",)
    ids = ("outlier-batch", "grad-spike-finite")
    min_records = 10
    observes = True

    def __init__(self) -> None:
        self._losses: list[tuple[int, float, float]] = []
        self._grads: list[tuple[int, float, float]] = []
        self._num = {"loss": 0, "grad": 0}

    def observe(self, trace: Trace) -> bool:
        """Note what stands out."""
        value, grad, record = trace.value, trace.record.grad_norm, trace.record
        level, grads = trace.level, trace.grad_level
        if value is not None and value > level.high and trace.loss_state == "finite":
            self._num["loss"] += 1
            self._losses = [*self._losses[-63:], (record.step, value, level.median)]
        if grad is not None and grad > grads.high and isfinite(grad) and grad > 20 * grads.median + 8 * grads.noise:
            self._num["grad"] += 1
            self._grads = [*self._grads[-63:], (record.step, grad, grads.median)]
        return False

    def findings(self, trace: Trace) -> Iterable[Finding]:
        """Isolated ones, as notes."""
        last = trace.record.step
        for name, seen in (("outlier-batch", self._losses), ("grad-spike-finite", self._grads)):
            count = self._num["loss" if name == "outlier-batch" else "grad"]
            over = [spike for spike in seen if spike[0] < last]
            if not over or count > 0.1 * trace.num_records:
                continue
            step, value, level = max(over, key=lambda spike: spike[1])
            yield Finding(
                rule=self.name,
                id=name,
                severity="note",
                confidence="likely",
                first_step=over[0][0],
                last_step=over[-1][0],
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
        if abs(change) > 0.02 * level or half > 0.04 * level:
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
        confidence="likely",
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
