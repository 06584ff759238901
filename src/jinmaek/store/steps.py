"""``steps.jsonl``: appended as the run goes, readable after ``kill -9``."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from jinmaek.core.codec import decode_record, dump_line, encode_record
from jinmaek.core.record import StepRecord
from jinmaek.store.run_directory import mend_torn_line, read_lines, storage


class StepWriter:
    """Appends records; each line is flushed to the operating system, so a killed process loses none.

    Raises:
        StorageError: from any method, when the disk does not take it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with storage(path):
            mend_torn_line(path)
            self._file = path.open("a", encoding="utf-8")

    def append(self, record: StepRecord) -> None:
        """Write one line."""
        with storage(self._path):
            self._file.write(dump_line(encode_record(record)) + "\n")
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        with storage(self._path):
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_steps(path: Path) -> list[StepRecord]:
    """The run's steps in order.

    The file is append-only: a resumed run writes the steps after its checkpoint once more, and the later
    record of a step is the one that led to the result. It replaces the earlier one here.
    """
    records: dict[int, StepRecord] = {}
    for row in read_lines(path):
        record = decode_record(row)
        while records and next(reversed(records)) >= record.step:
            records.popitem()
        records[record.step] = record
    return list(records.values())
