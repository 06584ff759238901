"""Rules on what the optimizer did to the weights."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf, isfinite, log, sqrt

from jinmaek.core.finding import Finding
from jinmaek.detect.rule import Rule
from jinmaek.detect.trace import Trace
from jinmaek.detect.trend import linear_trend

_MARGIN = 1.25  # 8-bit moments are rounded: sound ones stay within a few per cent of exact Adam
_DPO_START = log(2.0)
_FAMILY = "updates"


class FrozenWeights(Rule):
    """Nothing trainable moves."""

    name = "frozen-weights"
    family = _FAMILY
    needs = ("update_ratio|grad_norm|loss",)
    ids = ("params-not-updating",)
    min_records = 3
    observes = True

    def __init__(self) -> None:
        self._zero_grads = self._zero_updates = self._updates = self._grads = 0
        self._first_zero: int | None = None

    def observe(self, trace: Trace) -> bool:
        """Count gradients and updates that are exactly 0."""
        record = trace.record
        if record.grad_norm is not None:
            self._grads += 1
            if record.grad_norm == 0.0 and trace.loss_state == "finite":
                self._zero_grads += 1
                self._first_zero = self._first_zero or record.step
        if record.update_ratio is not None:
            self._updates += 1
            if record.update_ratio == 0.0 and (record.lr or 0.0) > 0.0:
                self._zero_updates += 1
                self._first_zero = self._first_zero or record.step
        return max(self._zero_updates, self._zero_grads) == 5

    def findings(self, trace: Trace) -> Iterable[Finding]:
        """By the update, else the gradient, else a loss that repeats itself to the digit."""
        if trace.episodes.all or (trace.odometer.readings and trace.odometer.max_lr == 0.0):
            return
        evidence: dict[str, object] = {}
        if self._zero_updates >= 3 and self._zero_updates == self._updates:
            evidence, sure = {"zero_updates": self._zero_updates}, "established"
        elif self._zero_grads >= 3 and self._zero_grads >= 0.9 * self._grads:
            if _learns(trace):
                return  # gradients consumed before the norm was taken (GaLore, fused backward)
            evidence, sure = {"zero_gradients": self._zero_grads}, "likely"
        elif (held_out := _same_held_out(trace)) is not None:
            evidence, sure = {"held_out": held_out[0], "evaluations": held_out[1]}, "established"
        elif (period := _repeats(trace)) is not None:
            evidence, sure = {"period": period}, "established"
        elif _pinned_at_ln2(trace):
            evidence, sure = {"level": _DPO_START, "records": trace.num_records}, "likely"
        else:
            return
        if trace.said("no_grad_inputs"):
            evidence["said"] = "requires_grad"
        yield Finding(
            rule=self.name,
            id="params-not-updating",
            severity="error",
            confidence="established" if sure == "established" else "likely",
            first_step=self._first_zero or trace.first_step,
            last_step=trace.record.step,
            evidence=evidence,
            ruled_out=("galore", "plateau"),
            weights="intact",
        )


class DeadAdapter(Rule):
    """Some of the trainable modules never move while others do."""

    name = "dead-adapter"
    family = _FAMILY
    needs = ("groups",)
    ids = ("partial-target-modules",)
    min_records = 5
    observes = True
    when = "groups"

    def __init__(self) -> None:
        self._moved: dict[str, bool] = {}
        self._steps = 0

    def observe(self, trace: Trace) -> bool:
        """Remember which groups ever moved."""
        record = trace.record
        if not record.optimizer_stepped or record.groups is None or not record.lr:
            return False
        self._steps += 1
        if self._steps > 64 and self._steps % 64:
            return False  # a group that moved stays moved; a dead one stays dead
        for name, stats in record.groups.items():
            if not self._moved.get(name):
                self._moved[name] = bool(stats.max_update)
        return self._steps == 5 and self._dead != []

    @property
    def _dead(self) -> list[str]:
        return [name for name, moved in self._moved.items() if not moved]

    def findings(self, trace: Trace) -> Iterable[Finding]:
        """The groups that stand still."""
        dead = self._dead
        if self._steps < 5 or not dead or len(dead) == len(self._moved):
            return
        yield Finding(
            rule=self.name,
            id="partial-target-modules",
            severity="warning",
            confidence="established",
            first_step=trace.first_step,
            last_step=trace.record.step,
            evidence={"dead": dead, "count": len(dead), "num_groups": len(self._moved), "steps": self._steps},
            ruled_out=("params-not-updating",),
            weights="intact",
        )


class AlwaysClipped(Rule):
    """Clipping cuts nearly every gradient to a fraction: the lr is not what the recipe says."""

    name = "always-clipped"
    family = _FAMILY
    needs = ("clip_ratio|max_grad_norm",)
    ids = ("always-clipped",)
    min_records = 20
    observes = True
    when = "grad_norm"

    def __init__(self) -> None:
        self._clipped = self._seen = 0
        self._sum = 0.0

    def observe(self, trace: Trace) -> bool:
        """Count gradients cut to less than a third."""
        record = trace.record
        ratio = record.clip_ratio
        if ratio is None and trace.facts.max_grad_norm and record.grad_norm:
            ratio = min(1.0, trace.facts.max_grad_norm / record.grad_norm)
        if ratio is None or not isfinite(ratio):
            return False
        self._seen += 1
        self._sum += ratio
        self._clipped += ratio < 1 / 3
        return False

    def missing(self, trace: Trace) -> tuple[str, ...]:
        """Without the limit nobody can tell what was clipped."""
        if "clip_ratio" in trace.seen or (trace.facts.max_grad_norm and "grad_norm" in trace.seen):
            return () if trace.num_records >= self.min_records else ("more_records",)
        return ("max_grad_norm",)

    def findings(self, trace: Trace) -> Iterable[Finding]:
        """Nine of ten."""
        if self._seen < 20 or self._clipped < 0.9 * self._seen:
            return
        yield Finding(
            rule=self.name,
            id="always-clipped",
            severity="warning",
            confidence="established",
            first_step=trace.first_step,
            last_step=trace.record.step,
            evidence={
                "share": self._clipped / self._seen,
                "ratio": self._sum / self._seen,
                "max_grad_norm": trace.facts.max_grad_norm,
            },
            weights="intact",
        )


class UpdateBeyondBound(Rule):
    """Weights moved by more than Adam can move them: its second moments are wrong."""

    name = "update-beyond-bound"
    family = _FAMILY
    needs = ("update_ratio",)
    ids = ("optim-8bit-map-bug",)
    min_records = 2
    observes = True
    when = "update_ratio"

    def __init__(self) -> None:
        self._first: int | None = None
        self._count = self._updates = 0
        self._worst = 0.0
        self._bound = 0.0

    def observe(self, trace: Trace) -> bool:
        """Compare |Δw|/lr with the bound of this update."""
        ratio = trace.record.update_ratio
        if ratio is None:
            return False
        self._updates = self._updates + 1 if self._updates else trace.record.step
        if ratio <= 1.0:
            return False  # the commonest case, and within the bound at any step
        bound = self._limit(trace)
        if not ratio > bound:
            return False
        self._count += 1
        self._first = self._first or trace.record.step
        if ratio > self._worst:
            self._worst, self._bound = ratio, bound
        return self._count == 3

    def _limit(self, trace: Trace) -> float:
        facts = trace.facts
        if "adam" not in (facts.optimizer or "adam").lower():
            return inf
        return _MARGIN * adam_bound(self._updates, *facts.betas) + 10 * (facts.weight_decay or 0.0)

    def findings(self, trace: Trace) -> Iterable[Finding]:
        """From the third time on."""
        if self._count < 3:
            return
        yield Finding(
            rule=self.name,
            id="optim-8bit-map-bug",
            severity="error",
            confidence="likely",
            first_step=self._first or trace.first_step,
            last_step=trace.record.step,
            evidence={
                "ratio": self._worst,
                "bound": self._bound,
                "count": self._count,
                "version": trace.facts.versions.get("bitsandbytes"),
            },
            ruled_out=("lr",),
            weights="intact",
        )


class OptimizerReset(Rule):
    """The loss or the update jumps where a run went on from a checkpoint."""

    name = "optimizer-reset"
    family = _FAMILY
    needs = ("resumed",)
    ids = ("resume-state-lost",)

    def missing(self, trace: Trace) -> tuple[str, ...]:
        """Only a run that was resumed has something to check."""
        return () if trace.said("resumed") else ("resumed",)

    def findings(self, trace: Trace) -> Iterable[Finding]:
        """The loss after the resume against the level before it."""
        for remark in trace.remarks:
            if remark.kind != "resumed" or not remark.step:
                continue
            before = [value for step, value in trace.head if step <= remark.step][-15:]
            after = [value for step, value in trace.head if step > remark.step][:5]
            if len(before) < 5 or len(after) < 3:
                continue
            trend = linear_trend([float(i) for i in range(len(before))], before)
            level, now = sorted(before)[len(before) // 2], sorted(after)[len(after) // 2]
            if trend is None or now < level + max(6 * trend.noise, 0.15 * level):
                continue
            yield Finding(
                rule=self.name,
                id="resume-state-lost",
                severity="warning",
                confidence="likely",
                first_step=remark.step + 1,
                last_step=remark.step + 1,
                evidence={"loss_before": level, "loss_after": now},
                undecided=("data",),
            )
            return


def adam_bound(updates: int, beta1: float, beta2: float) -> float:
    """Largest |Δw|/lr that exact Adam's update number ``updates`` can make, whatever the gradients were.

    By Cauchy–Schwarz, |m|²/v ≤ (1−β1)²/(1−β2) · Σ (β1²/β2)^k over the k = 0 … t−1 past gradients, times the bias
    corrections (Kingma & Ba 2015, §2.1, bound the case of one gradient): 1 at t = 1, 2.2 at 100, 7.3 in the end
    for (0.9, 0.999).
    """
    ratio = beta1 * beta1 / beta2
    if ratio >= 1 or beta2 >= 1:
        return inf
    series = (1 - ratio**updates) / (1 - ratio)
    squared = (1 - beta1) ** 2 / (1 - beta2) * series * (1 - beta2**updates) / (1 - beta1**updates) ** 2
    return sqrt(squared)


def _learns(trace: Trace) -> bool:
    """Whether the loss falls beyond its noise."""
    points = [point for point in trace.curve.closed() if point.mean is not None]
    values = [point.mean for point in points if point.mean is not None]
    if len(values) < 5:
        return bool(values) and values[-1] < 0.9 * values[0]
    trend = linear_trend([float(point.step) for point in points], values)
    return trend is not None and trend.falls


def _repeats(trace: Trace) -> int | None:
    """Period, in records, with which the losses repeat to the last digit: nothing was learnt between."""
    values = [value for _, value in trace.head]
    if len(set(values)) < 4:
        return None
    for period in range(2, len(values) // 2 + 1):
        tail = values[period:]
        if len(tail) >= 4 and tail == values[: len(tail)] and len(set(values[:period])) >= min(4, period):
            return period
    # A log that stops within the second round: its last lines repeat the first ones.
    for period in range(4, len(values) - 3):
        tail = values[period:]
        if len(tail) >= 4 and tail == values[: len(tail)] and len(set(tail)) >= 4:
            return period
    return None


def _same_held_out(trace: Trace) -> tuple[float, int] | None:
    """Held-out losses that are equal to the last of many digits: the same weights gave them."""
    losses = [each.loss for each in trace.evaluations if isfinite(each.loss)]
    if len(losses) < 2 or trace.odometer.max_lr == 0.0 or len(set(losses[-10:])) > 1:
        return None
    digits = len(repr(losses[-1]).replace(".", "").strip("0"))
    return (losses[-1], len(losses)) if digits >= 6 or (digits >= 4 and len(losses) >= 3) else None


def _pinned_at_ln2(trace: Trace) -> bool:
    """Preference training whose loss stays at ln 2: policy and reference are the same."""
    values = [value for _, value in trace.head]
    return (
        trace.facts.objective == "preference"
        and len(values) >= 3
        and trace.odometer.num_moved > 0
        and all(abs(value - _DPO_START) < 2e-4 for value in values)
    )
