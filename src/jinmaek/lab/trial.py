"""One trial as a process of its own: ``python -m jinmaek.lab.trial SWEEP NUMBER``.

A crash or an exhausted memory hurts nobody else. It trains, or goes on from the last checkpoint, and writes its
outcome. It stops as after Ctrl-C when the sweep's stop file appears, when it gets SIGINT, or when the process that
started it is gone.
"""

from __future__ import annotations

import math
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import fmean, median
from types import FrameType
from typing import Any

import torch

from jinmaek.config import recipe_from_dict
from jinmaek.core.codec import number
from jinmaek.core.errors import JinmaekError, ModelError, RunError
from jinmaek.core.record import StepRecord
from jinmaek.lab.outcome import Outcome, Status, encode_outcome
from jinmaek.lab.sweep_directory import SweepDirectory, write_json
from jinmaek.pulse import RunResult, resume, train
from jinmaek.store import RunDirectory, read_steps

SAVE_SECONDS = 60.0
LOOK_SECONDS = 0.3  # between looks at the stop file
_TAIL_SHARE, _TAIL_LEAST = 0.1, 5


class StopAsked:
    """Asked before each step: whether somebody wants this process to save and end."""

    def __init__(self, stop_path: Path) -> None:
        self._stop_path = stop_path
        self._parent = os.getppid()
        self._looked = 0.0
        self._asked = False
        signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def __call__(self) -> bool:
        """Look, now and then."""
        now = time.monotonic()
        if not self._asked and now - self._looked >= LOOK_SECONDS:
            self._looked = now
            self._asked = self._stop_path.exists() or os.getppid() != self._parent
        return self._asked


def run_trial(sweep: Path, trial: int) -> Outcome:
    """Run or go on with the trial of this number; the outcome is on disk when this returns."""
    directory = SweepDirectory(sweep)
    before = directory.outcome(trial)
    started = time.perf_counter()
    try:
        outcome = _trained(directory, trial)
    except torch.OutOfMemoryError as error:
        outcome = _failed(ModelError("cli.out_of_memory", error=str(error).splitlines()[0]))
    except JinmaekError as error:
        outcome = _failed(error)
    except Exception as error:  # noqa: BLE001 (whatever it is, the other trials go on)
        traceback.print_exc()
        outcome = _failed(RunError("lab.trial_crashed", error=_last_line(error), log=directory.log_path(trial)))
    seconds = time.perf_counter() - started + (before.seconds if before is not None else 0.0)
    peak, on_gpu = _peak_bytes()
    outcome = replace(outcome, seconds=seconds, peak_bytes=peak, on_gpu=on_gpu)
    write_json(directory.outcome_path(trial), encode_outcome(outcome))
    return outcome


def _trained(directory: SweepDirectory, trial: int) -> Outcome:
    run = directory.run_path(trial)
    interrupted = StopAsked(directory.stop_path)
    if not (run / "run.json").exists():
        planned = directory.read_plan()["trials"][trial - 1]
        return _outcome_of(train(recipe_from_dict(planned["recipe"]), run_dir=run, interrupted=interrupted))
    _wait_until_free(RunDirectory(run))
    ends = RunDirectory(run).read_events("end")
    if ends and ends[-1]["end"] == "completed":  # killed between the run's end and its outcome
        return outcome_of(run, ends[-1])
    return _outcome_of(resume(run, interrupted=interrupted))


def _wait_until_free(run: RunDirectory) -> None:
    """The trial of a sweep that was killed saves and ends by itself, which takes a moment."""
    until = time.monotonic() + SAVE_SECONDS
    while run.is_busy() and time.monotonic() < until:
        time.sleep(LOOK_SECONDS)


def _outcome_of(result: RunResult) -> Outcome:
    outcome = outcome_of(result.path, result.as_dict())
    if outcome.status in ("completed", "interrupted"):
        return outcome
    return replace(outcome, error={"en": result.sentence("en"), "ko": result.sentence("ko")})


def outcome_of(run: Path, end: Mapping[str, Any]) -> Outcome:
    """What the run in ``run`` came to, all its attempts together; ``end`` is its last end event."""
    directory = RunDirectory(run)
    before, after = number(end["held_out_before"]), number(end["held_out_after"])
    records = read_steps(directory.steps_path)
    evaluations = directory.read_events("evaluation")
    timed = [record for record in records if record.step > 1 and record.seconds] or records
    seconds = [record.seconds or 0.0 for record in timed]
    tokens = sum(record.num_tokens or 0 for record in timed)
    return Outcome(
        status=_status(end["end"], before, after),
        steps=end["num_steps"],
        max_steps=end["max_steps"],
        skipped_steps=sum(record.optimizer_stepped is False for record in records),
        held_out_before=before,
        held_out_after=after,
        held_out_tokens=evaluations[-1]["num_loss_tokens"] if evaluations else None,
        train_loss=_tail_loss(records),
        tokens_per_second=tokens / sum(seconds) if sum(seconds) else None,
        seconds_per_step=median(seconds) if seconds else None,
        causes=tuple(end.get("causes", ())),
    )


def _status(end: str, before: float | None, after: float | None) -> Status:
    if end == "interrupted":
        return "interrupted"
    if end != "completed":
        return "collapsed"
    return "completed" if all(loss is None or math.isfinite(loss) for loss in (before, after)) else "not_finite"


def _tail_loss(records: Sequence[StepRecord]) -> float | None:
    tail = records[-max(_TAIL_LEAST, round(len(records) * _TAIL_SHARE)) :]
    losses = [record.loss for record in tail if record.loss is not None]
    return fmean(losses) if losses else None


def _failed(error: JinmaekError) -> Outcome:
    return Outcome(status="failed", error={"en": error.render("en"), "ko": error.render("ko")})


def _last_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1] if lines else ''}"


def _peak_bytes() -> tuple[int, bool]:
    """Most memory held: the allocator's of the GPU, or the process's (Linux counts KiB, macOS bytes)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_reserved(), True
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024), False


def main(arguments: Sequence[str]) -> Any:
    """Run the trial that the command line names; the exit code is 0 whenever an outcome was written."""
    run_trial(Path(arguments[0]), int(arguments[1]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
