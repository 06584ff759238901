"""The loss around epoch borders, and its profile within each epoch."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

MAX_EPOCHS = 64
BINS = 24
_AROUND = 8  # values kept on each side of a border


@dataclass(slots=True)
class Border:
    """The last values of one epoch and the first of the next."""

    step: int
    before: list[float]
    after: list[float] = field(default_factory=list)


class Epochs:
    """Takes healthy losses with their epoch."""

    def __init__(self) -> None:
        self.borders: list[Border] = []
        self.profiles: list[list[list[float]]] = []  # epoch -> bin -> [sum, count]
        self.last = 0.0
        self.first: float | None = None
        self._recent: deque[float] = deque(maxlen=_AROUND)

    def add(self, step: int, epoch: float, value: float) -> None:
        """Take a healthy loss."""
        if not 0 <= epoch < 1e6:
            return
        if self.first is None:
            self.first = epoch
        # The record that closes an epoch prints a whole number and still belongs to it.
        index = max(0, -int(-epoch // 1) - 1)
        if index > max(0, -int(-self.last // 1) - 1) and len(self.borders) < MAX_EPOCHS and self._recent:
            self.borders.append(Border(step, list(self._recent)))
            self._recent.clear()
        self.last = epoch
        self._recent.append(value)
        if self.borders and len(self.borders[-1].after) < _AROUND:
            self.borders[-1].after.append(value)
        while len(self.profiles) <= index and len(self.profiles) < MAX_EPOCHS:
            self.profiles.append([[0.0, 0.0] for _ in range(BINS)])
        if index < len(self.profiles):
            cell = self.profiles[index][min(BINS - 1, int((epoch - index) * BINS * (1 - 1e-9)))]
            cell[0] += value
            cell[1] += 1
