"""The diagnosis for programs. A golden file freezes its keys: add some, never rename or drop one."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from jinmaek.core.codec import plain
from jinmaek.core.finding import Diagnosis, Finding
from jinmaek.core.limits import Limits
from jinmaek.core.text import Lang
from jinmaek.core.version import VERSION
from jinmaek.explain import ruled_out, tell_limits


def as_json(diagnosis: Diagnosis, lang: Lang) -> dict[str, Any]:
    """``diagnosis`` as a JSON-ready mapping; only why look-alikes are ruled out is told in ``lang``."""
    outcomes = {
        outcome: [result.rule for result in diagnosis.rules if result.outcome == outcome]
        for outcome in ("found", "clear")
    }
    unchecked = [result for result in diagnosis.rules if result.outcome == "not_checkable"]
    encoded: dict[str, Any] = plain(
        {
            "jinmaek": VERSION,
            "source": diagnosis.source,
            "format": diagnosis.format,
            "verdict": diagnosis.verdict,
            "weights": diagnosis.weights,
            "causes": [_finding(cause, lang) for cause in diagnosis.causes],
            "notes": [_finding(note, lang) for note in diagnosis.notes],
            "rules": {
                **outcomes,
                "not_checkable": [{"rule": result.rule, "missing": result.missing} for result in unchecked],
            },
            "num_records": diagnosis.num_records,
            "first_step": diagnosis.first_step,
            "last_step": diagnosis.last_step,
            "steps_known": diagnosis.steps_known,
            "steps_inferred": diagnosis.steps_inferred,
            "last_healthy_step": diagnosis.last_healthy_step,
            "last_healthy_checkpoint": diagnosis.last_healthy_checkpoint,
            "unread": diagnosis.unread,
            "limits": None if diagnosis.limits is None else limits_json(diagnosis.limits, lang),
        }
    )
    return encoded


def limits_json(limits: Limits, lang: Lang) -> dict[str, Any]:
    """Why the run does not improve: the numbers, and under ``told`` what a user reads in ``lang``."""
    return {**asdict(limits), "told": asdict(tell_limits(limits, lang))}


def _finding(finding: Finding, lang: Lang) -> dict[str, Any]:
    return {
        "id": finding.id,
        "rule": finding.rule,
        "severity": finding.severity,
        "first_step": finding.first_step,
        "last_step": finding.last_step,
        "confidence": finding.confidence,
        "evidence": finding.evidence,
        "ruled_out": [{"id": lookalike.id, "why": lookalike.why} for lookalike in ruled_out(finding, lang)],
        "undecided": finding.undecided,
        "consequences": [_finding(below, lang) for below in finding.consequences],
    }
