"""The rule on losses that leave their level upwards."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf, isfinite

from jinmaek.core.finding import Confidence, Finding, Severity
from jinmaek.detect.level import Level
from jinmaek.detect.rule import Rule
from jinmaek.detect.trace import HEAD, Trace
from jinmaek.detect.trend import healthy_losses, linear_trend, loss_points, median

ABSURD_LR = 5e-3  # for Adam on any transformer
_RUINED_START, _RUINED_END = 6.0, 4.5  # nats: no pretrained model begins or ends there
_CALM = 3.0  # times the gradient norm before: harder rows make it grow too
_SHORT = 16  # records: a pasted excerpt
_APART = 1.3  # an excerpt's high lines lie clear of all the others
_HIGH_LR = 1e-3  # above this, a LoRA's Adam lr explains a divergence by itself


@dataclass(slots=True)
class _Rise:
    """The loss above everything it was before."""

    step: int
    lr: float | None
    grad_before: float | None
    records: int = 0
    peak: float = 0.0
    low: float = inf
    grad: float = 0.0
    recent: list[float] = field(default_factory=list)


class Divergence(Rule):
    """The loss leaves its level upwards and does not come back."""

    name = "divergence"
    family = "dynamics"
    needs = ("loss",)
    ids = ("lr-too-high-divergence", "divergence-plateau", "optim-8bit-map-bug", "not-shuffled")
    min_records = 4
    observes = True

    def __init__(self) -> None:
        self._rise: _Rise | None = None
        self._last3: list[float] = []
        self._low = inf  # lowest median of three
        self._limit = -inf  # above it a value is high
        self._highest = 0.0  # of what is not high
        self._ordinary = Level()  # of what is not high

    def observe(self, trace: Trace) -> bool:
        """Follow the lowest level (a median of three) and what lies far above it."""
        value = trace.value
        if value is None or trace.fault or trace.loss_state != "finite":
            return False
        if value <= self._limit:
            self._rise = None
            if trace.num_records < HEAD or not trace.num_records & 7:
                self._learn(trace, value)
            return False
        if self._limit == -inf:
            self._learn(trace, value)
            return False
        if self._rise is None:
            grads = trace.grad_level
            self._rise = _Rise(trace.record.step, trace.record.lr, grads.median if grads.count >= 3 else None)
        rise = self._rise
        rise.records += 1
        rise.peak, rise.low = max(rise.peak, value), min(rise.low, value)
        rise.grad = max(rise.grad, trace.record.grad_norm or 0.0)
        rise.recent = [*rise.recent[-7:], value]
        return rise.records == (3 if trace.record.num_steps > 1 else 8)

    def _learn(self, trace: Trace, value: float) -> None:
        """Take in an ordinary value: it may lower the level, and with it the limit above which values are high."""
        self._ordinary.add(value)
        self._highest = max(self._highest, value)
        self._last3 = [*self._last3[-2:], value]
        if len(self._last3) == 3:
            self._low = min(self._low, sorted(self._last3)[1])
        level = min(self._low, trace.first_value if trace.first_value is not None else value)
        noise = self._ordinary.noise if self._ordinary.known else 0.0
        self._limit = level + max(8 * noise, 0.3 * level, 0.3)

    def findings(self, trace: Trace) -> Iterable[Finding]:
        """A rise that lasts to the end, far enough above."""
        rise = self._rise
        level = min(self._low, trace.first_value if trace.first_value is not None else inf)
        if rise is None or not isfinite(level):
            yield from self._high_plateau(trace)
            yield from self._from_the_first_window(trace)
            yield from self._slow_rise(trace)
            return
        now = median(rise.recent)
        if rise.records < 3 or now < level + max(0.5, 0.5 * level):
            return
        short = trace.num_records < _SHORT
        if short and rise.low < _APART * self._highest:
            return  # a few lines of a noisy run
        wild = now > level + 1.5 and now > 1.8 * level
        above_start = trace.first_value is None or now > 1.2 * trace.first_value
        if self._other_data(rise, trace) or (short and self._calm(rise)):
            yield self._shifted(trace, rise, level, now)
            return
        sure = wild and above_start and not self._calm(rise)
        confidence: Confidence = "likely" if sure else "possible"
        severity: Severity = "error" if sure else "warning"
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
        if len(early) < 4 or trace.odometer.max_lr < ABSURD_LR or trace.episodes.all:
            return
        highest, now = max(early), trace.level.median
        rose = early.index(highest) > 0 and highest > 1.25 * early[0]
        if (highest < _RUINED_START or not (rose or now > _RUINED_END)) and now < _RUINED_END:
            return
        yield Finding(
            rule=self.name,
            id="lr-too-high-divergence",
            severity="error" if highest > _RUINED_START else "warning",
            confidence="likely" if highest > _RUINED_START else "possible",
            first_step=trace.head[0][0],
            last_step=trace.record.step,
            evidence={
                "loss_before": early[0],
                "loss_after": now,
                "peak": highest,
                "lr": trace.odometer.max_lr,
            },
            undecided=("bad-labels",),
        )

    def _slow_rise(self, trace: Trace) -> Iterable[Finding]:
        """Loss and gradient both climb from the loss's lowest point to the end."""
        points = [(step, loss) for step, loss in healthy_losses(trace) if step >= trace.lowest_step]
        grads = [point.mean for point in trace.grads.closed() if point.mean is not None]
        if len(points) < 10 or len(grads) < 20 or trace.episodes.all:
            return
        trend = linear_trend([float(step) for step, _ in points], [loss for _, loss in points])
        quarter = len(grads) // 4
        climb = median(grads[-quarter:]) / max(median(grads[quarter : 2 * quarter]), 1e-12)
        if trend is None or not trend.rises or trend.change < 0.2 * trace.lowest or climb < 1.5:
            return
        for name in ("lr-too-high-divergence", "optim-8bit-map-bug"):
            yield Finding(
                rule=self.name,
                id=name,
                severity="warning",
                confidence="possible",
                first_step=trace.lowest_step,
                last_step=trace.record.step,
                evidence={
                    "loss_before": trace.lowest,
                    "change": trend.change,
                    "half_width": trend.half_width,
                    "ratio": climb,
                    "lr": trace.odometer.max_lr or None,
                },
                undecided=("data", "optim-8bit-map-bug" if name.startswith("lr") else "lr-too-high-divergence"),
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

    @staticmethod
    def _calm(rise: _Rise) -> bool:
        """The gradient hardly grew with the loss."""
        return rise.grad_before is not None and 0 < rise.grad < _CALM * rise.grad_before

    def _other_data(self, rise: _Rise, trace: Trace) -> bool:
        """The lr had long been higher without harm and the gradient stays calm: other rows came, no divergence."""
        return self._calm(rise) and rise.lr is not None and rise.lr < 0.4 * trace.odometer.max_lr

    def _shifted(self, trace: Trace, rise: _Rise, level: float, now: float) -> Finding:
        return Finding(
            rule=self.name,
            id="not-shuffled",
            severity="note",
            confidence="possible",
            first_step=rise.step,
            last_step=trace.record.step,
            evidence={"loss_before": level, "loss_after": now, "lr": rise.lr, "jump": now - level},
            ruled_out=("lr-too-high-divergence",),
            undecided=("curriculum",),
        )

    def _high_plateau(self, trace: Trace) -> Iterable[Finding]:
        """An excerpt from the middle of a run that stands high and flat with a large gradient."""
        epoch, grads = trace.epoch, trace.grad_level
        middle = trace.first_step > 500 or (trace.epochs.first or 0.0) > 0.3
        if not middle or epoch is None or grads.count < 3 or trace.level.count < 3:
            return
        accuracy = trace.record.token_accuracy
        if trace.level.median < 4.5 or grads.median < 20 or (accuracy is not None and accuracy > 0.35):
            return
        trend = linear_trend(*loss_points(trace))
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
