"""The loop: step after step, evaluations and checkpoints between them, until the end or a reason to stop."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

from jinmaek.config.recipe import TrainSection
from jinmaek.core.record import StepRecord
from jinmaek.training.batches import Batch, BatchPlan
from jinmaek.training.captures import Captures
from jinmaek.training.checkpoint import save_checkpoint
from jinmaek.training.evaluate import Evaluation, evaluate
from jinmaek.training.examples import Example
from jinmaek.training.step import StepOutcome, Training, run_step

StopReason = Literal["interrupted", "skipped_steps"]


class Listener(Protocol):
    """Whoever watches a run. All methods are called from the training thread; none may touch the device."""

    def on_phase(self, phase: str) -> None:
        """Something other than a step begins (``reading_data``, ``loading_model``, ``evaluating`` …)."""

    def on_step(self, record: StepRecord) -> None:
        """A step is over; called for every step, in order."""

    def on_evaluation(self, step: int, evaluation: Evaluation) -> None:
        """The held-out loss after ``step`` steps."""

    def on_checkpoint(self, step: int, path: Path) -> None:
        """A checkpoint is whole on disk."""

    def stop_reason(self) -> StopReason | None:
        """Asked before each step: why not to run it."""


@dataclass(slots=True)
class Loop:
    """What the loop needs beside the training state."""

    training: Training
    plan: BatchPlan
    held_out: tuple[Example, ...]
    settings: TrainSection
    max_steps: int
    pad_id: int
    eval_tokens: int
    checkpoints: Path
    captures: Captures
    listener: Listener
    _untold: StepOutcome | None = field(default=None, init=False)
    _prepared: dict[int, list[Batch]] = field(default_factory=dict, init=False)

    def run(self, first_step: int = 1) -> tuple[int, StopReason | None]:
        """Run steps ``first_step`` … ``max_steps``; returns the last step tried and why it stopped early, if so.

        Whatever the end, the state is saved as a checkpoint first. A step is told while the next one is computed;
        a skipped one has no update to wait for and is told at once.
        """
        step, reason, saved = first_step - 1, None, first_step - 1
        if first_step == 1:
            self.evaluate(0)
        self.training.model.train()
        while step < self.max_steps and (reason := self.listener.stop_reason()) is None:
            step += 1
            batches = self._prepared.pop(step, None) or self.plan.batches(step)
            outcome = run_step(self.training, step, batches, partial(self._meanwhile, step))
            self._untold = outcome
            self.captures.after_step(self.training, step)
            if not outcome.finite or self._due(step):
                self._tell()
            if self._due(step):
                saved = self._between_steps(step, saved)
        self._tell()
        if saved < step:
            self.checkpoint(step)
        return step, reason

    def evaluate(self, step: int) -> Evaluation | None:
        """The held-out loss now, told to the listener; ``None`` without held-out examples."""
        if not self.held_out:
            return None
        self.listener.on_phase("evaluating")
        found = evaluate(self.training, self.held_out, max_tokens=self.eval_tokens, pad_id=self.pad_id)
        self.listener.on_evaluation(step, found)
        return found

    def checkpoint(self, step: int) -> None:
        """Save the state after ``step``."""
        path = save_checkpoint(self.training, self.checkpoints, step, self.settings.keep_checkpoints)
        self.listener.on_checkpoint(step, path)

    def _meanwhile(self, step: int) -> None:
        """What the host does while the device computes ``step``: tell the one before, prepare the one after."""
        self._tell()
        if step < self.max_steps:
            self._prepared[step + 1] = self.plan.batches(step + 1)

    def _tell(self) -> None:
        outcome, self._untold = self._untold, None
        if outcome is not None:
            self.listener.on_step(outcome.record())

    def _due(self, step: int) -> bool:
        every = (self.settings.eval_every, self.settings.checkpoint_every)
        return any(period and step % period == 0 for period in every)

    def _between_steps(self, step: int, saved: int) -> int:
        if self.settings.eval_every and step % self.settings.eval_every == 0 and step < self.max_steps:
            self.evaluate(step)
        if self.settings.checkpoint_every and step % self.settings.checkpoint_every == 0:
            self.checkpoint(step)
            return step
        return saved
