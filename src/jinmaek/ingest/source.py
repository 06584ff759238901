"""One run's log, whatever its format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import BinaryIO

from jinmaek.core.errors import LogError
from jinmaek.core.record import Item, RunFacts

Opener = Callable[[], BinaryIO]
"""Opens the bytes of a log; called once for each reading."""
Reader = Callable[["LogSource"], Iterator[Item]]
"""Yields a log's items and fills the source's ``facts`` and ``unread`` on the way."""


class LogSource:
    """One run that was found.

    Attributes:
        name: the file or folder it lies in; of several runs in one place, the part that tells them apart.
        facts: what the log says of the run; complete when :meth:`items` is exhausted.
        unread: lines that looked like records and could not be read.
    """

    def __init__(self, name: str, kind: str, read: Reader, *, once: bool = False) -> None:
        self.name = name
        self.facts = RunFacts(source=kind)
        self.unread = 0
        self._kind = kind
        self._read = read
        self._once = once
        self._started: Iterator[Item] | None = None
        self._first: Item | None = None

    def items(self) -> Iterator[Item]:
        """Steps, evaluations and remarks, in the order of their steps.

        A log that begins again at an earlier step (a resumed run appended to its old log) goes back with a
        ``resumed`` remark. A folder or a file can be read as often as one likes, standard input once.

        Raises:
            LogError: the log cannot be read any more.
        """
        if self._once:
            if self._started is None:
                raise LogError("ingest.read_twice")
            started, self._started = self._started, None
            if self._first is not None:
                yield self._first
            yield from started
            return
        yield from self._fresh()

    def probe(self) -> bool:
        """Whether it holds anything at all."""
        started = self._fresh()
        self._first = next(started, None)
        if self._once:
            self._started = started
        return self._first is not None

    def _fresh(self) -> Iterator[Item]:
        self.facts = RunFacts(source=self._kind)
        self.unread = 0
        try:
            yield from self._read(self)
        except OSError as error:
            raise LogError("ingest.unreadable", path=self.name, error=error.strerror or error) from error
