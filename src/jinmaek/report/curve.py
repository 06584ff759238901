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


def draw_curves(runs: Sequence[tuple[str, Sequence[Column]]], width: int, height: int = 8) -> list[str]:
    """Losses of several runs over each other, each drawn by its letter; ``*`` where more than one falls in a cell.

    ``runs``: (letter, (step, loss) in order); losses that were not finite are left out. Too few points give no lines.
    """
    finite = [(name, _finite(series)) for name, series in runs]
    points = [point for _, series in finite for point in series]
    if any(len(series) < FEWEST for _, series in finite):
        return []
    top, low = _top([loss for _, loss in points]), min(loss for _, loss in points)
    first, last = min(step for step, _ in points), max(step for step, _ in points)
    labels = {0: f"{top:.3g}", height - 1: f"{low:.3g}"}
    margin = max(map(len, labels.values()))
    count = max(10, min(width - margin - 2, MOST_COLUMNS))
    grid = [[" "] * count for _ in range(height)]
    for name, series in finite:
        for column, loss in _means(series, first, last, count).items():
            row = height - 1 - round((min(loss, top) - low) / (top - low or 1.0) * (height - 1))
            grid[row][column] = name[:1] if grid[row][column] == " " else "*"
    lines = [f"{labels.get(row, ''):>{margin}} │" + "".join(cells).rstrip() for row, cells in enumerate(grid)]
    return [*lines, f"{'':>{margin}} └{first}".ljust(margin + 2 + count - len(str(last))) + str(last)]


def _finite(series: Sequence[Column]) -> list[tuple[int, float]]:
    return [(step, loss) for step, loss in series if loss is not None and math.isfinite(loss)]


def _means(series: Sequence[tuple[int, float]], first: int, last: int, count: int) -> dict[int, float]:
    """Column -> mean loss of the steps that fall into it."""
    columns: dict[int, list[float]] = {}
    for step, loss in series:
        columns.setdefault((step - first) * count // (last - first + 1), []).append(loss)
    return {column: sum(losses) / len(losses) for column, losses in columns.items()}


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
