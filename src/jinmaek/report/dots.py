"""A mean and its interval for each of a few values, as a picture of dots and whiskers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

DOT, WHISKER, BEYOND = "●", "─", "▶"


@dataclass(frozen=True, slots=True)
class Dot:
    """A line of the picture. ``mean`` is ``None`` where there is none; ``note`` is put behind it."""

    label: str
    mean: float | None
    half_width: float | None
    note: str


def draw_dots(dots: Sequence[Dot], width: int, top: float | None = None) -> list[str]:
    """One line each, smaller values further left; what lies above ``top`` ends in an arrow.

    ``width``: cells for the picture itself, without labels and notes.
    """
    means = [dot.mean for dot in dots if dot.mean is not None]
    if not means:
        return []
    low = min((dot.mean or 0.0) - (dot.half_width or 0.0) for dot in dots if dot.mean is not None)
    high = max(means) if top is None else min(max(means), top)
    scale = (width - 1) / (high - low) if high > low else 0.0
    margin = max(len(dot.label) for dot in dots)
    return [f"{dot.label:>{margin}} │{_cells(dot, low, scale, width)}│ {dot.note}".rstrip() for dot in dots]


def _cells(dot: Dot, low: float, scale: float, width: int) -> str:
    cells = [" "] * width
    if dot.mean is None:
        return "".join(cells)
    at = round((dot.mean - low) * scale)
    half = round((dot.half_width or 0.0) * scale)
    for place in range(max(0, at - half), min(width, at + half + 1)):
        cells[place] = WHISKER
    cells[min(at, width - 1)] = DOT if at < width else BEYOND
    return "".join(cells)
