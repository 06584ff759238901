"""Rules on numbers that are not finite, masked, or thrown away."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from math import isfinite

from jinmaek.core.finding import Finding, Severity
from jinmaek.detect.episode import Episode, is_sentinel
from jinmaek.detect.evidence import fault_evidence
from jinmaek.detect.naming import CALIBRATION, name_fault
from jinmaek.detect.rule import Rule
from jinmaek.detect.trace import Trace

_GRADIENT_ONLY = re.compile(r"loss[ =:]+[\d.]+(e[-+]?\d+)?\b.*norm[ =:]+(nan|inf)", re.IGNORECASE)
_LEAD_UP = 60  # steps from a single line to the next one that belongs to it
_OFTEN = 0.03  # of all steps
_MANY_SKIPS = 0.3  # of a stretch's steps: no scaler throws away so much for its calibration


def rule_of(episode: Episode) -> str:
    """Which rule tells this stretch: the first that applies of masked loss, bad loss, bad gradient, skips."""
    if episode.zeros:
        return "zero-loss"
    if episode.non_finite:
        return "non-finite-loss"
    return "non-finite-gradient" if episode.grads_bad and not episode.thrown_away else "skipped-steps"


class EpisodeRule(Rule):
    """Tells the stretches of faulty records whose sign is its own."""

    family = "numerics"
    observes = True
    when = "fault"
    ids = (
        "nan-masked-scaler-skip", "scaler-skip-every-step", "scaler-collapse-to-zero", "nan-poisoned-weights",
        "divergence-to-nan", "nan-batch-intermittent", "grad-nan-finite-loss", "labels-all-masked",
        "labels-partly-masked", "attn-kernel-nan", "ds-zero2-overlap-nan", "skipped-steps",
    )  # fmt: skip

    def observe(self, trace: Trace) -> bool:
        """New when a stretch of this rule grows to 1, 3, 10, 30 … records."""
        episode = trace.episodes.current
        return episode is not None and episode.records in _TELL_AT and rule_of(episode) == self.name

    def findings(self, trace: Trace) -> Iterable[Finding]:
        """One finding a stretch; stretches of one pathology that all recovered are told together."""
        told = [
            finding
            for episode in trace.episodes.all
            if rule_of(episode) == self.name
            for finding in _tell(self.name, episode, trace)
        ]
        yield from _joined(told)


_TELL_AT = frozenset((1, 3, 10, 30, 100, 1000))


class NonFiniteLoss(EpisodeRule):
    """A loss that is NaN or infinite."""

    name = "non-finite-loss"
    needs = ("loss",)


class ZeroLoss(EpisodeRule):
    """A loss that is exactly 0.0 where it was not near 0: a masked NaN, or nothing to learn."""

    name = "zero-loss"
    needs = ("loss",)


class NonFiniteGradient(EpisodeRule):
    """A gradient that is not finite while the loss lives."""

    name = "non-finite-gradient"
    needs = ("grad_norm",)

    def findings(self, trace: Trace) -> Iterable[Finding]:
        """The stretches, and the steps that a trainer said it threw away for their gradient alone."""
        yield from super().findings(trace)
        said = [each for each in trace.remarks if each.kind == "skipped" and _GRADIENT_ONLY.search(each.text)]
        if said:
            yield Finding(
                rule=self.name,
                id="grad-nan-finite-loss",
                severity="warning",
                confidence="established",
                first_step=said[0].step or trace.first_step,
                last_step=said[-1].step or trace.record.step,
                evidence={"count": len(said), "said": said[0].text[:200]},
                ruled_out=("nan-batch-intermittent", "nan-poisoned-weights"),
                weights="intact",
            )


class SkippedSteps(EpisodeRule):
    """Updates that were thrown away, read from the records or from the lr."""

    name = "skipped-steps"
    needs = ("lr|optimizer_stepped",)

    def missing(self, trace: Trace) -> tuple[str, ...]:
        """A constant lr counts nothing."""
        missing = super().missing(trace)
        if not missing and "optimizer_stepped" not in trace.seen and trace.odometer.num_moved == 0:
            return ("schedule",)
        return missing


class GradientSentinel(Rule):
    """DeepSpeed's code for "not finite": a gradient norm that is √groups to the last digit, again and again."""

    name = "gradient-sentinel"
    family = "numerics"
    needs = ("grad_norm",)
    ids = ("ds-nan-sentinel", "ds-zero2-overlap-nan")
    observes = True
    when = "grad_norm"

    def __init__(self) -> None:
        self._last: float | None = None
        self._row = 0
        self._first = self._first_of_row = self._last_step = 0
        self._longest = 0
        self._value = 0.0

    def observe(self, trace: Trace) -> bool:
        """Count equal values in a row."""
        grad, record = trace.record.grad_norm, trace.record
        if grad == self._last and grad is not None:
            self._row += 1
        else:
            self._row, self._first_of_row = 1, record.step
        self._last = grad
        if grad is None or self._row < 3 or not isfinite(grad) or not is_sentinel(grad):
            return False
        if grad == 1.0 and trace.loss_state == "finite":
            return False  # a norm that was clipped to 1.0 before it was printed is no code
        self._first = self._first_of_row if self._row > self._longest else self._first
        self._longest, self._value, self._last_step = max(self._longest, self._row), grad, record.step
        return self._row == 3

    def findings(self, trace: Trace) -> Iterable[Finding]:
        """The longest row."""
        if not self._longest:
            return
        yield Finding(
            rule=self.name,
            id="ds-nan-sentinel",
            severity="error",
            confidence="likely",  # the code is beyond doubt; what made the gradient NaN is not
            first_step=self._first,
            last_step=self._last_step,
            evidence={"grad_norm": self._value, "count": self._longest, "groups": round(self._value**2)},
            undecided=("ds-zero2-overlap-nan", "nan-poisoned-weights"),
        )
        yield Finding(
            rule=self.name,
            id="ds-zero2-overlap-nan",
            severity="warning",
            confidence="possible",
            first_step=self._first,
            last_step=self._last_step,
            evidence={"count": self._longest},
            undecided=("data", "lr", "kernel"),
        )


