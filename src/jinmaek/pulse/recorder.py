"""Everything a run tells goes through here: to disk first, then to the guard, then to whoever watches."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from jinmaek.core.codec import plain
from jinmaek.core.finding import Finding
from jinmaek.core.record import Remark, StepRecord
from jinmaek.pulse.alarms import Alarms
from jinmaek.pulse.listener import RunListener
from jinmaek.pulse.result import SkippedStreak
from jinmaek.store import RunDirectory, StepWriter
from jinmaek.training.captures import Captures
from jinmaek.training.evaluate import Evaluation
from jinmaek.training.loop import StopReason

Cause = Literal["loss", "gradient", "no_loss_tokens"]


def skip_cause(record: StepRecord) -> Cause:
    """Why a step without update had none, as far as its record shows."""
    if record.loss is None:
        return "no_loss_tokens"
    return "gradient" if math.isfinite(record.loss) else "loss"


class SkipGuard:
    """Counts steps in a row without an update; ``limit`` of them are a reason to stop."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._row: list[StepRecord] = []

    def observe(self, record: StepRecord) -> None:
        """Take note of a step."""
        if record.optimizer_stepped:
            self._row.clear()
        else:
            self._row.append(record)

    @property
    def streak(self) -> SkippedStreak | None:
        """The row of skipped steps up to now, if the last step was one."""
        if not self._row:
            return None
        causes = {skip_cause(record) for record in self._row}
        return SkippedStreak(
            first_step=self._row[0].step,
            last_step=self._row[-1].step,
            cause=causes.pop() if len(causes) == 1 else "mixed",
            loss_scale=self._row[-1].loss_scale,
        )

    @property
    def tripped(self) -> bool:
        """Whether the limit is reached."""
        return len(self._row) >= self.limit


class Recorder:
    """The loop's listener: writes, guards, sums up, and passes everything on."""

    def __init__(
        self,
        directory: RunDirectory,
        *,
        writer: StepWriter,
        guard: SkipGuard,
        alarms: Alarms,
        captures: Captures,
        listener: RunListener,
        interrupted: Callable[[], bool],
    ) -> None:
        self._directory = directory
        self._writer = writer
        self._captures = captures
        self._listener = listener
        self._interrupted = interrupted
        self.guard = guard
        self.alarms = alarms
        self.num_tokens = 0
        self.seconds = 0.0

    def on_phase(self, phase: str) -> None:
        """Pass it on."""
        self._listener.on_phase(phase)

    def on_step(self, record: StepRecord) -> None:
        """Write the step, then judge it."""
        self._writer.append(record)
        self.guard.observe(record)
        self.num_tokens += record.num_tokens or 0
        self.seconds += record.seconds or 0.0
        if not record.optimizer_stepped:
            self._directory.append_event(
                "skipped_step",
                step=record.step,
                cause=skip_cause(record),
                loss=record.loss,
                grad_norm=record.grad_norm,
                loss_scale=record.loss_scale,
            )
        self._listener.on_step(record)
        self._tell(self.alarms.observe(record))

    def on_evaluation(self, step: int, evaluation: Evaluation) -> None:
        """Write the held-out loss."""
        self._directory.append_event(
            "evaluation",
            step=step,
            loss=evaluation.loss,
            num_loss_tokens=evaluation.num_loss_tokens,
            num_examples=evaluation.num_examples,
            prompt_loss=evaluation.prompt_loss,
            answer_loss=evaluation.answer_loss,
            example_losses=evaluation.example_losses,
        )
        self._listener.on_evaluation(step, evaluation)
        self._tell(self.alarms.observe(evaluation.record(step)))

    def on_checkpoint(self, step: int, path: Path) -> None:
        """Note the checkpoint."""
        name = path.relative_to(self._directory.path).as_posix()
        self._directory.append_event("checkpoint", step=step, path=name)
        self._listener.on_checkpoint(step, path)
        self._tell(self.alarms.observe(Remark(kind="checkpoint", step=step, text=name)))

    def review(self) -> None:
        """Tell what only a look back over the whole run shows."""
        self._tell(self.alarms.review())

    def _tell(self, findings: list[Finding]) -> None:
        for finding in findings:
            self._directory.append_event(
                "finding",
                step=finding.last_step,
                id=finding.id,
                rule=finding.rule,
                severity=finding.severity,
                confidence=finding.confidence,
                first_step=finding.first_step,
                weights=finding.weights,
                evidence=plain(dict(finding.evidence)),
            )
            if kept := self._captures.keep_before(finding.first_step):
                self._directory.append_event("captures_kept", step=finding.last_step, captures=kept)
            self._listener.on_finding(finding)

    def stop_reason(self) -> StopReason | None:
        """A tripped guard, or somebody's Ctrl-C."""
        if self.guard.tripped:
            return "skipped_steps"
        return "interrupted" if self._interrupted() else self._listener.stop_reason()
