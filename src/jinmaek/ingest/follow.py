"""A run of another process, followed while it is written: new lines only, at each look."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jinmaek.core.record import Item, Remark, RunFacts, StepRecord
from jinmaek.ingest.jinmaek_run import event_of, item_of, note_manifest, record_of

MOST_AT_ONCE = 1 << 24  # bytes taken in at one look: a long run is read in several


class Tail:
    """The whole lines that a file has grown by since the last look."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self._open_line = b""
        self._file: tuple[int, int] | None = None  # device and inode

    def lines(self) -> tuple[list[bytes], bool]:
        """New lines, and whether the file was begun anew (replaced or shortened), so that they are its first."""
        try:
            with self._path.open("rb") as stream:
                facts = self._path.stat()
                known, self._file = self._file, (facts.st_dev, facts.st_ino)
                anew = known is not None and (known != self._file or facts.st_size < self._offset)
                if anew:
                    self._offset, self._open_line = 0, b""
                stream.seek(self._offset)
                block = stream.read(MOST_AT_ONCE)
        except OSError:
            return [], False  # not there yet, or gone: what was seen stays seen
        self._offset += len(block)
        *whole, self._open_line = (self._open_line + block).split(b"\n")
        return [line for line in whole if line.strip()], anew


class Follower:
    """What a run directory tells, as it tells it.

    A resumed run appends the steps after its checkpoint once more: a ``resumed`` remark comes before them. A torn last
    line is kept until it is whole.

    Attributes:
        facts: of the run, from ``run.json``.
        manifest: ``run.json``; empty until it is there.
        end: the last ``end`` event; ``None`` while the run goes on (again).
        num_findings: ``finding`` events so far, and
        num_verdicts: ``verdict`` events.
        last_step: of the last record; 0 before the first.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.facts = RunFacts(source="jinmaek", filters_loss=False, logging_steps=1)
        self.manifest: Mapping[str, Any] = {}
        self.end: Mapping[str, Any] | None = None
        self.num_findings = 0
        self.num_verdicts = 0
        self.last_step = 0
        self._steps = Tail(path / "steps.jsonl")
        self._events = Tail(path / "events.jsonl")

    def poll(self) -> Iterator[Item]:
        """Everything new, steps before what stands beside them."""
        if not self.manifest:
            self.read_manifest()
        lines, anew = self._steps.lines()
        if anew:
            yield from self._gone_back(0)
        for line in lines:
            record = record_of(line)
            if record is not None:
                yield from self._step(record)
        for line in self._events.lines()[0]:
            event = event_of(line)
            if event is not None:
                yield from self._event(event)

    def _step(self, record: StepRecord) -> Iterator[Item]:
        if record.step <= self.last_step:
            yield from self._gone_back(record.step - 1)
        self.last_step = record.step
        yield record

    def _gone_back(self, step: int) -> Iterator[Item]:
        self.last_step = step
        yield Remark(kind="resumed", step=step)

    def _event(self, event: Mapping[str, Any]) -> Iterator[Item]:
        kind = event.get("event")
        if kind == "end":
            self.end = event
        elif kind == "resumed":
            self.end = None
            return  # that steps go back says it, where they do
        elif kind == "verdict":
            self.num_verdicts += 1
        elif kind == "finding":
            self.num_findings += 1
        item = item_of(event)
        if item is not None:
            yield item

    def read_manifest(self) -> None:
        """Read ``run.json``, if it is there."""
        try:
            manifest = json.loads((self.path / "run.json").read_bytes())
        except (OSError, ValueError, RecursionError):
            return
        if isinstance(manifest, dict):
            self.manifest = manifest
            note_manifest(manifest, self.facts)