def _tell(rule: str, episode: Episode, trace: Trace) -> Iterator[Finding]:
    severity = _severity(episode, trace)
    if severity is None:
        return
    if severity == "note" and (rule == "skipped-steps" or episode.thrown_away):
        yield _few_skips(rule, episode)
        return
    for name in name_fault(episode, trace):
        yield Finding(
            rule=rule,
            id=name.id,
            severity=severity,
            confidence=name.confidence,
            first_step=episode.first_step,
            last_step=episode.last_step,
            evidence=fault_evidence(episode, trace),
            ruled_out=name.ruled_out,
            undecided=name.undecided,
            weights=name.weights,
        )


def _severity(episode: Episode, trace: Trace) -> Severity | None:
    """``None``: the loss scaler's ordinary business, told nowhere."""
    if _calibrating(episode, trace):
        return None
    if episode.thrown_away and (episode.scale_last is not None or not episode.loss_bad):
        span = episode.last_step - episode.first_step + 1
        dense = episode.records >= 3 and episode.records >= _MANY_SKIPS * span
        if episode.recovered:
            return "warning" if dense or _often(trace) else "note"
        return "error" if dense else "warning" if _often(trace) else "note"
    if episode.loss_bad:
        return "warning" if episode.recovered else "error"
    share = episode.read_skipped / max(1, episode.read_steps)
    if episode.grads_bad and not episode.thrown_away:
        few = episode.grads_bad <= 2 and episode.losses_alive > 0 and share < _MANY_SKIPS
        if few and (episode.recovered or episode.records == 1 or (episode.records == 2 and episode.good_after)):
            return "note"  # a single line of it, with a loss that lives, is the loss scaler's daily business
        return "warning" if episode.recovered else "error"
    if share < _MANY_SKIPS or episode.records < 2:
        return "note"
    by_design = episode.frozen >= episode.records - 1
    return "warning" if episode.recovered or by_design else "error"


def _often(trace: Trace) -> bool:
    """Whether steps were thrown away again and again, far more often than a scaler tries a larger scale."""
    thrown = sum(episode.thrown_away for episode in trace.episodes.all if not _calibrating(episode, trace))
    return thrown >= 6 and thrown >= _OFTEN * trace.num_records


def _calibrating(episode: Episode, trace: Trace) -> bool:
    """The scaler finds its scale: a few skips at the very start, and healthy steps after them."""
    if episode.loss_bad and not episode.thrown_away:
        return False
    if episode.thrown_away and episode.scale_last is None:
        return False  # without a loss scale there is nothing to calibrate
    if not trace.facts.steps_known or trace.first_step > max(2, trace.record.num_steps):
        return False  # the log does not show the run's start
    if not episode.good_after or episode.last_step > max(CALIBRATION, 3 * trace.record.num_steps):
        return False
    return episode.before.records <= CALIBRATION and episode.scale_last != 0.0 and not episode.zeros


def _few_skips(rule: str, episode: Episode) -> Finding:
    return Finding(
        rule=rule,
        id="skipped-steps",
        severity="note",
        confidence="established",
        first_step=episode.first_step,
        last_step=episode.last_step,
        evidence={"count": episode.thrown_away or episode.read_skipped, "scale_last": episode.scale_last},
        weights="intact",
    )


def _joined(told: list[Finding]) -> Iterator[Finding]:
    """Stretches of one pathology told as one; single lines of it that lead up to a grave one are its beginning."""
    groups: dict[str, list[Finding]] = {}
    for finding in told:
        groups.setdefault(finding.id, []).append(finding)
    for findings in groups.values():
        grave = [each for each in findings if each.severity != "note"]
        if not grave:
            yield _as_one(findings)
            continue
        first = grave[0].first_step
        for note in reversed([each for each in findings if each.severity == "note" and each.last_step < first]):
            first = note.first_step if first - note.last_step <= _LEAD_UP else first
        yield replace(_as_one(grave), first_step=first)


def _as_one(findings: list[Finding]) -> Finding:
    if len(findings) == 1:
        return findings[0]
    worst = next((each for each in findings if each.severity == "error"), findings[0])
    sure = next((each for each in findings if each.confidence == "established"), worst)
    if worst.confidence == "possible" and sure.confidence == "established":
        worst = sure  # what came back before will come back again
    records = sum(int(finding.evidence.get("records", 0)) for finding in findings)
    evidence = {**worst.evidence, "stretches": len(findings)} | ({"records": records} if records else {})
    first, last = findings[0].first_step, findings[-1].last_step
    return replace(worst, evidence=evidence, first_step=first, last_step=last, confidence=sure.confidence)
