"""Trials as processes of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from jinmaek.lab.sweep_directory import SweepDirectory


class Engine(Protocol):
    """Runs trials somewhere; all of them see the sweep's folder."""

    @property
    def slots(self) -> int:
        """So many trials can run at the same time."""
        ...

    def start(self, directory: SweepDirectory, trial: int) -> None:
        """Start a trial."""
        ...

    def ended(self) -> dict[int, int]:
        """Trials that ended since this was asked last, with the exit code of their process."""
        ...

    def kill(self) -> None:
        """End all that still run, at once."""
        ...

    def close(self) -> None:
        """Nothing more will be started."""
        ...


class LocalEngine:
    """One process a trial; ``slots`` may be lowered while they run.

    ``threads``: of each process on the CPU, ``None``: torch's own choice.
    """

    def __init__(self, slots: int, threads: int | None) -> None:
        self.slots = slots
        self._threads = threads
        self._running: dict[int, subprocess.Popen[bytes]] = {}

    def start(self, directory: SweepDirectory, trial: int) -> None:
        """Start a trial in a session of its own: Ctrl-C on the terminal reaches only the sweep, which tells it."""
        self._running[trial] = start_process(directory, trial, self._threads)

    def ended(self) -> dict[int, int]:
        """Trials that ended, with their exit codes."""
        codes = {trial: process.poll() for trial, process in self._running.items()}
        done = {trial: code for trial, code in codes.items() if code is not None}
        for trial in done:
            del self._running[trial]
        return done

    def kill(self) -> None:
        """SIGKILL, and wait."""
        for process in self._running.values():
            with suppress(ProcessLookupError):
                process.kill()
            process.wait()
        self._running.clear()

    def close(self) -> None:
        """Nothing to give back."""


def start_process(
    directory: SweepDirectory, trial: int, threads: int | None, folder: str | None = None
) -> subprocess.Popen[bytes]:
    """The process of a trial, run in ``folder`` (default: here); what it prints goes to the trial's log."""
    return start_module(
        "jinmaek.lab.trial", [str(directory.path), str(trial)], directory.log_path(trial), threads, folder
    )


def start_module(
    module: str, arguments: list[str], log: Path, threads: int | None, folder: str | None = None
) -> subprocess.Popen[bytes]:
    """``python -m module`` in a session of its own, its output appended to ``log``."""
    environment = dict(os.environ) | {"PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false"}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
