"""Rules on what the model was given to learn."""

from __future__ import annotations

from collections.abc import Iterable

from jinmaek.core.finding import Finding
from jinmaek.detect.rule import Rule
from jinmaek.detect.trace import Trace

_FAMILY = "data"
_HEAVY = 0.2  # of the examples


class NoLossTokens(Rule):
    """Steps without a single token that counts in the loss."""

    name = "no-loss-tokens"
    family = _FAMILY
    needs = ("num_loss_tokens",)
    ids = ("labels-all-masked", "labels-partly-masked")
    observes = True
    when = "num_loss_tokens"

    def __init__(self) -> None:
        self._empty = self._seen = 0
        self._first = self._last = 0

    def observe(self, trace: Trace) -> bool:
        """Count empty steps."""
        self._seen += 1
        if trace.record.num_loss_tokens:
            return False
        self._empty += 1
        self._first = self._first or trace.record.step
        self._last = trace.record.step
        return self._empty in (1, 10)

    def findings(self, trace: Trace) -> Iterable[Finding]:
        """All of them, or some; rows without labels that the data report counts are told as well."""
        report = trace.facts.data
        rows, dropped = report.get("num_examples") or 0, report.get("num_without_answer") or 0
        if not self._empty and not (dropped and dropped > 0.02 * (rows + dropped)):
            return
        every = self._empty == self._seen and self._seen > 0
        yield Finding(
            rule=self.name,
            id="labels-all-masked" if every else "labels-partly-masked",
            severity="error" if every else "warning",
            confidence="established",
            first_step=self._first or trace.first_step,
            last_step=self._last or trace.record.step,
            evidence={"count": self._empty or None, "records": self._seen, "dropped": dropped or None, "rows": rows},
            ruled_out=("nan-poisoned-weights", "scaler-skip"),
            weights="intact",
        )


class ConstantBatch(Rule):
    """Every step sees the same examples."""

    name = "constant-batch"
    family = _FAMILY
    needs = ("example_ids",)
    ids = ("constant-batch",)
    min_records = 5
    observes = True
    when = "example_ids"

    def __init__(self) -> None:
        self._batch: frozenset[str] | None = None
        self._same = self._seen = 0
        self._first_same = 0

    def observe(self, trace: Trace) -> bool:
        """Compare a batch with the one before it."""
        ids = trace.record.example_ids
        if ids is None:
            return False
        self._seen += 1
        batch = frozenset(ids)
        if batch == self._batch:
            self._same += 1
            self._first_same = self._first_same or trace.record.step
        self._batch = batch
        return self._same == 5

    def findings(self, trace: Trace) -> Iterable[Finding]:
        """Unless the data set is one batch."""
        rows = trace.facts.data.get("num_examples")
        held_out = trace.facts.data.get("num_held_out") or 0
        if self._same < 4 or self._same < 0.9 * (self._seen - 1):
            return
        size = len(self._batch or ())
        if rows is not None and rows - held_out <= size:
            return
        yield Finding(
            rule=self.name,
            id="constant-batch",
            severity="error",
            confidence="established",
            first_step=self._first_same,
            last_step=trace.record.step,
            evidence={"count": self._same + 1, "size": size, "rows": rows},
            weights="intact",
        )


class _ReportRule(Rule):
    """Judges by the data report of the run."""

    family = _FAMILY
    counts: tuple[str, ...] = ()

    def missing(self, trace: Trace) -> tuple[str, ...]:
        """The data report, with the counts that the rule reads."""
        return () if all(count in trace.facts.data for count in self.counts) else ("data_report",)

    def _finding(self, trace: Trace, count: int, rows: int, **evidence: object) -> Finding:
        return Finding(
            rule=self.name,
            id=self.ids[0],
            severity="warning",
            confidence="established",
            first_step=trace.first_step,
            last_step=trace.record.step,
            evidence={"count": count, "rows": rows, "share": count / rows, **evidence},
            weights="intact",
        )


class MissingEos(_ReportRule):
    """Answers whose end the model never learns: it will not stop."""

    name = "missing-eos"
    needs = ("data_report",)
    ids = ("eos-never-learned",)
    counts = ("num_examples", "num_without_end")

    def findings(self, trace: Trace) -> Iterable[Finding]:
        """Half of the examples and more; what truncation cut off belongs to its own rule."""
        report = trace.facts.data
        rows, cut = int(report["num_examples"]), int(report.get("num_truncated") or 0)
        count = int(report["num_without_end"]) - cut
        if rows and count >= 0.5 * rows:
            yield self._finding(trace, count, rows)


class Truncation(_ReportRule):
    """Many examples are cut: their answers have no end."""

    name = "truncation"
    needs = ("data_report",)
    ids = ("silent-truncation",)
    counts = ("num_examples", "num_truncated")

    def findings(self, trace: Trace) -> Iterable[Finding]:
        """A fifth of the examples."""
        report = trace.facts.data
        rows, count = int(report["num_examples"]), int(report["num_truncated"])
        if rows and count >= _HEAVY * rows:
            yield self._finding(trace, count, rows, lost=report.get("num_truncated_tokens"))


class DoubleBos(_ReportRule):
    """Examples that begin with two beginnings."""

    name = "double-bos"
    needs = ("data_report",)
    ids = ("double-bos",)
    counts = ("num_examples", "num_double_bos")

    def findings(self, trace: Trace) -> Iterable[Finding]:
        """A tenth of the examples."""
        report = trace.facts.data
        rows, count = int(report["num_examples"]), int(report["num_double_bos"])
        if rows and count >= 0.1 * rows:
            yield self._finding(trace, count, rows)
