"""Which step a printed record is of: its own word, a progress bar's, or just its place in the row."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, pairwise
from typing import Literal

from jinmaek.core.record import Item
from jinmaek.ingest.assemble import Assembler
from jinmaek.ingest.bars import Bar
from jinmaek.ingest.events import Event, Line
from jinmaek.ingest.names import Row
from jinmaek.ingest.remarks import Said
from jinmaek.ingest.source import LogSource

_HEAD_ROWS = 8  # records that must have been seen to tell where the steps stand
_HEAD_EVENTS = 5000
_TRAINED = frozenset(("loss", "loss_reported", "grad_norm"))
Clock = Literal["own", "before", "after"]


class Timeline:
    """Gives the rows of a printed log their steps and hands them to the assembler.

    transformers prints no step. The bar is drawn again right after a record was printed and then shows its step;
    pasted logs may hold only the bar before the record, or bars that are long out of date. Which of the two holds
    is told from the first records: steps must rise evenly and in proportion to the epoch, or they are not believed.
    """

    def __init__(self, log: LogSource, assembler: Assembler) -> None:
        self._log = log
        self._out = assembler
        self._total: int | None = None
        self._bar: int | None = None  # the training bar's last word since the last record
        self._waiting: list[Line | Said] = []  # a record without its step, and what was said behind it
        self._place = (-2.0, 0.0)  # epoch and step as the last record said them
        self._offset = 0.0
        self._first = 1  # the step of a first record that has no bar
        self._scale: float | None = None  # what DeepSpeed reduced its loss scale to

    def items(self, events: Iterator[Event]) -> Iterator[Item]:
        """The items of all events."""
        head = self._head(events)
        rows = [event.row for event in head if isinstance(event, Line) and _is_training(event)]
        if _falls([row.get("step") for row in rows]) or _falls([row.get("epoch") for row in rows], no_bars=head):
            head = [event for event in (*head, *events) if not isinstance(event, Bar)]
            head.reverse()
        own = any("step" in row for row in rows)
        clock: Clock = "own" if own else self._choose(head)
        ready = self._out.ready
        for event in chain(head, events):
            self._take(event, clock)
            if ready:
                yield from ready
                ready.clear()
        self._settle(None)
        if self._log.facts.max_steps is None:
            self._log.facts.max_steps = self._total
        self._out.finish()
        yield from ready

    def _head(self, events: Iterator[Event]) -> list[Event]:
        """The first events up to some records; of bars in a row only the first and the last."""
        head: list[Event] = []
        num_rows = 0
        for event in events:
            if isinstance(event, Bar):
                if self._total is None:
                    self._total = event.total
                if event.total != self._total:
                    continue
                if len(head) > 1 and isinstance(head[-1], Bar) and isinstance(head[-2], Bar):
                    head.pop()
            head.append(event)
            num_rows += _is_training(event)
            if num_rows > _HEAD_ROWS or len(head) > _HEAD_EVENTS:
                break
        return head

    def _choose(self, head: list[Event]) -> Clock:
        before, after, epochs = _bars_around(head)
        if not epochs:
            return "own"
        # At its end a log may lack the last bar; at its beginning a paste may lack the first.
        is_before = _is_clock(before, epochs, optional=0)
        is_after = _is_clock(after, epochs, optional=len(epochs) - 1)
        if is_before and before[0] is None and len(before) > 2:
            self._first = (before[1] or 0) - ((before[2] or 0) - (before[1] or 0))
        if is_before and is_after:
            even = [_is_even([step for step in steps if step is not None]) for steps in (before, after)]
            if even[0] != even[1]:
                return "before" if even[0] else "after"
            return "before" if before[0] is not None and before != after else "after"
        return "before" if is_before else "after" if is_after else "own"

    def _take(self, event: Event, clock: Clock) -> None:
        if isinstance(event, Bar):
            self._see_bar(event, clock)
        elif isinstance(event, Said):
            if event.loss_scale is not None:
                self._scale = event.loss_scale
            if self._waiting:
                self._waiting.append(event)
            else:
                self._remark(event)
        elif clock == "own" or "step" in event.row:
            self._put(event)
        elif not _is_training(event):
            self._settle(None)
            self._put(event)
        elif clock == "before":
            self._stamp(event, self._bar)
            self._bar = None
        else:
            self._settle(None)
            self._waiting.append(event)

    def _see_bar(self, bar: Bar, clock: Clock) -> None:
        if self._total is None:
            self._total = bar.total
        if bar.total != self._total:
            return
        self._log.facts.max_steps = self._log.facts.max_steps or bar.total
        self._bar = bar.step
        if clock == "after":
            self._settle(bar.step)

    def _settle(self, step: int | None) -> None:
        """Let the waiting record go, with the bar's step or the one that must follow the last."""
        waiting, self._waiting = self._waiting, []
        for event in waiting:
            if isinstance(event, Said):
                self._remark(event)
            else:
                self._stamp(event, step)

    def _stamp(self, line: Line, step: int | None) -> None:
        last = self._out.step
        if step is not None and step > (last or 0):
            line.row["step"] = float(step)
        elif last is not None:
            line.row["step"] = float(last + self._out.spacing)
        else:
            line.row["step"] = float(max(self._first, 1))
        self._put(line)

    def _put(self, line: Line) -> None:
        row = line.row
        if self._scale is not None and _is_training(line):
            row.setdefault("loss_scale", self._scale)
            self._scale = None
        if "step" in row and "loss" in row:
            self._count_on(row)
        if "epoch_length" in row:
            self._log.facts.steps_per_epoch = row["epoch_length"]
        self._out.take(row)
        if row.get("skipped"):
            self._out.remark("skipped", f"{row['skipped']:.0f}")

    def _count_on(self, row: Row) -> None:
        """Steps that begin anew with each epoch go on where the last epoch ended."""
        place = (row.get("epoch", -1.0), row["step"])
        epoch, step = self._place
        if place[0] == epoch + 1 and place[1] < step:
            self._offset += step + self._out.spacing - place[1]
        self._place = place
        row["step"] += self._offset

    def _remark(self, said: Said) -> None:
        step = None
        if self._bar and (self._log.facts.steps_known or self._out.step is None) and self._bar > (self._out.step or 0):
            step = self._bar
        self._out.remark(said.kind, said.text, step=step)


