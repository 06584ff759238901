"""Rules on what the optimizer did to the weights."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite, log

from jinmaek.core.finding import Confidence, Finding
from jinmaek.detect.rule import Rule
from jinmaek.detect.trace import Trace
from jinmaek.detect.trend import linear_trend, loss_points

_DPO_START = log(2.0)
_FAMILY = "updates"
_EVERY = 64  # records: so often are modules looked at after the first ones
_CRUSHED = 0.1  # of the gradient left


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
        return self._zero_updates == 5 or self._zero_grads == 5

    def findings(self, trace: Trace) -> Iterable[Finding]:
        """By the update, else the gradient, else a loss that repeats itself to the digit."""
        if trace.episodes.all or (trace.odometer.readings and trace.odometer.max_lr == 0.0):
            return
        evidence: dict[str, object] = {}
        sure: Confidence
        if self._zero_updates >= 3 and self._zero_updates == self._updates:
            evidence, sure = {"zero_updates": self._zero_updates}, "established"
        elif self._zero_grads >= 3 and self._zero_grads >= 0.9 * self._grads:
            if _learns(trace):
                return  # gradients consumed before the norm was taken (GaLore, fused backward)
            # A few lines do not show whether the loss falls.
            evidence, sure = {"zero_gradients": self._zero_grads}, "likely" if trace.level.count >= 8 else "possible"
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
            severity="warning" if sure == "possible" else "error",
            confidence=sure,
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
        if trace.num_records > _EVERY and trace.num_records % _EVERY:
            return False  # a group that moved stays moved; a dead one stays dead
        self._steps += 1
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
        self._clipped = self._crushed = self._seen = 0
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
        self._crushed += ratio < _CRUSHED
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
            # Adam hardly minds a constant factor; a tenth and less hides how the gradients differ.
            severity="warning" if self._crushed >= 0.9 * self._seen else "note",
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


def _learns(trace: Trace) -> bool:
    """Whether the loss falls beyond its noise."""
    steps, values = loss_points(trace)
    if len(values) < 5:
        return bool(values) and values[-1] < 0.9 * values[0]
    trend = linear_trend(steps, values)
    return trend is not None and trend.falls and trend.change < -0.1 * trace.level.median


def _repeats(trace: Trace) -> int | None:
    """Period, in records, with which the losses repeat to the last digit: nothing was learnt between."""
    values = [value for _, value in trace.head]
    if len(set(values)) < 4:
        return None
    for period in range(2, len(values) - 3):
        if values[period] != values[0] or values[period + 1] != values[1]:
            continue  # nearly always: the rest would be quadratic
        tail = values[period:]
        if tail != values[: len(tail)]:
            continue
        # Whole rounds; or a log that stops within the second one, whose last lines repeat the first.
        rounds = period <= len(values) // 2 and len(set(values[:period])) >= min(4, period)
        if rounds or (period >= 4 and len(set(tail)) >= 4):
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
