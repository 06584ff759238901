"""The verdicts of replays, as ``prove`` left them in ``captures/``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinmaek.core.codec import number
from jinmaek.core.verdict import Cause, Control, Difference, Headroom, Location, Trial, Verdict

_ABSMAX = ("output_absmax", "true_absmax", "limit")


def read_verdicts(captures: Path) -> tuple[list[Verdict], list[str]]:
    """The verdicts in the folder ``captures`` by their step, and the names of files that hold none."""
    verdicts, unread = [], []
    for path in sorted(captures.glob("verdict-*.json")):
        try:
            verdicts.append(decode_verdict(json.loads(path.read_text("utf-8"))))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            unread.append(path.name)
    return verdicts, unread


def decode_verdict(row: Mapping[str, Any]) -> Verdict:
    """The verdict that :meth:`Verdict.as_dict` wrote.

    Raises:
        KeyError, TypeError, AttributeError, ValueError: it is no such mapping.
    """
    return Verdict(
        run=str(row["run"]),
        step=int(row["step"]),
        symptom=row["symptom"],
        outcome=row["outcome"],
        control=Control(**{**row["control"], "spread": number(row["control"].get("spread"))}),
        recorded=dict(row["recorded"]),
        location=None if row["location"] is None else _location(row["location"]),
        headroom=None if row["headroom"] is None else _headroom(row["headroom"]),
        trials=tuple(_trial(trial) for trial in row["trials"]),
        causes=tuple(Cause(**{**cause, "trials": tuple(cause["trials"])}) for cause in row["causes"]),
        differences=tuple(Difference(**difference) for difference in row["differences"]),
        device=str(row["device"]),
        seconds=float(row["seconds"]),
        interrupted=bool(row["interrupted"]),
    )


def _location(row: Mapping[str, Any]) -> Location:
    numbers = {name: number(row[name]) for name in _ABSMAX}
    inputs = tuple(float(value) for value in map(number, row["input_absmax"]) if value is not None)
    return Location(**{**row, **numbers, "input_absmax": inputs})


def _headroom(row: Mapping[str, Any]) -> Headroom:
    shares = {int(step): number(share) for step, share in row["shares"].items()}
    return Headroom(**{**row, "shares": shares, "steps_left": number(row["steps_left"])})


def _trial(row: Mapping[str, Any]) -> Trial:
    return Trial(**{**row, "loss": number(row["loss"]), "grad_norm": number(row["grad_norm"])})
