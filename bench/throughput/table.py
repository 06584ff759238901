"""The lines of all entries as one markdown table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_HEAD = ("entry", "tok/s", "s/step", "peak GiB", "load s", "first step s", "note")
_NOTE = 140  # characters: an out-of-memory error tells the whole allocator's state


def table(lines: Sequence[dict[str, Any]]) -> str:
    """A row for each line; what was not measured stays empty, and the note says why."""
    rows = [_HEAD, ["---", *["---:"] * (len(_HEAD) - 2), "---"], *map(_row, lines)]
    gpus = sorted({line["gpu"] for line in lines if line.get("gpu")})
    return "\n".join([f"GPU: {', '.join(gpus) or 'none'}", "", *("| " + " | ".join(row) + " |" for row in rows)])


def _row(line: dict[str, Any]) -> list[str]:
    milliseconds = line.get("step_ms_median")
    figures = (
        _figure(line.get("tok_s"), ",.0f"),
        _figure(None if milliseconds is None else milliseconds / 1e3, ".3f"),
        _figure(line.get("peak_gib"), ".2f"),
        _figure(line.get("load_s"), ".1f"),
        _figure(line.get("first_step_s"), ".1f"),
    )
    return [line["entry"], *figures, _note(line.get("error") or line.get("kernels"))]


def _figure(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _note(said: str | None) -> str:
    text = " ".join((said or "").split()).replace("|", "\\|")
    return text if len(text) <= _NOTE else text[: _NOTE - 1] + "…"
