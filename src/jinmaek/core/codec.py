"""Records as JSON that any parser can read: NaN and the infinities are written as strings."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from jinmaek.core.record import GroupStats, StepRecord

_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_FLOAT_FIELDS = frozenset(
    (
        "loss",
        "loss_reported",
        "grad_norm",
        "clip_ratio",
        "lr",
        "seconds",
        "loss_scale",
        "update_ratio",
        "first_grad_norm",
        "epoch",
        "token_accuracy",
    )
)
# Most lines lack these, which only other trainers' logs, GPUs or steps of several microbatches have: not spelt out.
_RARE: dict[str, Any] = {
    "first_grad_norm": None,
    "first_loss_tokens": None,
    "memory_bytes": None,
    "num_steps": 1,
    "epoch": None,
    "token_accuracy": None,
}


def plain(value: Any) -> Any:
    """``value`` with every non-finite float as ``"NaN"``, ``"Infinity"`` or ``"-Infinity"``, tuples as lists."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value


def number(value: Any) -> float | None:
    """The float that :func:`plain` wrote; ``None`` stays ``None``."""
    if value is None:
        return None
    return _NON_FINITE[value] if isinstance(value, str) else float(value)


def dump_line(value: Mapping[str, Any]) -> str:
    """One line of strict JSON, Korean left readable."""
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def encode_record(record: StepRecord) -> dict[str, Any]:
    """The record as a JSON-ready mapping; fields that were not observed are null."""
    row = {field.name: getattr(record, field.name) for field in fields(record)}
    row = {name: value for name, value in row.items() if name not in _RARE or value != _RARE[name]}
    if record.groups is not None:
        row["groups"] = {name: _encode_group(stats) for name, stats in record.groups.items()}
    encoded: dict[str, Any] = plain(row)
    return encoded


def decode_record(row: Mapping[str, Any]) -> StepRecord:
    """The record that :func:`encode_record` wrote.

    Raises:
        KeyError: the row has no ``step``.
        TypeError: the row has a key that StepRecord lacks.
    """
    values = dict(row)
    for key, value in row.items():
        # Most values are floats already; an integer, or NaN as text, is made one.
        if value is not None and type(value) is not float and key in _FLOAT_FIELDS:
            values[key] = number(value)
    values["step"] = int(row["step"])
    if values.get("example_ids") is not None:
        values["example_ids"] = tuple(values["example_ids"])
    if values.get("groups") is not None:
        values["groups"] = {name: _decode_group(stats) for name, stats in values["groups"].items()}
    return StepRecord(**values)


def _encode_group(stats: GroupStats) -> dict[str, Any]:
    return {field.name: getattr(stats, field.name) for field in fields(stats)}


def _decode_group(row: Mapping[str, Any]) -> GroupStats:
    return GroupStats(**{key: number(value) for key, value in row.items()})
