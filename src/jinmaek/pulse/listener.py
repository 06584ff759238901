"""The seam between a run and whoever watches it."""

from __future__ import annotations

from pathlib import Path

from jinmaek.core.finding import Finding
from jinmaek.core.record import StepRecord
from jinmaek.training.evaluate import Evaluation
from jinmaek.training.loop import StopReason
from jinmaek.training.session import Session


class RunListener:
    """What a run tells whoever watches it. Every method does nothing here: override the ones you want.

    All are called from the training thread; none may touch the device. A step is told while the next one is computed.
    """

    def on_phase(self, phase: str) -> None:
        """Something other than a step begins: reading_data, loading_model, evaluating, asking."""

    def on_ready(self, session: Session, path: Path) -> None:
        """Data and model are there; the first step comes next."""

    def on_step(self, record: StepRecord) -> None:
        """A step is over."""

    def on_evaluation(self, step: int, evaluation: Evaluation) -> None:
        """The held-out loss after ``step`` steps."""

    def on_checkpoint(self, step: int, path: Path) -> None:
        """A checkpoint is whole on disk."""

    def on_finding(self, finding: Finding) -> None:
        """A rule found something that is wrong, or became surer of it."""

    def on_sample(self, question: str, said: str, *, trained: bool) -> None:
        """The model was asked before or after training."""

    def stop_reason(self) -> StopReason | None:
        """Asked before each step: why not to run it; ``None`` to go on."""
        return None
