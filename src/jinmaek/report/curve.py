"""The loss as a few lines of block characters, with the onset marked."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

BLOCKS = " ▁▂▃▄▅▆▇█"
NON_FINITE = "×"
CLIPPED = "↑"
OUTLIER = 8.0  # times the median: one loss of 1e5 must not flatten the rest
FEWEST, MOST_COLUMNS = 4, 100

Column = tuple[int, float | None]


def draw_curve(series: Sequence[Column], onset: int | None, width: int, height: int = 4) -> list[str]:
    """Lines of at most ``width`` cells: ``height`` of curve with the scale at their left, then the steps.

    Losses that were not finite (``None`` too) are drawn as ``×``, those far above the rest as ``↑``. Too few points,
    or nothing but zeros, give no lines.
    """
    seen = [value for _, value in series if value is not None and math.isfinite(value)]
    if len(series) < FEWEST or not any(seen):
        return []
    top = _top(seen)
    low = min(0.0, *seen)
    labels = [f"{top:.3g}", f"{low:.3g}"]
    margin = max(map(len, labels))
    columns = _columns(series, min(width - margin - 2, MOST_COLUMNS))
    cells = [_cells(value, low, top, height) for _, value in columns]
    lines = []
    for row in range(height):
        label = labels[0] if row == 0 else labels[1] if row == height - 1 else ""
        lines.append(f"{label:>{margin}} │" + "".join(column[row] for column in cells).rstrip())
    return [*lines, f"{'':>{margin}} └" + _axis(columns, onset, series[-1][0])]


def _top(seen: Sequence[float]) -> float:
    usual = median([abs(value) for value in seen if value]) if any(seen) else 1.0
    highest = max(seen)
    inside = [value for value in seen if value <= OUTLIER * usual]
    return max(inside, default=highest) or 1.0


def _columns(series: Sequence[Column], count: int) -> list[Column]:
    """At most ``count`` points; a column keeps what must not be averaged away: first NaN, then a 0; else the mean."""
    if len(series) <= count:
        repeat = max(1, min(3, count // len(series)))
        return [point for point in series for _ in range(repeat)]
    columns = []
    for number in range(count):
        part = series[number * len(series) // count : (number + 1) * len(series) // count]
        columns.append((part[0][0], _summary([value for _, value in part])))
    return columns


def _summary(values: Sequence[float | None]) -> float | None:
    finite = [value for value in values if value is not None and math.isfinite(value)]
    if len(finite) < len(values):
        return None
    if 0.0 in finite:
        before = finite[: finite.index(0.0)]
        # Where the zeros begin, what came before them is the last thing worth seeing.
        finite = before if before and not any(finite[len(before) :]) else [0.0]
    return sum(finite) / len(finite)


def _cells(value: float | None, low: float, top: float, height: int) -> list[str]:
    """One column, top row first."""
    if value is None or not math.isfinite(value):
        return [" "] * (height - 1) + [NON_FINITE]
    if value > top:
        return [CLIPPED] + [BLOCKS[-1]] * (height - 1)
    steps = (len(BLOCKS) - 1) * height
    filled = max(1, round((value - low) / (top - low or 1.0) * steps))
    per_row = [min(max(filled - row * (len(BLOCKS) - 1), 0), len(BLOCKS) - 1) for row in range(height)]
    return [BLOCKS[part] for part in reversed(per_row)]


def _axis(columns: Sequence[Column], onset: int | None, end: int) -> str:
    """First and last step at the ends, the onset below its column; a label that would not fit is left out."""
    first, last = str(columns[0][0]), str(end)
    line = [" "] * max(len(columns), len(first) + len(last) + 2)
    line[: len(first)] = first
    line[len(line) - len(last) :] = last
    if onset is None or not columns[0][0] <= onset <= end:
        return "".join(line).rstrip()
    place = next((number for number, (step, _) in enumerate(columns) if step >= onset), len(columns) - 1)
    right, left = f"▲ {onset}", f"{onset} ▲"
    if place <= len(first):  # it takes the place of the first label
        return right.rjust(place + len(right)) + "".join(line)[place + len(right) :].rstrip()
    if place + len(right) < len(line) - len(last):
        line[place : place + len(right)] = right
    elif place - len(left) >= len(first):
        line = [*line[: place - len(left) + 1], *left]
    return "".join(line).rstrip()
