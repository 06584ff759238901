"""From findings to an answer: one cause told once, its consequences below it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from jinmaek.core.finding import Diagnosis, Finding, Health, RuleResult, Weights
from jinmaek.detect.panel import Panel
from jinmaek.detect.trace import Trace

TWO_RUNS = "hidden-schedule-change"  # the one rule that compares runs; see :mod:`jinmaek.detect.diagnose`
ENOUGH = 4  # records with a loss before a run is called healthy

_SHORT_RISE = 3  # records
_SEVERITY = ("error", "warning", "note")
_CONFIDENCE = ("established", "likely", "possible")
_SKIPS = frozenset(("nan-masked-scaler-skip", "scaler-skip-every-step", "scaler-collapse-to-zero"))
_DEAD = _SKIPS | {"nan-poisoned-weights", "divergence-to-nan", "labels-all-masked"}
_IDLE = frozenset(("plateau", "stuck-from-start"))  # nobody asks why a broken run does not improve
_BY_LEARNING = frozenset(
    ("memorisation-overfit", "duplicate-or-leaked-data", "stuck-from-start", "plateau", "not-shuffled")
)
_OF_DIVERGENCE = frozenset(("grad-nan-finite-loss", "nan-batch-intermittent", "always-clipped", "grad-spike-finite"))
_ROOTS: tuple[tuple[str, frozenset[str]], ...] = (
    # a broken optimizer or a wrong start makes the loss diverge; a divergence makes gradients overflow
    ("optim-8bit-map-bug", frozenset(("lr-too-high-divergence", "divergence-to-nan", "grad-nan-finite-loss"))),
    ("wrong-forward-at-step-1", frozenset(("lr-too-high-divergence", "divergence-plateau", "bad-labels"))),
    ("lr-too-high-divergence", _OF_DIVERGENCE),
    ("divergence-to-nan", _OF_DIVERGENCE | {"lr-too-high-divergence"}),
    ("grad-nan-finite-loss", frozenset(("grad-spike-finite",))),
    ("nan-batch-intermittent", frozenset(("grad-spike-finite", "grad-nan-finite-loss"))),
    ("labels-all-masked", frozenset(("params-not-updating", "labels-partly-masked"))),
    ("gradient-underflow", frozenset(("params-not-updating", "partial-target-modules"))),
    ("params-not-updating", frozenset(("partial-target-modules", "stuck-from-start"))),
    ("lr-zero", frozenset(("params-not-updating", "stuck-from-start"))),
    ("nan-poisoned-weights", frozenset(("ds-nan-sentinel", "grad-nan-finite-loss"))),
    ("loss-scaled-by-accumulation", frozenset(("always-clipped", "bad-labels"))),
    ("constant-batch", frozenset(("memorisation-overfit", "duplicate-or-leaked-data"))),
)


def conclude(panel: Panel, name: str, unread: int, *, steps_inferred: bool) -> Diagnosis:
    """The diagnosis of everything that the panel has seen."""
    trace = panel.trace
    found = panel.findings()
    told = _nested(_grown(_merged(found)))
    causes = tuple(_with_consequences(each, trace) for each in told if each.severity != "note")
    notes = tuple(each for each in told if each.severity == "note")
    dead = bool(causes) and causes[0].id in _DEAD
    broken = any(each.severity == "error" for each in causes)
    verdict = _verdict(causes, trace)
    healthy_step = _last_healthy(causes, trace)
    return Diagnosis(
        source=name,
        format=trace.facts.source,
        verdict=verdict,
        weights=_weights(causes, verdict),
        causes=causes,
        notes=tuple(each for each in notes if not broken or each.id not in _IDLE) if not dead else (),
        rules=(*panel.results(found), RuleResult(rule=TWO_RUNS, outcome="not_checkable", missing=("second_run",))),
        num_records=trace.num_records,
        first_step=trace.first_step if trace.num_records else None,
        last_step=trace.record.step if trace.num_records else None,
        steps_known=trace.facts.steps_known,
        steps_inferred=steps_inferred,
        last_healthy_step=healthy_step,
        last_healthy_checkpoint=_checkpoint(trace, healthy_step),
        unread=unread,
    )


def rank(finding: Finding) -> tuple[int, int, int]:
    """Order of telling: the worst, then the surest, then the earliest first."""
    return _SEVERITY.index(finding.severity), _CONFIDENCE.index(finding.confidence), finding.first_step


def _merged(found: Sequence[Finding]) -> list[Finding]:
    """Findings of one pathology as one: the best-founded tells it, with the evidence of all."""
    by_id: dict[str, list[Finding]] = {}
    for finding in found:
        by_id.setdefault(finding.id, []).append(finding)
    merged = []
    for findings in by_id.values():
        best = min(findings, key=rank)
        same = [each for each in findings if each.severity == best.severity]
        evidence = {key: value for each in reversed(same) for key, value in each.evidence.items()} | dict(best.evidence)
        first = min(each.first_step for each in same)
        last = max(each.last_step for each in findings)
        merged.append(replace(best, evidence=evidence, first_step=first, last_step=last))
    return sorted(_settled(merged), key=rank)


def _settled(found: list[Finding]) -> list[Finding]:
    """Candidates of one stretch fall away where another rule established one of them."""
    sure = {each.id for each in found if each.confidence == "established" and each.severity == "error"}
    if not sure & _DEAD:
        return found
    return [each for each in found if each.confidence != "possible" or each.id not in _DEAD or each.id in sure]


def _grown(found: list[Finding]) -> list[Finding]:
    """NaN after a long finite rise is the divergence's end, not a fault of its own."""
    rise = next((each for each in found if each.id == "lr-too-high-divergence" and each.severity == "error"), None)
    if rise is None:
        return found
    grown = []
    for each in found:
        long = each.first_step > rise.first_step and rise.evidence.get("records", 0) > _SHORT_RISE
        if each.id == "nan-poisoned-weights" and each.severity == "error" and long:
            ruled_out = tuple(name for name in each.ruled_out if name != "lr-too-high-divergence")
            grown.append(replace(each, id="divergence-to-nan", confidence="likely", ruled_out=ruled_out))
        else:
            grown.append(each)
    return grown


