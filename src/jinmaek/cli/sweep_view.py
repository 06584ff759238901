"""What a person sees while a sweep runs: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from jinmaek.core.errors import Problem
from jinmaek.core.text import Lang, duration, say
from jinmaek.lab.design import Design, Trial
from jinmaek.lab.estimate import Estimate
from jinmaek.lab.outcome import Outcome
from jinmaek.lab.progress import Progress
from jinmaek.lab.run_trials import SweepListener
from jinmaek.lab.table import why_failed

LINE_SECONDS = 30.0  # between lines where there is no terminal


class SweepView(SweepListener):
    """Prints a sweep on ``console`` as it goes."""

    def __init__(self, console: Console, design: Design, done: int, lang: Lang) -> None:
        self._console, self._design, self._lang = console, design, lang
        self._total, self._done = len(design.trials), done
        self._first_seen: dict[int, tuple[float, int]] = {}
        self._last_line = time.monotonic()
        self._bar = Bar(
            SpinnerColumn(),
            BarColumn(bar_width=16),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),  # last: a narrow terminal cuts only its end
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(say("cli.starting", lang), total=self._total, completed=done)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def on_start(self, trial: Trial, *, resumed: bool, seconds: float | None) -> None:
        """Name the trial, and how long it will take where that is known."""
        key = "lab.trial_resumes" if resumed else "lab.trial_starts"
        text = say(key, self._lang, **self._named(trial))
        self._line(text if seconds is None else f"{text}  ({say('lab.about', self._lang, time=duration(seconds))})")

    def on_end(self, trial: Trial, outcome: Outcome) -> None:
        """Say what it came to."""
        self._first_seen.pop(trial.number, None)
        if outcome.status == "interrupted":
            self._line(say("lab.trial_saved", self._lang, step=outcome.steps, **self._named(trial)))
            return
        self._done += 1
        if not outcome.succeeded:
            why = why_failed(outcome, self._lang)
            self._line(say("lab.trial_failed", self._lang, why=why, **self._named(trial)), style="bold red")
            return
        key = "lab.trial_held_out" if outcome.held_out_tokens else "lab.trial_train_loss"
        facts = {"loss": outcome.loss, "time": duration(outcome.seconds)}
        self._line(say(key, self._lang, **facts, **self._named(trial)))

    def on_note(self, note: Problem) -> None:
        """Say it."""
        self._line(note.render(self._lang))

    def on_tick(self, running: dict[Trial, Progress], waiting: list[Trial], estimate: Estimate) -> None:
        """Move the bar: where the running trials are, and the time left of the whole."""
        now = time.monotonic()
        places = [self._place(trial, progress, estimate, short=len(running) > 1) for trial, progress in running.items()]
        left = self._left(now, running, waiting, estimate)
        if left is not None:
            places.insert(0, say("lab.left", self._lang, time=duration(left)))
        text = " · ".join(places)
        part = sum(
            min(1.0, progress.step / steps) for trial, progress in running.items() if (steps := estimate.steps(trial))
        )
        self._bar.update(self._task, description=text, completed=self._done + part)
        if not self._console.is_terminal and running and now - self._last_line >= LINE_SECONDS:
            self._line(f"  {text}")

    def _place(self, trial: Trial, progress: Progress, estimate: Estimate, *, short: bool) -> str:
        loss = "—" if progress.loss is None else f"{progress.loss:.3f}"
        facts = {"step": progress.step, "steps": estimate.steps(trial) or "?", "loss": loss}
        return say("lab.place_short" if short else "lab.place", self._lang, **facts, **self._named(trial))

    def _left(
        self, now: float, running: dict[Trial, Progress], waiting: list[Trial], estimate: Estimate
    ) -> float | None:
        """Seconds until all is done: of the longest running trial, and of the waiting ones one after the other."""
        speeds = [speed for trial, progress in running.items() if (speed := self._speed(now, trial, progress))]
        total = 0.0
        for trial in waiting:
            seconds, steps = estimate.seconds(trial), estimate.steps(trial)
            if seconds is None:
                if steps is None or not speeds:
                    return None
                seconds = steps * max(speeds)
            total += seconds
        rest = [self._rest(now, trial, progress, estimate) for trial, progress in running.items()]
        if any(seconds is None for seconds in rest):
            return None
        return total / max(1, len(running)) + max((seconds or 0.0 for seconds in rest), default=0.0)

    def _rest(self, now: float, trial: Trial, progress: Progress, estimate: Estimate) -> float | None:
        steps, speed = estimate.steps(trial), self._speed(now, trial, progress)
        if steps is None or speed is None:
            return estimate.seconds(trial, progress.step)
        return max(0, steps - progress.step) * speed

    def _speed(self, now: float, trial: Trial, progress: Progress) -> float | None:
        """Seconds a step, from the first step that was seen."""
        first = self._first_seen.get(trial.number)
        if first is None:
            if progress.step > 0:
                self._first_seen[trial.number] = (now, progress.step)
            return None
        return (now - first[0]) / (progress.step - first[1]) if progress.step > first[1] else None

    def _named(self, trial: Trial) -> dict[str, object]:
        arm = self._design.arms[trial.arm].name
        return {"number": trial.number, "total": self._total, "arm": arm, "seed": trial.seed}

    def _line(self, text: str, style: str | None = None) -> None:
        self._last_line = time.monotonic()
        self._console.print(text, style=style, markup=False, soft_wrap=True)
