"""What the rules look at: the run so far, summed up in bounded memory, updated once for each record."""

from __future__ import annotations

from math import inf, isfinite
from typing import Literal

from jinmaek.core.record import EvaluationRecord, Remark, RunFacts, StepRecord
from jinmaek.detect.curve import Curve
from jinmaek.detect.episodes import Episodes
from jinmaek.detect.epochs import Epochs
from jinmaek.detect.learning_facts import LearningFacts
from jinmaek.detect.level import ENOUGH, SIZE, Level
from jinmaek.detect.odometer import Odometer, Reading
from jinmaek.detect.steps import Numbering

HEAD = 4096  # first values kept exactly
MAX_EVALUATIONS = 4096
MAX_REMARKS = 1024

LossState = Literal["absent", "finite", "zero", "non_finite"]


class Trace:
    """The run so far.

    Attributes:
        value: the record's loss: the raw one where there is one, else the reported one.
        width: steps that the record sums up; 0 where the log does not say.
        loss_state: ``zero`` means exactly 0.0 where the level before was not near 0.
        fault: whether this record shows a numeric fault (see :class:`Episodes`).
        level: of the healthy losses; ``grad_level``: of the healthy gradient norms.
        seen: names of the fields that some record had.
    """

    def __init__(self, facts: RunFacts, numbering: Numbering | None = None) -> None:
        self.facts = facts
        self._numbering = numbering
        self.record = StepRecord(step=0)
        self.reading: Reading | None = None
        self.value: float | None = None
        self.loss_state: LossState = "absent"
        self.fault = False
        self.num_records = 0
        self.width = 1
        self.epoch: float | None = None  # printed, or reckoned from the steps of an epoch
        self.first_step = 0
        self.seen: set[str] = set()
        self.level = Level()
        self.grad_level = Level()
        # These write every digit; a printed log is known by its digits.
        self.odometer = Odometer(exact=numbering is not None or facts.source in ("trainer_state", "jinmaek"))
        self.curve = Curve()  # healthy losses
        self.faults = Curve()  # losses as printed by faulty records, for the picture
        self.grads = Curve()
        self.head: list[tuple[int, float]] = []
        self.epochs = Epochs()
        self.learning = LearningFacts(facts)
        self.episodes = Episodes()
        self.evaluations: list[EvaluationRecord] = []
        self.remarks: list[Remark] = []
        self.num_remarks: dict[str, int] = {}
        self.first_value: float | None = None
        self.head_accuracy: float | None = None  # of the first record that prints one
        self.lowest = inf  # lowest running median of the loss
        self.lowest_step = 0
        self._high_row = 0  # losses in a row that stand out

    def add(self, record: StepRecord) -> None:
        """Take in a training record; rules look at the trace after it."""
        if not self.num_records:
            self.first_step = record.step
        self.num_records += 1
        self.record = record
        # 0: the log prints no steps, so nobody knows how many a line stands for.
        steps = record.num_steps if record.num_steps > 1 else 1
        self.width = steps if self.facts.steps_known or self._numbering is not None else 0
        per_epoch = self.facts.steps_per_epoch
        self.epoch = record.epoch if record.epoch is not None or not per_epoch else record.step / per_epoch
        self._read_loss(record)
        self._read_lr(record)
        self.learning.add(record, self.reading)
        self._note_fields(record)
        self.fault = self.episodes.add(self)
        self._learn(record)

    def add_evaluation(self, evaluation: EvaluationRecord) -> None:
        """Take in a held-out loss."""
        self.seen.add("evaluations")
        if len(self.evaluations) < MAX_EVALUATIONS:
            self.evaluations.append(evaluation)
        self.episodes.add_evaluation(evaluation)

    def add_remark(self, remark: Remark) -> None:
        """Take in something that was said."""
        self.num_remarks[remark.kind] = self.num_remarks.get(remark.kind, 0) + 1
        if len(self.remarks) < MAX_REMARKS or remark.kind == "checkpoint":
            self.remarks.append(remark)

    @property
    def numbering(self) -> Numbering | None:
        """The linear schedule behind the lr column, where it is one."""
        if self._numbering is None and self.facts.max_steps and self.facts.steps_known:
            self._numbering = self.odometer.linear_schedule(self.facts.schedule_steps or self.facts.max_steps)
        return self._numbering

    def series(self) -> list[tuple[int, float | None]]:
        """The loss as printed, in order, for a picture; ``None`` where it was not finite."""
        points = [*self.curve.closed(), *self.faults.closed()]
        return sorted(((point.step, point.mean) for point in points), key=lambda point: point[0])

    def said(self, kind: str) -> int:
        """How often something was said."""
        return self.num_remarks.get(kind, 0)

    def _read_loss(self, record: StepRecord) -> None:
        value = record.loss if record.loss is not None else record.loss_reported
        self.value = value
        if value is None:
            self.loss_state = "absent"
        elif not isfinite(value):
            self.loss_state = "non_finite"
        elif value == 0.0 and not self._near_zero():
            self.loss_state = "zero"
        else:
            self.loss_state = "finite"

    def _near_zero(self) -> bool:
        """A loss that came down to hundredths may print as 0.0 honestly."""
        return self.level.count >= 3 and self.level.median < 0.02

    def _read_lr(self, record: StepRecord) -> None:
        if record.lr is None or not isfinite(record.lr):
            self.reading = None
            return
        self.reading = self.odometer.read(record.step, record.lr, self.width or max(1, record.num_steps))

    def _note_fields(self, record: StepRecord) -> None:
        if self.num_records > HEAD and self.num_records % 64:
            return
        for name in _FIELDS:
            if name not in self.seen and getattr(record, name) is not None:
                self.seen.add(name)
        if self.value is not None:
            self.seen.add("loss")
        if self.epoch is not None:
            self.seen.add("epoch")
        if self.head_accuracy is None:
            self.head_accuracy = record.token_accuracy

    def _learn(self, record: StepRecord) -> None:
        value, grad = self.value, record.grad_norm
        if self.fault:
            if value is not None:
                self.faults.add(record.step, value)
            return
        # Of a long per-step run every eighth value is enough for a level.
        thinned = self.num_records > HEAD and self.num_records & 7
        if value is not None and self.loss_state == "finite":
            self._learn_loss(record, value, thinned=bool(thinned))
        if grad is not None and not thinned and isfinite(grad):
            self.grads.add(record.step, grad)
            level = self.grad_level
            if level.count < ENOUGH or grad < 3 * level.median + 12 * level.noise:
                level.add(grad)

    def _learn_loss(self, record: StepRecord, value: float, *, thinned: bool) -> None:
        if self.first_value is None:
            self.first_value = value
        if len(self.head) < HEAD:
            self.head.append((record.step, value))
        self.curve.add(record.step, value)
        level = self.level
        if value > level.high:
            self._high_row += 1
            if self._high_row <= SIZE:
                return  # flagged: it does not join its own baseline, until it has become the ordinary
        else:
            self._high_row = 0
        if thinned:
            return
        if self.epoch is not None:
            self.epochs.add(record.step, self.epoch, value)
        level.add(value)
        if level.median < self.lowest and level.count >= 3:
            self.lowest, self.lowest_step = level.median, record.step


_FIELDS = (
    "loss_reported", "grad_norm", "clip_ratio", "lr", "num_tokens", "num_loss_tokens", "optimizer_stepped",
    "loss_scale", "update_ratio", "example_ids", "groups", "epoch", "token_accuracy",
)  # fmt: skip
