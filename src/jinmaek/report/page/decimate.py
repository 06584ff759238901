"""Thinning out a series for a picture so many pixels wide. ``numbers.js`` is the same in JavaScript."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

FEW = 4  # values a column that are drawn one by one


def keep(x: NDArray[np.float64], values: NDArray[np.floating], x0: float, x1: float, columns: int) -> NDArray[np.intp]:
    """Which values between ``x0`` and ``x1`` to draw on ``columns`` pixels, by their number, rising.

    All of them where they are few; else of each pixel column the first, the last, the lowest and the highest (M4:
    Jugel et al., VLDB 2014: the drawn line is the same to the pixel), and the first NaN, infinity and minus
    infinity, so that none of them ever vanishes. One value beyond each edge is kept, to which the line goes on.

    Args:
        x: rising, [n].
        values: [n].
        x0, x1: the visible stretch.
        columns: pixels.
    """
    start = max(0, int(np.searchsorted(x, x0)) - 1)
    end = min(len(x), int(np.searchsorted(x, x1, side="right")) + 1)
    if end - start <= FEW * columns:
        return np.arange(start, end)
    scale = columns / (x1 - x0)
    column = np.floor((x[start:end] - x0) * scale)
    bounds = np.flatnonzero(np.diff(column)) + 1
    kept: list[int] = []
    for first, last in zip([0, *bounds], [*bounds, end - start], strict=True):
        kept += sorted(start + first + place for place in _corners(values[start + first : start + last]))
    return np.array(kept, dtype=np.intp)


def _corners(values: NDArray[np.floating]) -> set[int]:
    finite = np.flatnonzero(np.isfinite(values))
    chosen: set[int] = set()
    if len(finite):
        seen = values[finite]
        chosen = {int(finite[place]) for place in (0, -1, seen.argmin(), seen.argmax())}
    if len(finite) < len(values):
        for odd in (np.isnan(values), values == math.inf, values == -math.inf):
            chosen |= set(np.flatnonzero(odd)[:1].tolist())
    return chosen
