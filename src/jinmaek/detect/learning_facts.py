"""What a run's records say of how it learns, beside its loss: counted in bounded memory."""

from __future__ import annotations

from math import isfinite

from jinmaek.core.record import RunFacts, StepRecord
from jinmaek.detect.curve import Curve
from jinmaek.detect.noise_scale import NoiseScaleMeter
from jinmaek.detect.odometer import Reading


class LearningFacts:
    """Takes every record.

    Attributes:
        num_judged, num_skipped: steps of which it is known whether they were applied, and those that were not.
        num_clippable, num_clipped: gradients whose clipping is known, and those that were shortened.
        clip_sum: sum of the factors.
        ratios: largest |Δw|/lr of each step.
        lrs: learning rates.
        num_examples: examples seen, with repeats; ``None`` where the log names none.
        noise: the gradient's noise scale.
    """

    def __init__(self, facts: RunFacts) -> None:
        self._facts = facts
        self.num_judged = self.num_skipped = 0
        self.num_clippable = self.num_clipped = 0
        self.clip_sum = 0.0
        self.ratios = Curve()
        self.lrs = Curve()
        self.num_examples = self.num_loss_tokens = self.num_steps = 0
        self.noise = NoiseScaleMeter()

    def add(self, record: StepRecord, reading: Reading | None) -> None:
        """Take a record, with what the lr tells of it."""
        self.num_steps += record.num_steps
        if record.optimizer_stepped is not None:
            self.num_judged += 1
            self.num_skipped += not record.optimizer_stepped
        elif reading is not None and reading.applied is not None:
            self.num_judged += reading.num_steps
            self.num_skipped += reading.skipped
        self._add_clipping(record)
        if record.update_ratio is not None and isfinite(record.update_ratio):
            self.ratios.add(record.step, record.update_ratio)
        if record.lr is not None and isfinite(record.lr):
            self.lrs.add(record.step, record.lr)
        if record.example_ids is not None:
            self.num_examples += len(record.example_ids)
        self.num_loss_tokens += record.num_loss_tokens or 0
        if record.first_grad_norm is not None:
            self.noise.add(record)

    def _add_clipping(self, record: StepRecord) -> None:
        ratio, grad = record.clip_ratio, record.grad_norm
        if ratio is None and self._facts.max_grad_norm and grad:
            ratio = min(1.0, self._facts.max_grad_norm / grad)
        if ratio is not None and isfinite(ratio):
            self.num_clippable += 1
            self.num_clipped += ratio < 1
            self.clip_sum += ratio
