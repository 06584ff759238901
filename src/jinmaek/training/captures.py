"""Snapshots while training: a short ring of states on disk, from which any recent step can be run again.

A snapshot is copied behind the step's kernels and written by a thread of its own; the training does not wait.
One snapshot at most is in flight (bounding the host's memory), ``keep`` lie in the ring and ``keep_found`` more
are kept for good where a rule found something (bounding the disk). ``docs/captures.md`` tells the format.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch

from jinmaek.config.recipe import CaptureSection
from jinmaek.training.capture_file import ENDING, list_captures, step_of, write_capture
from jinmaek.training.state import StateCopy, state_of
from jinmaek.training.step import Training

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
        try:
            snapshot = StateCopy(state_of(training, step))
        except torch.OutOfMemoryError as error:
            self._fail(error)
            return
        self._writing = self._writer.submit(self._write, snapshot, step)

    def keep_before(self, step: int) -> list[int]:
        """Keep the snapshots just before ``step`` for good, where there is room; the steps of those kept."""
        self._settle(wait=True)
        kept, ring = list_captures(self._folder / KEPT), list_captures(self._folder)
        # A run that was resumed may have taken one again that is kept already.
        found = {step_of(path): path for path in [*ring, *kept] if step_of(path) < step}
        before = [found[each] for each in sorted(found)[-NEIGHBOURS:]]
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
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self._broken = True
        self._tell("capture_failed", error=(str(error).strip() or type(error).__name__).splitlines()[0])

    def _write(self, snapshot: StateCopy, step: int) -> None:
        write_capture(self._folder / f"step-{step:08d}{ENDING}", snapshot)
        for old in list_captures(self._folder)[: -self._section.keep]:
            old.unlink()
