"""Where a run keeps what it knows.

::

    run.json       the manifest: recipe, versions, device, seeds, fingerprints
    steps.jsonl    one StepRecord a line
    events.jsonl   evaluations, checkpoints, skipped steps, how it ended
    checkpoints/   step-00000100/ …
    captures/      step-00000120.safetensors …, snapshots to run a step again from
    adapter/       the result, a plain PEFT adapter
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinmaek.core.codec import dump_line, plain
from jinmaek.core.errors import RunError, StorageError


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """The paths of one run and the writing of its small files."""

    path: Path

    @classmethod
    def create(cls, path: Path) -> RunDirectory:
        """A new run directory.

        Raises:
            RunError: there is already a run.
            StorageError: it cannot be written.
        """
        cls.check_free(path)
        with storage(path):
            path.mkdir(parents=True, exist_ok=True)
        return cls(path)

    @staticmethod
    def check_free(path: Path) -> None:
        """Refuse a path that holds a run.

        Raises:
            RunError: there is already a run.
        """
        if (path / "run.json").exists():
            raise RunError("run.exists", path=path)

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """The run directory that is already there.

        Raises:
            RunError: there is none.
        """
        if not (path / "run.json").is_file():
            raise RunError("run.not_found", path=path)
        return cls(path)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Within, no other process trains this run: two would write their steps among each other's.

        Raises:
            RunError: one does.
            StorageError: the folder cannot be written to.
        """
        with storage(self.path):
            file = (self.path / ".lock").open("w", encoding="utf-8")
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise RunError("run.busy", path=self.path) from error
            except OSError:  # a file system without locks
                pass
            yield

    def is_busy(self) -> bool:
        """Whether a process trains this run now."""
        try:
            with self.locked():
                return False
        except RunError:
            return True

    @property
    def steps_path(self) -> Path:
        """One StepRecord a line."""
        return self.path / "steps.jsonl"

    @property
    def events_path(self) -> Path:
        """Everything else that happened, a line each."""
        return self.path / "events.jsonl"

    @property
    def checkpoints_path(self) -> Path:
        """One folder a checkpoint."""
        return self.path / "checkpoints"

    @property
    def captures_path(self) -> Path:
        """Snapshots, and the verdicts that were reached from them."""
        return self.path / "captures"

    @property
    def adapter_path(self) -> Path:
        """The result."""
        return self.path / "adapter"

    def write_manifest(self, manifest: Mapping[str, Any]) -> None:
        """Write ``run.json``."""
        self.write_json(self.path / "run.json", manifest)

    def write_json(self, path: Path, facts: Mapping[str, Any]) -> None:
        """Write ``path`` in one piece: it is either the old one or the new one, never half of one."""
        text = json.dumps(plain(facts), ensure_ascii=False, allow_nan=False, indent=2)
        with storage(self.path):
            path.parent.mkdir(exist_ok=True)
            draft = path.with_name(f".{path.name}")
            draft.write_text(text + "\n", encoding="utf-8")
            draft.replace(path)

    def read_manifest(self) -> dict[str, Any]:
        """What :meth:`write_manifest` wrote.

        Raises:
            RunError: it is no JSON.
        """
        try:
            manifest: dict[str, Any] = json.loads((self.path / "run.json").read_text("utf-8"))
        except (OSError, ValueError) as error:
            raise RunError("run.unreadable", path=self.path / "run.json", error=error) from error
        return manifest

    def append_event(self, kind: str, **facts: Any) -> None:
        """Append one line to ``events.jsonl``."""
        with storage(self.path), self.events_path.open("a", encoding="utf-8") as file:
            mend_torn_line(self.events_path)
            file.write(dump_line({"event": kind, **facts}) + "\n")

    def read_events(self, kind: str | None = None) -> list[dict[str, Any]]:
        """The events so far, oldest first; a torn last line is left out."""
        events = list(read_lines(self.events_path))
        return [event for event in events if kind in (None, event["event"])]


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a file that may still be written to: a torn last line is left out."""
    if not path.exists():
        return
    # Bytes: the torn line may end within a Korean letter.
    with path.open("rb") as file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            yield json.loads(line)


def mend_torn_line(path: Path) -> None:
    """Cut off a last line that a killed process left without its end."""
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("rb+") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) == b"\n":
            return
        whole = path.read_bytes()
        file.truncate(whole.rfind(b"\n") + 1)


@contextmanager
def storage(path: Path) -> Iterator[None]:
    """Turn an operating-system error of writing into a StorageError that says what to do."""
    try:
        yield
    except OSError as error:
        key = "storage.full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "storage.failed"
        raise StorageError(key, path=path, error=error) from error
