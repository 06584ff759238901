"""The curves of a run for a picture: the Python side of what plots.js draws in the page."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from jinmaek.report.page.columns import Columns

Floats = NDArray[np.float64]
OUTLIER = 8.0  # times the median: higher values are marked at the edge of a linear axis


@dataclass(frozen=True, slots=True)
class Curve:
    """Values at steps. ``window``: each stands for the steps up to it; ``points``: each for itself.

    Attributes:
        steps: [n], rising; values: [n], NaN and the infinities where they were seen.
        dense: whether a record without a value is a gap in the line.
    """

    role: Literal["raw", "window", "points"]
    steps: Floats
    values: Floats
    dense: bool


def curves(columns: Columns, chart: str) -> Iterator[Curve]:
    """What ``chart`` shows of a run."""
    if chart == "held_out":
        if columns.evaluations:
            steps, losses = np.array(columns.evaluations, dtype=np.float64).T
            yield Curve("points", steps, losses, dense=False)
        return
    if chart == "speed":
        yield from _speed(columns)
        return
    named = (("window", "loss_reported"), ("raw", "loss")) if chart == "loss" else (("raw", chart),)
    for role, field in named:
        if field in columns.series:
            steps, values = observed_at(columns, field)
            yield Curve(role, steps, values, dense=len(values) > len(columns.steps) / 2)  # type: ignore[arg-type]


def observed_at(columns: Columns, field: str) -> tuple[Floats, Floats]:
    """Steps and values of one field, [observed] each."""
    series, steps = columns.series[field], np.array(columns.steps)
    places = series.places(len(steps))
    return (steps if places is None else steps[places]), series.numbers()


def _speed(columns: Columns) -> Iterator[Curve]:
    if not {"num_tokens", "seconds"} <= set(columns.series):
        return
    tokens, seconds = (dict(zip(*observed_at(columns, name), strict=True)) for name in ("num_tokens", "seconds"))
    both = [step for step in tokens if seconds.get(step, 0) > 0]
    yield Curve("raw", np.array(both), np.array([tokens[step] / seconds[step] for step in both]), dense=False)


def smooth(values: Floats, window: int) -> Floats:
    """Moving average over about ``window`` values, free of the pull to its start; what is not finite joins none."""
    keep, total, weight = 1 - 1 / window, 0.0, 0.0
    averages = np.array(values)
    for place in np.flatnonzero(np.isfinite(values)):
        total = keep * total + (1 - keep) * values[place]
        weight = keep * weight + (1 - keep)
        averages[place] = total / weight
    return averages


def usual_window(num_records: int) -> int:
    """How many values to smooth over: the page's own choice at first."""
    return max((size for size in (1, 10, 50, 200, 1000) if size * 40 <= num_records), default=1)


def top_of(values: Floats) -> float:
    """The highest value that a linear axis makes room for."""
    sizes = np.abs(values[values != 0])
    if not len(sizes):
        return 0.0
    inside = values[values <= OUTLIER * np.sort(sizes)[len(sizes) // 2]]
    return float(inside.max()) if len(inside) else float(values.max())
