"""A run's numbers as columns, gathered while the rules look at them.

A series holds what was observed: a record whose field is ``None`` has no entry in it. NaN and the infinities are
entries, and so is 0: three different facts stay three.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right

import numpy as np
from numpy.typing import NDArray

from jinmaek.core.record import EvaluationRecord, Item, Remark, StepRecord

FIELDS = (
    "loss", "loss_reported", "lr", "grad_norm", "loss_scale", "update_ratio", "num_tokens", "seconds",
    "token_accuracy", "memory_bytes",
)  # fmt: skip
"""Fields of StepRecord that are drawn, or that a chart's axis is made of."""


class Series:
    """One field over the records that have it.

    ``values[i]`` belongs to record ``index[i]``; ``index`` is ``None`` as long as every record from the first has
    a value.
    """

    def __init__(self) -> None:
        self.values = array("d")
        self.index: array[int] | None = None

    def add(self, record: int, value: float) -> None:
        """Record number ``record`` has ``value``."""
        if self.index is None and record != len(self.values):
            self.index = array("I", range(len(self.values)))
        if self.index is not None:
            self.index.append(record)
        self.values.append(value)

    def cut(self, num_records: int) -> None:
        """Forget what lies behind the first ``num_records`` records."""
        kept = num_records if self.index is None else bisect_left(self.index, num_records)
        del self.values[kept:]
        if self.index is not None:
            del self.index[kept:]

    def numbers(self, first: int = 0) -> NDArray[np.float64]:
        """The values of the records from ``first`` on, [observed], float64."""
        return np.array(self.values[self._start(first) :], dtype=np.float64)

    def places(self, num_records: int, first: int = 0) -> NDArray[np.uint32] | None:
        """Record of each value from ``first`` on, counted from there, [observed], uint32.

        ``None`` where each record up to ``num_records`` has a value.
        """
        if self.index is None and len(self.values) == num_records:
            return None
        index = range(len(self.values)) if self.index is None else self.index
        return np.array(index[self._start(first) :], dtype=np.uint32) - np.uint32(first)

    def _start(self, first: int) -> int:
        return min(first, len(self.values)) if self.index is None else bisect_left(self.index, first)


class Columns:
    """The items of one run, as columns.

    Attributes:
        steps: of the records, rising.
        series: by field; only those that were observed at all.
        skipped: numbers of the records whose update was not applied.
        num_judged: records that say whether their update was applied.
        evaluations: step and held-out loss.
        resumed: steps from which the run went on.
        first_window: steps that the first printed window sums up.
        num_replaced: records that are not drawn because the log went back to an earlier step.
    """

    def __init__(self) -> None:
        self.steps = array("d")
        self.series: dict[str, Series] = {}
        self.skipped = array("I")
        self.num_judged = 0
        self.evaluations: list[tuple[int, float]] = []
        self.resumed: list[int] = []
        self.first_window = 1
        self.num_replaced = 0

    def observe(self, item: Item) -> None:
        """Take in the next item."""
        if isinstance(item, StepRecord):
            self._add(item)
        elif isinstance(item, EvaluationRecord):
            self.evaluations.append((item.step, item.loss))
        elif item.kind == "resumed":
            self._go_back(item)

    def _add(self, record: StepRecord) -> None:
        if self.steps and record.step <= self.steps[-1]:
            self._cut(record.step - 1)
        number = len(self.steps)
        if not number:
            self.first_window = record.num_steps
        self.steps.append(record.step)
        for name in FIELDS:
            value = getattr(record, name)
            if value is not None:
                series = self.series.get(name)
                if series is None:
                    series = self.series[name] = Series()
                series.add(number, value)
        if record.optimizer_stepped is not None:
            self.num_judged += 1
            if not record.optimizer_stepped:
                self.skipped.append(number)

    def _go_back(self, remark: Remark) -> None:
        if remark.step is not None:
            self.resumed.append(remark.step)
            self._cut(remark.step)

    def _cut(self, last: int) -> None:
        """Only steps up to ``last`` still hold."""
        kept = bisect_right(self.steps, last)
        self.num_replaced += len(self.steps) - kept
        del self.steps[kept:]
        for series in self.series.values():
            series.cut(kept)
        del self.skipped[bisect_left(self.skipped, kept) :]
        self.evaluations = [each for each in self.evaluations if each[0] <= last]