def _nested(found: list[Finding]) -> list[Finding]:
    """Hang what follows from a cause below it."""
    ids = {each.id for each in found if each.confidence != "possible"}
    everything = {each.id for each in found}
    below: dict[str, str] = {}
    for root, followers in _ROOTS:
        if root in ids:
            below |= {each: root for each in followers & everything if each not in below and below.get(root) != each}
    dead = next((each for each in found if each.id in _DEAD and each.severity == "error"), None)
    for each in found:
        if dead is not None and each.id not in below and each is not dead:
            later = each.first_step >= dead.first_step and each.id not in _DEAD
            # A short rise that ended in the fault is its beginning.
            later |= each.id == "lr-too-high-divergence" and each.evidence.get("records", 0) <= _SHORT_RISE
            if later or each.id in _BY_LEARNING:
                below[each.id] = dead.id
    top = []
    for each in found:
        if each.id in below:
            continue
        hanging = tuple(other for other in found if below.get(other.id) == each.id and other.severity != "note")
        first = min([each.first_step, *(other.first_step for other in hanging if _same_disease(each, other))])
        top.append(replace(each, consequences=hanging, first_step=first) if hanging else each)
    return top


def _same_disease(root: Finding, other: Finding) -> bool:
    """A divergence that ended in NaN began where the loss began to rise."""
    return root.id == "divergence-to-nan" and other.id == "lr-too-high-divergence"


def _with_consequences(cause: Finding, trace: Trace) -> Finding:
    """What else the reader sees in this log because of the cause."""
    if cause.id not in _DEAD or cause.severity != "error":
        return cause
    more = []
    evidence = cause.evidence
    if evidence.get("zeros"):
        more.append(_consequence(cause, "masked-loss", count=evidence["zeros"]))
    if cause.id in _SKIPS and evidence.get("lr") is not None and evidence.get("frozen_steps"):
        more.append(_consequence(cause, "frozen-lr", lr=evidence["lr"]))
    if cause.weights == "poisoned":
        saved = [each for each in trace.remarks if each.kind == "checkpoint" and (each.step or 0) >= cause.first_step]
        more.append(_consequence(cause, "useless-checkpoints", count=len(saved) or None))
    return replace(cause, consequences=(*cause.consequences, *more))


def _consequence(cause: Finding, name: str, **evidence: object) -> Finding:
    return Finding(
        rule=cause.rule,
        id=name,
        severity="note",
        confidence=cause.confidence,
        first_step=cause.first_step,
        last_step=cause.last_step,
        evidence={key: value for key, value in evidence.items() if value is not None},
    )


def _verdict(causes: Sequence[Finding], trace: Trace) -> Health:
    if any(each.severity == "error" or each.confidence != "possible" for each in causes):
        return "faulty"
    if causes or trace.level.count < ENOUGH:
        return "undetermined"
    return "healthy"


def _weights(causes: Sequence[Finding], verdict: Health) -> Weights:
    """The worst that any cause says of the weights."""
    said = [each.weights for each in causes if each.weights is not None]
    for state in ("poisoned", "unknown", "intact"):
        if state in said:
            return state
    return "intact" if verdict == "healthy" else "unknown"


def _last_healthy(causes: Sequence[Finding], trace: Trace) -> int | None:
    errors = [each for each in causes if each.severity == "error"]
    if not errors:
        return None
    first = min(errors, key=lambda each: each.first_step)
    known = first.evidence.get("last_loss_step")
    if known is not None and known < first.first_step:
        return int(known)
    before = first.first_step - max(1, trace.record.num_steps)
    return before if before >= trace.first_step else None


def _checkpoint(trace: Trace, healthy_step: int | None) -> str | None:
    if healthy_step is None:
        return None
    saved = [each for each in trace.remarks if each.kind == "checkpoint" and (each.step or 0) <= healthy_step]
    return saved[-1].text if saved else None
