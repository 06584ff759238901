"""Rules on what the optimizer itself does."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf, sqrt

from jinmaek.core.finding import Finding
from jinmaek.detect.rule import Rule
from jinmaek.detect.trace import Trace
from jinmaek.detect.trend import linear_trend

_FAMILY = "updates"
_MARGIN = 1.25  # 8-bit moments are rounded: sound ones stay within a few per cent of exact Adam


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
    updates = max(1, updates)
    if not 0 < beta2 < 1 or beta1 * beta1 >= beta2:
        return inf
    ratio = beta1 * beta1 / beta2
    series = (1 - ratio**updates) / (1 - ratio)
    squared = (1 - beta1) ** 2 / (1 - beta2) * series * (1 - beta2**updates) / (1 - beta1**updates) ** 2
    return sqrt(squared)
