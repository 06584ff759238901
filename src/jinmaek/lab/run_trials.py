"""All trials of a sweep, one after the other or several at a time, until they are done or time is up."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from jinmaek.core.errors import Problem, RunError
from jinmaek.lab.design import Design, Trial
from jinmaek.lab.estimate import Estimate
from jinmaek.lab.memory import trials_that_fit
from jinmaek.lab.outcome import Outcome, encode_outcome
from jinmaek.lab.processes import Engine
from jinmaek.lab.progress import Progress, read_progress
from jinmaek.lab.sweep_directory import SweepDirectory, write_json

End = Literal["done", "budget", "interrupted"]
POLL_SECONDS = 0.1
_LOG_TAIL_BYTES = 4096


class SweepListener:
    """What running trials tells whoever watches. Every method does nothing here: override the ones you want."""

    def on_start(self, trial: Trial, *, resumed: bool, seconds: float | None) -> None:
        """A trial starts or goes on; ``seconds`` it is expected to take."""

    def on_end(self, trial: Trial, outcome: Outcome) -> None:
        """A trial is over."""

    def on_note(self, note: Problem) -> None:
        """Something worth saying, as a message."""

    def on_tick(self, running: dict[Trial, Progress], waiting: list[Trial], estimate: Estimate) -> None:
        """Some time has passed."""


@dataclass(slots=True)
class SweepRun:
    """Runs what is left of a sweep.

    Args:
        directory: the sweep's folder, locked.
        design: what to run.
        engine: where.
        listener: told of everything.
        interrupted: true once whoever runs the sweep wants it to stop: trials save and end.
        budget_seconds: no trial starts that is not expected to end within it, and what runs then saves and ends.
        measure_first: run the first trial alone and let as many run at a time as its memory allows.
    """

    directory: SweepDirectory
    design: Design
    engine: Engine
    listener: SweepListener
    interrupted: Callable[[], bool]
    budget_seconds: float | None = None
    measure_first: bool = False
    _running: dict[int, Trial] = field(default_factory=dict)
    _estimate: Estimate = field(init=False)
    _slots: int = 1
    _started: float = 0.0
    _stopping: End | None = None

    def run(self) -> tuple[End, dict[int, Outcome]]:
        """Run until the end; returns why it ended and every outcome there is, by number."""
        outcomes = self.directory.outcomes(len(self.design.trials))
        self._estimate = Estimate(self.design, outcomes)
        waiting = [trial for trial in self.design.trials if not _is_done(outcomes.get(trial.number))]
        self._started = time.monotonic()
        self._slots = 1 if self.measure_first else self.engine.slots
        try:
            self._loop(waiting, outcomes)
        except BaseException:  # a second Ctrl-C, or a full disk: nothing may go on alone
            self.engine.kill()
            raise
        self.directory.stop_path.unlink(missing_ok=True)
        if self._stopping is not None:
            return self._stopping, outcomes
        return ("budget" if waiting else "done"), outcomes

    def _loop(self, waiting: list[Trial], outcomes: dict[int, Outcome]) -> None:
        while True:
            if self._stopping is None:
                self._stop_if_asked()
            if self._stopping is None:
                self._start_next(waiting, outcomes)
            if not self._running:
                return
            time.sleep(POLL_SECONDS)
            for number, code in self.engine.ended().items():
                self._finish(self._running.pop(number), code, outcomes)
            running = {trial: read_progress(self.directory.run_path(trial.number)) for trial in self._running.values()}
            self.listener.on_tick(running, waiting, self._estimate)

    def _stop_if_asked(self) -> None:
        if self.interrupted():
            self._stopping = "interrupted"
        elif self.budget_seconds is not None and self._left() <= 0 and self._running:
            self._stopping = "budget"
            self.listener.on_note(Problem("lab.budget_over"))
        if self._stopping is not None:
            self.directory.stop_path.touch()

    def _left(self) -> float:
        assert self.budget_seconds is not None
        return self.budget_seconds - (time.monotonic() - self._started)

    def _start_next(self, waiting: list[Trial], outcomes: dict[int, Outcome]) -> None:
        """Start the next trials that there is room and time for; a long one does not keep a short one from running."""
        for trial in list(waiting):
            if len(self._running) >= self._slots:
                return
            if self.design.arms[trial.arm].recipe is None:
                waiting.remove(trial)
                self._refuse(trial, outcomes)
                continue
            progress = read_progress(self.directory.run_path(trial.number))
            seconds = self._estimate.seconds(trial, progress.step)
            if self.budget_seconds is not None and (seconds or 0.0) > self._left():
                continue
            waiting.remove(trial)
            self._running[trial.number] = trial
            self.engine.start(self.directory, trial.number)
            self.listener.on_start(trial, resumed=progress.step > 0, seconds=seconds)

    def _refuse(self, trial: Trial, outcomes: dict[int, Outcome]) -> None:
        refusal = self.design.arms[trial.arm].refusal
        assert refusal is not None
        outcome = Outcome(status="failed", error=refusal)
        self._keep(trial, outcome, outcomes)

    def _finish(self, trial: Trial, code: int, outcomes: dict[int, Outcome]) -> None:
        outcome = self.directory.outcome(trial.number)
        if code != 0 or outcome is None:  # it died before it could say anything
            outcome = self._death(trial, code)
        self._estimate.learn(trial, outcome)
        self._keep(trial, outcome, outcomes)
        if self.measure_first and (outcome.succeeded or (outcome.peak_bytes is not None and outcome.steps > 0)):
            self.measure_first = False
            self._slots, note = trials_that_fit(outcome, self.engine.slots)
            self.listener.on_note(note)

    def _keep(self, trial: Trial, outcome: Outcome, outcomes: dict[int, Outcome]) -> None:
        write_json(self.directory.outcome_path(trial.number), encode_outcome(outcome))
        outcomes[trial.number] = outcome
        self.listener.on_end(trial, outcome)

    def _death(self, trial: Trial, code: int) -> Outcome:
        log = self.directory.log_path(trial.number)
        if code == -9:
            error = RunError("lab.trial_killed", log=log)
        else:
            error = RunError("lab.trial_died", code=code, said=_last_line(self.directory, trial.number), log=log)
        return Outcome(status="failed", error={"en": error.render("en"), "ko": error.render("ko")})


def _is_done(outcome: Outcome | None) -> bool:
    return outcome is not None and outcome.is_final


def _last_line(directory: SweepDirectory, number: int) -> str:
    try:
        with directory.log_path(number).open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _LOG_TAIL_BYTES))
            lines = file.read().decode("utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
