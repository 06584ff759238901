"""What a person sees while it trains: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from jinmaek.core.finding import Finding
from jinmaek.core.record import StepRecord
from jinmaek.core.text import Lang, duration, say
from jinmaek.explain.telling import key_of, title_of
from jinmaek.pulse.listener import RunListener
from jinmaek.pulse.recorder import skip_cause
from jinmaek.pulse.result import RunResult
from jinmaek.training.evaluate import Evaluation
from jinmaek.training.session import Session

SMOOTHING = 20  # steps over which the shown speed is averaged


class TrainingView(RunListener):
    """Prints a run on ``console`` as it goes."""

    def __init__(self, console: Console, lang: Lang) -> None:
        self._console = console
        self._lang = lang
        self._max_steps = 0
        self._log_every = 1
        self._recent: list[StepRecord] = []
        self._skipped_in_a_row = 0
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID = self._bar.add_task(say("cli.starting", lang), total=None)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def on_phase(self, phase: str) -> None:
        """Name what is being waited for."""
        text = say(f"phase.{phase}", self._lang)
        self._bar.update(self._task, description=text)
        if not self._console.is_terminal and not self._recent:
            self._line(f"… {text}")

    def on_ready(self, session: Session, path: Path) -> None:
        """Say what will be trained on what."""
        self._max_steps = session.max_steps
        self._log_every = session.recipe.train.log_every
        self._bar.update(self._task, total=session.max_steps)
        self._say("cli.run", path=path)
        self._data(session)
        groups = ", ".join(f"{name} {size:,}" for name, size in session.groups.items())
        self._say("cli.trainable", num_weights=session.num_weights, groups=groups, device=session.training.device.type)
        for line in filter(None, (session.base_kept, session.kernels)):
            self._line(line.render(self._lang))

    def _data(self, session: Session) -> None:
        report = session.data.report
        facts = {name: getattr(report, name) for name in report.__dataclass_fields__}
        self._say("cli.data", **facts)
        for key, count in (
            ("cli.truncated", report.num_truncated),
            ("cli.dropped", report.num_without_answer),
            ("cli.composed", report.num_composed),
        ):
            if count:
                self._say(key, **facts)

    def on_step(self, record: StepRecord) -> None:
        """Move the bar; name a step without update at once."""
        self._recent = [*self._recent[1 - SMOOTHING :], record]
        self._skipped_in_a_row = 0 if record.optimizer_stepped else self._skipped_in_a_row + 1
        if not record.optimizer_stepped:
            self._say(skip_message(record), row=self._skipped_in_a_row, **_shown(record))
        text = self._progress_text(record)
        self._bar.update(self._task, description=text, completed=record.step)
        due = record.step % self._log_every == 0 or record.step in (1, self._max_steps)
        if not self._console.is_terminal and due:
            self._line(text)

    def _progress_text(self, record: StepRecord) -> str:
        # The first step warms up caches and kernels; a speed that includes it misleads.
        timed = [seen for seen in self._recent if seen.step > 1] or self._recent
        seconds = sum(seen.seconds or 0.0 for seen in timed)
        tokens = sum(seen.num_tokens or 0 for seen in timed)
        left = seconds / len(timed) * (self._max_steps - record.step)
        return say(
            "cli.progress",
            self._lang,
            step=record.step,
            max_steps=self._max_steps,
            loss="—" if record.loss is None else f"{record.loss:.4f}",
            lr=record.lr or 0.0,
            speed=f"{tokens / seconds:,.0f}" if seconds else "—",
            left=duration(left),
        )

    def on_evaluation(self, step: int, evaluation: Evaluation) -> None:
        """Print the held-out loss."""
        self._say("cli.evaluation", step=step, loss=evaluation.loss)

    def on_finding(self, finding: Finding) -> None:
        """Say at once what a rule found."""
        steps = {"first_step": finding.first_step, "last_step": finding.last_step}
        key = "cli.alarm_possible" if finding.confidence == "possible" else "cli.alarm"
        text = say(key_of(finding, "what"), self._lang, **steps)
        style = "bold red" if finding.severity == "error" else "yellow"
        self._line(say(key, self._lang, title=title_of(finding, self._lang), what=text, **steps), style=style)

    def summary(self, result: RunResult) -> None:
        """How it went, what the model says now, and where the adapter is."""
        for question, before, after in result.samples:
            if after is not None:
                self._say("cli.question", question=question)
                self._say("cli.before", answer=before)
                self._say("cli.after", answer=after)
        self._line(result.sentence(self._lang), style="bold" if result.end == "completed" else "bold red")
        if result.adapter is not None:
            self._say("cli.adapter", path=result.adapter)
            question = result.samples[0][0] if result.samples else "…"
            self._say("cli.try_it", path=result.path, question=question)
        if result.diagnosis is not None and result.diagnosis.causes:
            self._say("cli.look_closer", path=result.path)

    def _say(self, key: str, **params: object) -> None:
        self._line(say(key, self._lang, **params))

    def _line(self, text: str, style: str | None = None) -> None:
        self._console.print(text, style=style, markup=False, soft_wrap=True)


def skip_message(record: StepRecord) -> str:
    """Which sentence tells why this step had no update."""
    cause = skip_cause(record)
    if cause == "gradient" and record.loss_scale is not None:
        return "step.skipped_scale"
    return f"step.skipped_{cause}"


def _shown(record: StepRecord) -> dict[str, object]:
    facts = ("step", "loss", "grad_norm", "lr", "loss_scale")
    return {name: getattr(record, name) for name in facts}
