"""What the reports print: plain sentences in one language, with what a report sorts and colours by."""

from __future__ import annotations

from dataclasses import dataclass

from jinmaek.core.finding import Confidence, Health, Outcome, Severity, Weights
from jinmaek.core.text import Lang
from jinmaek.explain.limits import ToldLimits


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One thing to do. ``safe``: it changes nothing already learnt; else it changes the experiment."""

    text: str
    safe: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RuledOut:
    """A look-alike that the evidence excludes, and why."""

    id: str
    name: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldFinding:
    """One finding, told.

    Attributes:
        id: the pathology, and
        rule: what found it.
        severity: how bad it is.
        confidence: how sure the cause is, and
        sureness: the same in words.
        title: a few words.
        span: which steps show it.
        what: what happened.
        why: by which mechanism.
        details: the numbers, a sentence each, the telling ones first.
        ruled_out: look-alikes that the evidence excludes.
        undecided: names of the look-alikes that it does not exclude.
        measures: what to do, in order.
        sure: what would decide.
        consequences: what follows from it, a line each.
    """

    id: str
    rule: str
    severity: Severity
    confidence: Confidence
    sureness: str
    title: str
    span: str
    what: str
    why: str
    details: tuple[str, ...]
    ruled_out: tuple[RuledOut, ...]
    undecided: tuple[str, ...]
    measures: tuple[Measure, ...]
    sure: str
    consequences: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldRule:
    """One rule's outcome. ``needs`` says what a rule that could not be checked would have needed."""

    rule: str
    about: str
    outcome: Outcome
    needs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldDiagnosis:
    """The whole answer, told.

    Attributes:
        source: the run.
        lang: the language of every sentence.
        verdict: healthy, faulty or undetermined.
        weights: whether they survived.
        headline: the verdict in one sentence.
        weights_line: the weights in one sentence; ``None`` where nobody asks (healthy, all finite).
        last_healthy: where the run was last well, if the log tells.
        onset: first step of the first cause, which a curve marks.
        causes: the one to deal with first coming first.
        notes: worth knowing, no faults.
        rules: every rule's outcome.
        coverage: what was read, and how far it reaches.
        gaps: what could not be checked and what it needs; ``None`` if everything was.
        limits: why it does not improve, or not faster; ``None`` where that was not asked.
    """

    source: str
    lang: Lang
    verdict: Health
    weights: Weights
    headline: str
    weights_line: str | None
    last_healthy: str | None
    onset: int | None
    causes: tuple[ToldFinding, ...]
    notes: tuple[ToldFinding, ...]
    rules: tuple[ToldRule, ...]
    coverage: str
    gaps: str | None
    limits: ToldLimits | None = None
