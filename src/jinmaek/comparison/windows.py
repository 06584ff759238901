"""The steps that two records have in common, window by window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jinmaek.comparison.reading import Row


@dataclass(frozen=True, slots=True)
class Window:
    """The same steps in both records: those after ``start`` up to ``step``."""

    start: int
    step: int
    first: tuple[Row, ...]
    other: tuple[Row, ...]

    @property
    def losses(self) -> tuple[float, float] | None:
        """Mean loss of each over the window; ``None`` where one of them has a record that is not healthy."""
        one, two = _mean(self.first), _mean(self.other)
        return None if one is None or two is None else (one, two)

    @property
    def lrs(self) -> tuple[float, float] | None:
        """The lr of each at the window's end."""
        one, two = self.first[-1].lr, self.other[-1].lr
        return None if one is None or two is None else (one, two)


def common_windows(first: Sequence[Row], other: Sequence[Row]) -> list[Window]:
    """The shortest stretches that whole records of both cover exactly.

    Records of unlike width are joined: five of ten steps make one that a record of fifty can be held against.
    """
    windows = []
    at, to = 0, 0
    while at < len(first) and to < len(other):
        one, two = first[at], other[to]
        if one.start != two.start:
            at, to = (at + 1, to) if one.start < two.start else (at, to + 1)
            continue
        ends = _matched(first, other, at, to)
        if ends is None:
            at, to = (at + 1, to) if one.step <= two.step else (at, to + 1)
            continue
        mine, its = tuple(first[at : ends[0]]), tuple(other[to : ends[1]])
        windows.append(Window(one.start, mine[-1].step, mine, its))
        at, to = ends
    return windows


def _matched(first: Sequence[Row], other: Sequence[Row], at: int, to: int) -> tuple[int, int] | None:
    """Where the records from ``at`` and ``to`` on end at one step, without a gap; ``None`` where they never do."""
    end, stop = at + 1, to + 1
    while first[end - 1].step != other[stop - 1].step:
        if first[end - 1].step < other[stop - 1].step:
            if end == len(first) or first[end].start != first[end - 1].step:
                return None
            end += 1
        else:
            if stop == len(other) or other[stop].start != other[stop - 1].step:
                return None
            stop += 1
    return end, stop


def _mean(rows: Sequence[Row]) -> float | None:
    if len(rows) == 1:
        return rows[0].loss
    total = 0.0
    for row in rows:
        if row.loss is None:
            return None
        total += row.loss * row.width
    return total / sum(row.width for row in rows)
