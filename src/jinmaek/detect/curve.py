"""A series of any length in bounded memory: neighbours are joined as it grows."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite

LIMIT = 2048


@dataclass(frozen=True, slots=True)
class Point:
    """``num`` values up to ``step``: their mean and extremes; ``None`` where none was finite."""

    step: int
    mean: float | None
    low: float | None
    high: float | None
    num: int


class Curve:
    """At most :data:`LIMIT` points of equal width; the width doubles when they are full."""

    __slots__ = ("_count", "_finite", "_high", "_low", "_step", "_sum", "_width", "points")

    def __init__(self) -> None:
        self.points: list[Point] = []
        self._width = 1
        self._clear()

    def _clear(self) -> None:
        """Begin the next point."""
        self._count = self._finite = self._step = 0
        self._sum = 0.0
        self._low, self._high = inf, -inf

    def add(self, step: int, value: float) -> None:
        """Append a value; one that is not finite keeps its place and nothing else."""
        self._count += 1
        self._step = step
        if isfinite(value):
            self._finite += 1
            self._sum += value
            if value < self._low:
                self._low = value
            if value > self._high:
                self._high = value
        if self._count == self._width:
            self._flush()

    def closed(self) -> list[Point]:
        """All points, the unfinished last one too."""
        return [*self.points, self._point()] if self._count else list(self.points)

    @property
    def width(self) -> int:
        """Values a point stands for."""
        return self._width

    def _point(self) -> Point:
        if not self._finite:
            return Point(self._step, None, None, None, 0)
        return Point(self._step, self._sum / self._finite, self._low, self._high, self._finite)

    def _flush(self) -> None:
        self.points.append(self._point())
        self._clear()
        if len(self.points) >= LIMIT:
            pairs = zip(self.points[::2], self.points[1::2], strict=True)
            self.points = [_joined(first, second) for first, second in pairs]
            self._width *= 2


def _joined(first: Point, second: Point) -> Point:
    if first.mean is None or second.mean is None:
        whole = first if second.mean is None else second
        return Point(second.step, whole.mean, whole.low, whole.high, whole.num)
    num = first.num + second.num
    mean = (first.mean * first.num + second.mean * second.num) / num
    low, high = min(first.low or 0.0, second.low or 0.0), max(first.high or 0.0, second.high or 0.0)
    return Point(second.step, mean, low, high, num)
