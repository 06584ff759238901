"""Several loss curves in one picture of letters."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
SEVERAL = "*"
FEWEST_POINTS, MOST_COLUMNS = 4, 90
_TOP = 4.0  # times the lowest loss: a curve that explodes must not flatten the others

Curve = Sequence[tuple[int, float]]


def draw_overlay(curves: Sequence[Curve], width: int, height: int = 12) -> list[str]:
    """Lines of at most ``width`` cells: the curves as letters in their order (``a`` is the first), steps below.

    A column shows the mean over its steps; where several curves share a cell it is ``*``. What lies far above the rest
    is left out, as what is not finite. Too few points give no lines, and so do more curves than there are letters.
    """
    finite = [[(step, value) for step, value in curve if math.isfinite(value)] for curve in curves]
    if len(curves) > len(LETTERS) or max((len(curve) for curve in finite), default=0) < FEWEST_POINTS:
        return []
    last = max(curve[-1][0] for curve in finite if curve)
    margin = 7
    columns = min(width - margin - 2, MOST_COLUMNS, last)
    shown = [_columns(curve, last, columns) for curve in finite]
    values = [value for points in shown for value in points.values()]
    low = min(values)
    top = max([value for value in values if value <= _TOP * low] if low > 0 else values)
    top = top if top > low else low + (abs(low) or 1.0) * 0.01
    cells: dict[tuple[int, int], str] = {}
    for letter, points in zip(LETTERS, shown, strict=False):
        for column, value in points.items():
            if value <= top:
                place = (round((top - value) / (top - low) * (height - 1)), column)
                cells[place] = letter if place not in cells else SEVERAL
    lines = []
    for row in range(height):
        label = f"{top - (top - low) * row / (height - 1):.3f}" if row in (0, height // 2, height - 1) else ""
        lines.append(
            f"{label:>{margin}} │" + "".join(cells.get((row, column), " ") for column in range(columns)).rstrip()
        )
    axis = f"1{last:>{max(1, columns - 1)}}"
    return [*lines, f"{'':>{margin}} └{axis}"]


def _columns(curve: Curve, last: int, columns: int) -> Mapping[int, float]:
    parts: dict[int, list[float]] = {}
    for step, value in curve:
        parts.setdefault(min(columns - 1, (step - 1) * columns // last), []).append(value)
    return {column: fmean(values) for column, values in parts.items()}


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Step by step the mean of several curves (over seeds), over the steps that all of them have."""
    if not curves:
        return ()
    tables = [dict(curve) for curve in curves]
    steps = sorted(set.intersection(*(set(table) for table in tables)))
    return [(step, fmean(table[step] for table in tables)) for step in steps]
