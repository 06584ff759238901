"""The ordinary level of a noisy series and its noise, from its last healthy values."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from math import inf

SIZE = 31
ENOUGH = 8  # values before the level is worth comparing with
_HIGH_NOISES, _HIGH_SHARE = 8.0, 0.25  # a value is high beyond so many noises and such a share of the level


class Level:
    """Running median and noise of the last :data:`SIZE` values.

    The caller adds healthy values only: a flagged value never joins its own baseline. The median does not
    follow single outliers; the noise is the interquartile range over 1.349, the standard deviation of a normal
    sample with that range.
    """

    __slots__ = ("_order", "_sorted", "count", "high", "median", "noise")

    def __init__(self) -> None:
        self._order: deque[float] = deque()
        self._sorted: list[float] = []
        self.count = 0
        self.median = 0.0
        self.noise = 0.0
        self.high = inf  # above this a value stands out

    def add(self, value: float) -> None:
        """Take a healthy, finite value."""
        ordered = self._sorted
        insort(ordered, value)
        self._order.append(value)
        size = len(ordered)
        if size > SIZE:
            del ordered[bisect_left(ordered, self._order.popleft())]
            size = SIZE
        self.count += 1
        self.median = ordered[size // 2]
        spread = (ordered[(3 * size) // 4] - ordered[size // 4]) / 1.349
        floor = 1e-3 * abs(self.median) + 1e-9
        self.noise = spread if spread > floor else floor
        if self.count >= ENOUGH:
            self.high = self.median + _HIGH_NOISES * self.noise + _HIGH_SHARE * abs(self.median)

    @property
    def known(self) -> bool:
        """Whether enough values were seen."""
        return self.count >= ENOUGH

    @property
    def recent(self) -> list[float]:
        """The values, oldest first."""
        return list(self._order)
