"""The lines of all entries as one markdown table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

COLUMNS = {
    "entry": "entry",
    "shape": "model",
    "says": "setting",
    "tokens": "tokens/step",
    "step_ms_median": "ms/step",
    "tok_s": "tokens/s",
    "peak_gib": "peak GiB",
    "load_peak_gib": "loading, peak GiB",
    "load_s": "load s",
    "first_step_s": "first step s",
    "cold_start_s": "cold start s",
    "note": "",
}
_NOTE = 140  # characters: an out-of-memory error tells the whole allocator's state


def table(lines: Sequence[dict[str, Any]]) -> str:
    """A row for each line; what was not measured stays empty, and its error says why."""
    rows = [list(COLUMNS.values()), ["---"] * len(COLUMNS), *map(_row, lines)]
    gpus = sorted({line["gpu"] for line in lines if line.get("gpu")})
    head = f"GPU: {', '.join(gpus) or 'none'}. T: tokens in a pack, one pack a step."
    return "\n".join([head, "", *("| " + " | ".join(row) + " |" for row in rows)])


def _row(line: dict[str, Any]) -> list[str]:
    note = line.get("error") or _kernels(line.get("kernels"))
    return [_cell(note if key == "note" else line.get(key)) for key in COLUMNS]


def _kernels(found: Any) -> str:
    return "" if found is None else found if isinstance(found, str) else str(found)


def _cell(value: Any) -> str:
    if isinstance(value, int | float):
        return f"{value:,}"
    text = " ".join(str(value or "").split()).replace("|", "\\|")
    return text if len(text) <= _NOTE else text[: _NOTE - 1] + "…"
