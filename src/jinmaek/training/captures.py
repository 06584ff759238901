"""Snapshots while training: a short ring of states on disk, from which any recent step can be run again.

A snapshot is copied behind the step's kernels and written by a thread of its own; the training does not wait.
One snapshot at most is in flight (bounding the host's memory), ``keep`` lie in the ring and ``keep_found`` more
are kept for good where a rule found something (bounding the disk). ``docs/captures.md`` tells the format.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch

from jinmaek.config.recipe import CaptureSection
from jinmaek.core.errors import RunError
from jinmaek.training.state import State, StateCopy, state_of, unpacked
from jinmaek.training.step import Training

FORMAT = 1
KEPT = "kept"
NEIGHBOURS = 2  # snapshots kept for a finding: the last one before it, and one more to see it grow from


class Captures:
    """The ring of one run. Everything but the writing happens on the training's thread.

    ``tell(event, **facts)`` is told what becomes of a snapshot that could not be taken or written: a full disk
    ends the capturing, never the training.
    """

    def __init__(self, folder: Path, section: CaptureSection, tell: Callable[..., None]) -> None:
        self._folder = folder
        self._section = section
        self._tell = tell
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="jinmaek-captures")
        self._writing: Future[None] | None = None
        self._broken = False

    def after_step(self, training: Training, step: int) -> None:
        """Take a snapshot if one is due."""
        if not self._section.every or step % self._section.every or self._broken:
            return
        if self._writing is not None and not self._writing.done():
            self._tell("capture_skipped", step=step)
            return
        self._settle()
        if self._broken:
            return
        snapshot = StateCopy(state_of(training, step))
        self._writing = self._writer.submit(self._write, snapshot, step)

    def keep_before(self, step: int) -> list[int]:
        """Keep the snapshots just before ``step`` for good, where there is room; the steps of those kept."""
        self._settle(wait=True)
        kept, ring = list_captures(self._folder / KEPT), list_captures(self._folder)
        before = sorted((path for path in [*kept, *ring] if step_of(path) < step), key=step_of)[-NEIGHBOURS:]
        room = self._section.keep_found - len(kept)
        chosen = [path for path in before if path in ring][-room:] if room > 0 else []
        for path in chosen:
            (self._folder / KEPT).mkdir(exist_ok=True)
            path.rename(self._folder / KEPT / path.name)
        return [step_of(path) for path in chosen]

    def forget_after(self, step: int) -> None:
        """Remove the ring's snapshots of steps that will be run again."""
        for path in list_captures(self._folder):
            if step_of(path) > step:
                path.unlink()

    def close(self) -> None:
        """Wait for the last snapshot to be written."""
        self._settle(wait=True)
        self._writer.shutdown()

    def _settle(self, *, wait: bool = False) -> None:
        """Take note of how the last writing went."""
        if self._writing is None or not (wait or self._writing.done()):
            return
        error = self._writing.exception()
        self._writing = None
        if error is not None:
            self._broken = True
            self._tell("capture_failed", error=str(error).splitlines()[0])

    def _write(self, snapshot: StateCopy, step: int) -> None:
        write_capture(self._folder / f"step-{step:08d}.pt", snapshot)
        for old in list_captures(self._folder)[: -self._section.keep]:
            old.unlink()


def write_capture(path: Path, snapshot: StateCopy) -> None:
    """Write ``snapshot`` to ``path``, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    torch.save({"format": FORMAT, **snapshot.packed()}, draft)
    draft.replace(path)


def read_capture(path: Path) -> State:
    """The state in ``path``, on the host.

    Raises:
        RunError: it cannot be read, or a later version of jinmaek wrote it.
    """
    try:
        packed: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, KeyError) as error:
        raise RunError("run.capture_unreadable", path=path, error=error) from error
    if packed.get("format") != FORMAT:
        raise RunError("run.capture_format", path=path, found=packed.get("format"), known=FORMAT)
    return unpacked(packed)


def list_captures(folder: Path) -> list[Path]:
    """Whole snapshots in ``folder``, oldest first."""
    return sorted(folder.glob("step-*.pt"))


def step_of(path: Path) -> int:
    """The step after which a snapshot was taken."""
    return int(path.stem.removeprefix("step-"))
