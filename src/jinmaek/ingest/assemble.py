"""Rows in, items out: numbers the steps, counts what a record sums up, joins rows of one step."""

from __future__ import annotations

import math
from collections.abc import Mapping

from jinmaek.core.record import EvaluationRecord, Item, Remark, RemarkKind, StepRecord
from jinmaek.ingest.names import Row
from jinmaek.ingest.numbers import to_count
from jinmaek.ingest.source import LogSource

_LARGEST_STEP = 2**53
_TRAINED = frozenset(("loss", "loss_reported", "grad_norm", "lr", "token_accuracy", "loss_scale"))
_FIELDS = frozenset(
    ("step", "loss", "loss_reported", "grad_norm", "lr", "seconds", "loss_scale", "epoch", "token_accuracy")
)
_MOST_BEHIND = 1000  # remarks that may wait behind an unfinished record


class Assembler:
    """Turns the rows of one log into items; what is finished lies in ``ready``, to be taken and cleared.

    A training row is held until the next one comes: rows of one step that lie apart (one for the loss, one for
    the learning rate) make one record, and the first record's span is known only by the spacing that follows.
    """

    def __init__(self, log: LogSource) -> None:
        self.ready: list[Item] = []
        self._log = log
        self._held: Row | None = None
        self._behind: list[Item] = []  # comes after the held row
        self.step: int | None = None  # of the last training row
        self._before: int | None = None  # the step of the row before that
        self.spacing = 1
        self._num_records = 0
        self._tokens: float | None = None
        self._resumed = False
        self._stepless = False  # an evaluation did not say its step

    def take(self, row: Row) -> None:
        """Add one line's numbers, an evaluation, a training row or both."""
        if "rl" in row or "preference" in row:
            self._tell_objective(row)
        if "summary" in row:
            self.remark("end", "completed" if self._is_complete() else "")
            return
        if "max_steps" in row:
            self._log.facts.max_steps = to_count(row["max_steps"]) or self._log.facts.max_steps
        if not _TRAINED.isdisjoint(row):
            self._train(row)
        if "eval_loss" in row:
            self._evaluate(row)

    def remark(self, kind: RemarkKind, text: str = "", *, step: int | None = None) -> None:
        """Add something said beside the numbers."""
        self._resumed = self._resumed or kind == "resumed"
        self._put(Remark(kind=kind, step=self.step if step is None else step, text=text))

    def finish(self) -> None:
        """The log is at its end."""
        if self._stepless and not self._num_records:
            self._log.facts.steps_known = False
        self._release(None)
        self.ready += self._behind
        self._behind = []

    def _put(self, item: Item) -> None:
        if self._held is None:
            self.ready.append(item)
            return
        self._behind.append(item)
        if len(self._behind) > _MOST_BEHIND:
            self.finish()

    def _train(self, row: Row) -> None:
        facts = self._log.facts
        if facts.steps_known and "step" in row:
            number = row["step"]
            step = int(number) if 0 <= number < _LARGEST_STEP else -1
            if step != number:
                self._log.unread += 1
                return
        else:
            step = self._unsaid_step()
        if step == self.step:
            self._join(row)
            return
        last = self.step
        self._release(step)
        if self._behind:
            self.ready += self._behind
            self._behind = []
        if last is not None and step < last:
            self._go_back(step)
        else:
            self._before = last
            if last is not None:
                self.spacing = step - last
        self._resumed = False
        self.step = step
        self._held = row
        self._num_records += 1

    def _unsaid_step(self) -> int:
        """A row without a step: one further, or, where no row has one, its number."""
        facts = self._log.facts
        facts.steps_known = facts.steps_known and self._num_records > 0
        return (self.step or 0) + (self.spacing if facts.steps_known else 1)

    def _go_back(self, step: int) -> None:
        """The log begins again at an earlier step."""
        start = max(step - self.spacing, 0)
        if not self._resumed:
            self.ready.append(Remark(kind="resumed", step=start))
        self._before = start if step else None
        self._tokens = None

    def _join(self, row: Row) -> None:
        """A second row of the same step adds what the first did not say; if that is out already, it is lost."""
        if self._held is not None:
            for name, number in row.items():
                self._held.setdefault(name, number)

    def _release(self, following: int | None) -> None:
        row, self._held = self._held, None
        if row is None or self.step is None:
            return
        step, before, facts = self.step, self._before, self._log.facts
        if not facts.steps_known:
            num_steps = 1
        elif before is not None:
            num_steps = step - before
        else:
            whole = step == facts.logging_steps or (following is not None and following - step == step)
            num_steps = step if step and whole else 1
        reported = "loss_reported" in row
        if reported or facts.filters_loss is None:
            facts.filters_loss = reported
        if not _FIELDS.issuperset(row):
            row = self._fields_of(row, num_steps)
        row["step"], row["num_steps"] = step, num_steps
        self.ready.append(StepRecord(**row))  # type: ignore[arg-type]

    def _fields_of(self, row: Row, num_steps: int) -> Row:
        """What of a row a record has a field for."""
        fields = {name: number for name, number in row.items() if name in _FIELDS}
        if "num_tokens_seen" in row:
            tokens = self._tokens_of(row, self.step == num_steps)
            if tokens is not None:
                fields["num_tokens"] = tokens
        if num_steps == 1 and row.get("skipped") == 1:
            fields["optimizer_stepped"] = False
        return fields

    def _tokens_of(self, row: Row, from_start: bool) -> int | None:
        """TRL counts tokens from the run's start: only the difference belongs to the record."""
        seen = row["num_tokens_seen"]
        known = 0.0 if from_start and self._log.facts.steps_known and self._num_records == 1 else self._tokens
        self._tokens = seen if math.isfinite(seen) else None
        return None if known is None or not math.isfinite(seen) else to_count(seen - known)

    def _evaluate(self, row: Row) -> None:
        step = to_count(row.get("step")) if self._log.facts.steps_known else None
        if step is None:
            self._stepless = True
            step = self.step or 0
        self._put(EvaluationRecord(step=step, loss=row["eval_loss"], epoch=row.get("epoch")))

    def _is_complete(self) -> bool:
        facts = self._log.facts
        return facts.steps_known and None not in (self.step, facts.max_steps) and self.step == facts.max_steps

    def _tell_objective(self, row: Mapping[str, float]) -> None:
        # KTO logs a KL term beside its chosen rewards: whatever names a chosen answer learns from preferences.
        if "preference" in row:
            self._log.facts.objective = "preference"
        elif self._log.facts.objective == "sft":
            self._log.facts.objective = "rl"
