"""Followed runs, each read once however many browsers look on."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinmaek.ingest.follow import Follower
from jinmaek.report.page.columns import Columns
from jinmaek.report.page.embed import pack

LOOK_SECONDS = 1.0
MOST_KEPT = 32  # followed runs that are held in memory


@dataclass(slots=True)
class LiveRun:
    """One followed run.

    Attributes:
        columns: its numbers so far.
        looked: when its files were last looked at (monotonic).
    """

    follower: Follower
    columns: Columns = field(default_factory=Columns)
    looked: float = -LOOK_SECONDS
    _packed: dict[int, dict[str, Any]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def look(self) -> None:
        """Read what is new, if the last look is long enough ago."""
        with self._lock:
            now = time.monotonic()
            if now - self.looked < LOOK_SECONDS:
                return
            taken = 1
            while taken:  # a long run comes in several pieces
                taken = 0
                for item in self.follower.poll():
                    self.columns.observe(item)
                    taken += 1
                if taken:
                    self._packed.clear()
            self.looked = time.monotonic()

    def since(self, record: int) -> dict[str, Any]:
        """Layout and block of the records from ``record`` on; the same for every browser that asks."""
        with self._lock:
            if record not in self._packed:
                layout, block = pack(self.columns, record)
                self._packed[record] = {"layout": layout, "block": block}
            return self._packed[record]

    @property
    def num_records(self) -> int:
        """Records so far."""
        return len(self.columns.steps)

    @property
    def news(self) -> tuple[int, int, bool]:
        """Changes when something beside the steps happened: a finding, a verdict, the end."""
        return self.follower.num_findings, self.follower.num_verdicts, self.follower.end is not None


class LiveRuns:
    """The followed runs by their directory."""

    def __init__(self) -> None:
        self._runs: dict[Path, LiveRun] = {}
        self._lock = threading.Lock()

    def of(self, path: Path) -> LiveRun:
        """The run in ``path``; the one that nobody asked for the longest makes room."""
        with self._lock:
            run = self._runs.pop(path, None) or LiveRun(Follower(path))
            self._runs[path] = run
            while len(self._runs) > MOST_KEPT:
                del self._runs[next(iter(self._runs))]
            return run
