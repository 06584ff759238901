"""Rules on how the loss moves."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf, isfinite

from jinmaek.core.finding import Confidence, Finding, Severity
from jinmaek.detect.level import Level
from jinmaek.detect.rule import Rule
from jinmaek.detect.trace import Trace
from jinmaek.detect.trend import linear_trend, median

_ABSURD_LR = 5e-3  # for Adam on any transformer
_HIGH_LR = 1e-3  # above this, a LoRA's Adam lr explains a divergence by itself


@dataclass(slots=True)
class _Rise:
    """The loss above everything it was before."""

    step: int
    records: int = 0
    peak: float = 0.0
    recent: list[float] = field(default_factory=list)


class Divergence(Rule):
    """The loss leaves its level upwards and does not come back."""

    name = "divergence"
    family = "dynamics"
    needs = ("loss",)
    ids = ("lr-too-high-divergence", "divergence-plateau", "optim-8bit-map-bug")
    min_records = 4
    observes = True

    def __init__(self) -> None:
        self._rise: _Rise | None = None
        self._last3: list[float] = []
        self._low = inf  # lowest median of three
        self._ordinary = Level()  # of what is not high

    def observe(self, trace: Trace) -> bool:
        """Follow the lowest level (a median of three) and what lies far above it."""
        value = trace.value
        if trace.loss_state != "finite" or value is None or trace.fault:
            return False
        level = min(self._low, trace.first_value or value)
        noise = self._ordinary.noise if self._ordinary.known else 0.0
        high = value > level + max(8 * noise, 0.3 * level, 0.3)
        if not high:
            self._rise = None
            self._ordinary.add(value)
            self._last3 = [*self._last3[-2:], value]
            if len(self._last3) == 3:
                self._low = min(self._low, sorted(self._last3)[1])
            return False
        if self._rise is None:
            self._rise = _Rise(trace.record.step)
        rise = self._rise
        rise.records += 1
        rise.peak = max(rise.peak, value)
        rise.recent = [*rise.recent[-7:], value]
        return rise.records == (3 if trace.record.num_steps > 1 else 8)

    def findings(self, trace: Trace) -> Iterable[Finding]:
        """A rise that lasts to the end, far enough above."""
        rise = self._rise
        level = min(self._low, trace.first_value if trace.first_value is not None else inf)
        if rise is None or not isfinite(level):
            yield from self._high_plateau(trace)
            yield from self._from_the_first_window(trace)
            return
        now = median(rise.recent)
        enough = 2 if trace.num_records < 12 else 3
        if rise.records < enough or now < level + max(0.5, 0.5 * level):
            return
        wild = now > level + 1.5 and now > 1.8 * level
        above_start = trace.first_value is None or now > 1.2 * trace.first_value
        confidence: Confidence = "likely" if wild and above_start else "possible"
        severity: Severity = "error" if wild and above_start else "warning"
        lr = trace.odometer.max_lr
        if 0 < lr < _HIGH_LR and trace.facts.source != "jinmaek":
            yield self._old_optimizer(trace, rise.step)
        yield Finding(
            rule=self.name,
            id="lr-too-high-divergence",
            severity=severity,
            confidence=confidence,
            first_step=rise.step,
            last_step=trace.record.step,
            evidence={
                "loss_before": level,
                "loss_after": now,
                "peak": rise.peak,
                "records": rise.records,
                "lr": lr or None,
            },
            ruled_out=("outlier-batch", "noise"),
            undecided=() if lr >= _HIGH_LR else ("optim-8bit-map-bug", "not-shuffled"),
        )

    def _from_the_first_window(self, trace: Trace) -> Iterable[Finding]:
        """An absurd lr ruins the model within the first window: the loss rises at once and stays near guessing."""
        early = [value for _, value in trace.head[:6]]
        if len(early) < 4 or trace.odometer.max_lr < _ABSURD_LR or trace.episodes.all:
            return
        highest = max(early)
        if early.index(highest) == 0 or highest < 1.25 * early[0] or trace.level.median < 0.5 * highest:
            return
        yield Finding(
            rule=self.name,
            id="lr-too-high-divergence",
            severity="error",
            confidence="likely",
            first_step=trace.head[0][0],
            last_step=trace.record.step,
            evidence={
                "loss_before": early[0],
                "loss_after": trace.level.median,
                "peak": highest,
                "lr": trace.odometer.max_lr,
            },
            undecided=("bad-labels",),
        )

    def _old_optimizer(self, trace: Trace, step: int) -> Finding:
        """An ordinary lr does not explain a divergence by itself; bitsandbytes before 0.41.1 may."""
        return Finding(
            rule=self.name,
            id="optim-8bit-map-bug",
            severity="warning",
            confidence="possible",
            first_step=step,
            last_step=trace.record.step,
            evidence={"lr": trace.odometer.max_lr, "version": trace.facts.versions.get("bitsandbytes")},
            undecided=("lr-too-high-divergence",),
        )

    def _high_plateau(self, trace: Trace) -> Iterable[Finding]:
        """An excerpt from the middle of a run that stands high and flat with a large gradient."""
        epoch, grads = trace.record.epoch, trace.grad_level
        middle = trace.first_step > 500 or (trace.epochs.first or 0.0) > 0.3
        if not middle or epoch is None or grads.count < 3 or trace.level.count < 3:
            return
        accuracy = trace.record.token_accuracy
        if trace.level.median < 4.5 or grads.median < 20 or (accuracy is not None and accuracy > 0.35):
            return
        trend = linear_trend(*_xy(trace))
        if trend is not None and trend.falls and -trend.change > 0.05 * trace.level.median:
            return
        yield Finding(
            rule=self.name,
            id="divergence-plateau",
            severity="error",
            confidence="likely" if accuracy is not None else "possible",
            first_step=trace.first_step,
            last_step=trace.record.step,
            evidence={"level": trace.level.median, "grad_norm": grads.median, "token_accuracy": accuracy},
            undecided=("pretraining-from-scratch",),
        )


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
        alive = value is not None and trace.loss_state == "finite" and level.known
        if alive and value is not None and value > level.median + 8 * level.noise + 0.25 * abs(level.median):
            self._num["loss"] += 1
            self._losses = [*self._losses[-63:], (record.step, value, level.median)]
        if grad is not None and grads.known and isfinite(grad) and grad > 20 * grads.median + 8 * grads.noise:
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
        xs, ys = _xy(trace)
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
    xs, ys = _xy(trace)
    trend = linear_trend(xs, ys)
    if trend is None or trend.falls or trend.rises:
        return None
    return trend.change, trend.half_width, abs(trace.level.median)


def _xy(trace: Trace) -> tuple[list[float], list[float]]:
    points = [point for point in trace.curve.closed() if point.mean is not None]
    return [float(point.step) for point in points], [point.mean for point in points if point.mean is not None]
