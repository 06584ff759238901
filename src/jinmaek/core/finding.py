"""What a look at a run comes to: findings, the outcome of every rule, the diagnosis.

A finding names a pathology by its ``id`` (``docs/rules/``), tells since when, with which numbers, how sure that
is, and which look-alikes the evidence excludes. Words are made from it by :mod:`jinmaek.explain`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from jinmaek.core.limits import Limits

Severity = Literal["error", "warning", "note"]
"""error: the run is broken; warning: part of it is, or something is about to be; note: worth knowing, no fault."""

Confidence = Literal["established", "likely", "possible"]
"""How sure the *cause* is: no other explanation fits / others fit badly / the log does not separate it."""

Outcome = Literal["found", "clear", "not_checkable"]
Weights = Literal["intact", "poisoned", "unknown"]
Health = Literal["healthy", "faulty", "undetermined"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One pathology, seen.

    Attributes:
        rule: the rule that found it.
        id: the pathology.
        severity: how bad it is.
        confidence: how sure the cause is.
        first_step: last step of the first record that shows it (of a per-step record: the step).
        last_step: last step that shows it.
        evidence: the numbers, by name; the explanation's sentences are filled from them.
        ruled_out: ids of the look-alikes that the evidence excludes.
        undecided: ids of the look-alikes that it does not exclude.
        weights: what it means for the weights.
        consequences: findings that follow from this one; they are told below it and nowhere else.
    """

    rule: str
    id: str
    severity: Severity
    confidence: Confidence
    first_step: int
    last_step: int
    evidence: Mapping[str, Any] = field(default_factory=dict)
    ruled_out: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()
    weights: Weights | None = None
    consequences: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleResult:
    """What one rule came to. ``missing`` names what a rule that could not be checked would have needed."""

    rule: str
    outcome: Outcome
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """The answer.

    Attributes:
        source: the run's name (its path).
        format: what it was read as.
        verdict: faulty: at least one error, or a likely warning; undetermined: only possible ones, or too little
            to judge; healthy otherwise.
        weights: whether the weights survived.
        causes: errors and warnings, the one to deal with first coming first.
        notes: worth knowing, no faults.
        rules: every rule's outcome.
        num_records: records read.
        first_step: first and
        last_step: last step covered; ``None`` without records.
        steps_known: whether steps are the trainer's; ``steps_inferred``: derived from the lr; else they count records.
        last_healthy_step: last step before the first error; ``None`` if there is no error or nothing before it.
        last_healthy_checkpoint: the newest saved state that the fault had not reached, if the log names one.
        unread: lines that looked like records and could not be read.
        limits: why it does not improve, or not faster; ``None`` while the run goes on.
    """

    source: str
    format: str
    verdict: Health
    weights: Weights
    causes: tuple[Finding, ...] = ()
    notes: tuple[Finding, ...] = ()
    rules: tuple[RuleResult, ...] = ()
    num_records: int = 0
    first_step: int | None = None
    last_step: int | None = None
    steps_known: bool = True
    steps_inferred: bool = False
    last_healthy_step: int | None = None
    last_healthy_checkpoint: str | None = None
    unread: int = 0
    limits: Limits | None = None
