"""Any log as a ``trainer_state.json``, the one format that every rival reads."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

_NAMES = {"lr": "learning_rate", "current_steps": "step", "global_step": "step", "iter": "step"}
_KEPT = ("step", "loss", "grad_norm", "learning_rate", "eval_loss", "epoch")
_OBJECT = re.compile(r"\{.*?\}")
_BARE = re.compile(r"(?<![\w'\".])(-?)(nan|inf|NaN|Infinity)(?![\w'\"])")


def as_trainer_state(path: Path, out: Path) -> Path | None:
    """``path`` itself if it is one, else a file written to ``out``; ``None`` if no record can be read."""
    if path.name == "trainer_state.json":
        return path
    entries = _of_run(path) if path.is_dir() else _of_text(path.read_text("utf-8", errors="replace"))
    entries = [entry for entry in entries if "loss" in entry or "eval_loss" in entry or "grad_norm" in entry]
    if not entries:
        return None
    count = 0
    for entry in entries:
        count += "loss" in entry or "grad_norm" in entry
        entry.setdefault("step", max(1, count))
    last = max(int(entry["step"]) for entry in entries)
    out.parent.mkdir(parents=True, exist_ok=True)
    state = {"global_step": last, "max_steps": last, "best_metric": None, "log_history": entries}
    out.write_text(json.dumps(state), "utf-8")
    return out


def _of_run(folder: Path) -> list[dict[str, Any]]:
    steps = [json.loads(line) for line in (folder / "steps.jsonl").read_text("utf-8").splitlines()]
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text("utf-8").splitlines()]
    found = [_entry(row | {"learning_rate": row.get("lr")}) for row in steps]
    found += [_entry({"step": one["step"], "eval_loss": one["loss"]}) for one in events if one["event"] == "evaluation"]
    return sorted(found, key=lambda entry: entry["step"])


def _of_text(text: str) -> list[dict[str, Any]]:
    try:
        whole = json.loads(text)
    except json.JSONDecodeError:
        return [_entry(row) for line in text.splitlines() for row in _objects(line)]
    rows = whole.get("log_history", [whole]) if isinstance(whole, dict) else whole
    return [_entry(row) for row in rows if isinstance(row, dict)]


def _objects(line: str) -> list[dict[str, Any]]:
    found = []
    for match in _OBJECT.finditer(line):
        text = _BARE.sub(r"'\1\2'", match[0]).replace("null", "None").replace("true", "True").replace("false", "False")
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            continue
        if isinstance(value, dict):
            found.append(value)
    return found


def _entry(row: dict[str, Any]) -> dict[str, Any]:
    named = {_NAMES.get(key, key): value for key, value in row.items()}
    entry: dict[str, Any] = {}
    for key in _KEPT:
        try:
            entry[key] = float(named[key])
        except (KeyError, TypeError, ValueError):
            continue
    if "step" in entry:
        entry["step"] = int(entry["step"])
    return entry