def _is_training(event: Event) -> bool:
    """Whether it is a training row."""
    return isinstance(event, Line) and not _TRAINED.isdisjoint(event.row)


def _falls(values: list[float | None], no_bars: list[Event] | None = None) -> bool:
    """Whether the log was pasted with its newest line first."""
    if no_bars is not None and (len(values) < 3 or any(isinstance(event, Bar) for event in no_bars)):
        return False
    known = [value for value in values if value is not None]
    return len(known) == len(values) > 1 and all(later < earlier for earlier, later in pairwise(known))


def _bars_around(head: list[Event]) -> tuple[list[int | None], list[int | None], list[float | None]]:
    """For each training row: the last bar since the row before it, the first bar before the row after it, its epoch."""
    before: list[int | None] = []
    after: list[int | None] = []
    epochs: list[float | None] = []
    last: int | None = None
    for event in head:
        if isinstance(event, Bar):
            if after and after[-1] is None:
                after[-1] = event.step
            last = event.step
        elif isinstance(event, Line) and _is_training(event):
            before.append(last)
            after.append(None)
            epochs.append(event.row.get("epoch"))
            last = None
    return before, after, epochs


def _is_clock(steps: list[int | None], epochs: list[float | None], *, optional: int) -> bool:
    """Whether bars can be the steps of rows: all there, rising evenly, and in proportion to the epochs."""
    known = [step for step in steps if step is not None]
    # One bar alone says nothing of a second record: it may be long out of date.
    if len(known) < min(len(steps), 2) or any(step is None and place != optional for place, step in enumerate(steps)):
        return False
    gaps = [later - earlier for earlier, later in pairwise(known)]
    if known[0] < 1 or any(gap < 1 for gap in gaps) or len(set(gaps[1:])) > 1:
        return False
    lowest, highest = 0.0, float("inf")
    half = 0.5 * 10 ** -max(2, *(len(repr(epoch).partition(".")[2]) for epoch in epochs), 0)
    for step, epoch in zip(steps, epochs, strict=True):
        if step is not None and epoch is not None and 0 < epoch < float("inf"):
            lowest = max(lowest, step / (epoch + half))
            highest = min(highest, step / (epoch - half) if epoch > half else highest)
    return lowest <= highest * (1 + 1e-9)


def _is_even(steps: list[int]) -> bool:
    """Whether every step is a multiple of the spacing, as those of a logger are."""
    gap = steps[-1] - steps[-2] if len(steps) > 1 else 1
    return all(step % gap == 0 for step in steps)
