"""All rules over one run, online or from a log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter

from jinmaek.core.finding import Finding, RuleResult
from jinmaek.core.record import EvaluationRecord, Item, RunFacts, StepRecord
from jinmaek.detect.rule import Rule
from jinmaek.detect.rules import (
    data,
    divergence,
    dynamics,
    learning,
    numerics,
    optimizer,
    order,
    scaler,
    schedule,
    start,
    updates,
)
from jinmaek.detect.steps import Numbering
from jinmaek.detect.trace import Trace

RULES: tuple[type[Rule], ...] = (
    numerics.ZeroLoss, numerics.NonFiniteLoss, numerics.NonFiniteGradient, numerics.GradientSentinel,
    numerics.SkippedSteps, scaler.LossScale, scaler.Underflow,
    schedule.FrozenLr, schedule.ZeroLr, schedule.EndlessWarmup, schedule.LrJump, schedule.ScheduleOutOfStep,
    divergence.Divergence, dynamics.Spike, dynamics.Stuck, dynamics.Plateau,
    learning.NearZeroLoss, learning.Overfitting, learning.AccumulatedLoss, start.WrongStart,
    start.AccuracyAgainstLoss, order.EpochStaircase, order.OrderedData,
    updates.FrozenWeights, updates.DeadAdapter, updates.AlwaysClipped, optimizer.UpdateBeyondBound,
    optimizer.OptimizerReset,
    data.NoLossTokens, data.ConstantBatch, data.MissingEos, data.Truncation, data.DoubleBos,
)  # fmt: skip
"""Every rule that judges one run. The rule that needs two, hidden-schedule-change, is in :mod:`.diagnose`."""


class Panel:
    """Feeds a run's items to every rule.

    Online: :meth:`observe` says which rules have something new, :meth:`findings` what. The rules' state need
    not be saved: feeding the recorded items again restores it.
    """

    def __init__(self, facts: RunFacts, numbering: Numbering | None = None) -> None:
        self.trace = Trace(facts, numbering)
        self.rules: tuple[Rule, ...] = tuple(kind() for kind in RULES)
        watching = [rule for rule in self.rules if rule.observes]
        self._always = [(rule.observe, rule) for rule in watching if rule.when is None]
        self._on_fault = [(rule.observe, rule) for rule in watching if rule.when == "fault"]
        fields = dict.fromkeys(rule.when for rule in watching if rule.when not in (None, "fault"))
        self._when = [
            (attrgetter(str(field)), [(rule.observe, rule) for rule in watching if rule.when == field])
            for field in fields
        ]

    def observe(self, item: Item) -> list[Rule]:
        """Take in an item; the rules that may have found something new with it."""
        if isinstance(item, StepRecord):
            return self._observe_step(item)
        if isinstance(item, EvaluationRecord):
            self.trace.add_evaluation(item)
        else:
            self.trace.add_remark(item)
        return []

    def _observe_step(self, record: StepRecord) -> list[Rule]:
        trace = self.trace
        trace.add(record)
        new = [rule for observe, rule in self._always if observe(trace)]
        if trace.fault:
            new += [rule for observe, rule in self._on_fault if observe(trace)]
        for value_of, rules in self._when:
            if value_of(record) is not None:
                for observe, rule in rules:
                    if observe(trace):
                        new.append(rule)
        return new

    def findings(self, rules: Iterable[Rule] | None = None) -> list[Finding]:
        """What ``rules`` (all of them) found up to now."""
        return [
            finding
            for rule in (self.rules if rules is None else rules)
            if not rule.missing(self.trace)
            for finding in rule.findings(self.trace)
        ]

    def results(self, found: Sequence[Finding]) -> tuple[RuleResult, ...]:
        """The outcome of every rule. A check that never ran is not a pass."""
        names = {finding.rule for finding in found}
        results = []
        for rule in self.rules:
            if rule.name in names:
                results.append(RuleResult(rule=rule.name, outcome="found"))
            elif missing := rule.missing(self.trace):
                results.append(RuleResult(rule=rule.name, outcome="not_checkable", missing=missing))
            else:
                results.append(RuleResult(rule=rule.name, outcome="clear"))
        return tuple(results)
