"""One log from its first line to the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path
from typing import Protocol

from jinmaek.core.finding import Diagnosis, Finding, RuleResult
from jinmaek.core.record import EvaluationRecord, Item, Remark, RunFacts, StepRecord
from jinmaek.detect.conclude import TWO_RUNS, conclude
from jinmaek.detect.limits import find_limits
from jinmaek.detect.panel import Panel
from jinmaek.detect.steps import Numbering, infer_steps
from jinmaek.detect.trace import Trace
from jinmaek.ingest import find_logs

Watch = Callable[[Item, Trace], None]

_ONE_PEAK = 1e-3  # relative: lrs are printed with three digits or more
MAX_NUMBERED = 200_000  # records of a log without steps that are held at once to number them


class Source(Protocol):
    """A log: see :class:`jinmaek.ingest.LogSource`."""

    @property
    def name(self) -> str:
        """Where it lies."""
        ...

    @property
    def facts(self) -> RunFacts:
        """Complete once the items are read."""
        ...

    @property
    def unread(self) -> int:
        """Lines that looked like records and were none."""
        ...

    def items(self) -> Iterator[Item]:
        """Everything it tells, in step order."""
        ...


@dataclass(frozen=True, slots=True)
class Diagnosed:
    """A diagnosis, the loss as printed (for a picture: ``None`` where it was not finite), and the schedule."""

    diagnosis: Diagnosis
    series: tuple[tuple[int, float | None], ...]
    peak_lr: float | None
    schedule_steps: int | None
    constant_lr: bool


def diagnose(
    source: Source,
    others: Sequence[Diagnosed] = (),
    progress: Callable[[int], None] = lambda num: None,
    *,
    watch: Watch | None = None,
) -> Diagnosed:
    """Judge a run by all rules.

    Args:
        source: the log; it is read once.
        others: runs diagnosed before, to compare the schedule with.
        progress: told the number of items read, every few thousand.
        watch: given each item, and the run up to and with it.

    Raises:
        LogError: from the source, if it cannot be read.
    """
    items = source.items()
    first = list(islice(items, 1))
    items = chain(first, items)
    numbering = None
    if not source.facts.steps_known:
        held = list(islice(items, MAX_NUMBERED))
        numbering = _number(held)
        items = chain(_renumbered(held, numbering) if numbering else held, items)
    panel = Panel(source.facts, numbering)
    observe = panel.observe
    for count, item in enumerate(items, 1):
        observe(item)
        if watch is not None:
            watch(item, panel.trace)
        if not count % 4096:
            progress(count)
    return _diagnosed(panel, source, others, inferred=numbering is not None)


def diagnose_path(path: str | Path) -> list[Diagnosis]:
    """The diagnosis of every run in ``path``: a run directory, a log file of any trainer, a folder of them.

    Raises:
        LogError: there is nothing to read.
    """
    done: list[Diagnosed] = []
    for source in find_logs(str(path)):
        done.append(diagnose(source, done))
    return [each.diagnosis for each in done]


def _diagnosed(panel: Panel, source: Source, others: Sequence[Diagnosed], *, inferred: bool) -> Diagnosed:
    trace = panel.trace
    diagnosis = conclude(panel, source.name, source.unread, steps_inferred=inferred)
    diagnosis = replace(diagnosis, limits=find_limits(trace, diagnosis))
    schedule = trace.numbering
    length = schedule.schedule_steps if schedule is not None else trace.facts.schedule_steps or trace.facts.max_steps
    mine = Diagnosed(
        diagnosis,
        tuple(trace.series()),
        (trace.odometer.max_lr if schedule is None else schedule.peak_lr) or None,
        length,
        trace.odometer.constant or (trace.facts.schedule or "").startswith("constant"),
    )
    return replace(mine, diagnosis=_compared(mine, others))


def _compared(mine: Diagnosed, others: Sequence[Diagnosed]) -> Diagnosis:
    """The same peak lr over another number of steps: every lr between differs, not only the length."""
    diagnosis = mine.diagnosis
    if not mine.schedule_steps or not mine.peak_lr or mine.constant_lr:
        return diagnosis
    known = [
        each
        for each in others
        if each.schedule_steps
        and each.peak_lr
        and not each.constant_lr
        and abs(each.peak_lr - mine.peak_lr) <= _ONE_PEAK * mine.peak_lr
    ]
    if not known:
        return diagnosis
    other = next((each for each in known if each.schedule_steps != mine.schedule_steps), None)
    result = RuleResult(rule=TWO_RUNS, outcome="clear" if other is None else "found")
    diagnosis = replace(diagnosis, rules=(*diagnosis.rules[:-1], result))
    if other is None:
        return diagnosis
    note = Finding(
        rule=TWO_RUNS,
        id=TWO_RUNS,
        severity="note",
        confidence="established",
        first_step=diagnosis.first_step or 0,
        last_step=diagnosis.last_step or 0,
        evidence={
            "peak_lr": mine.peak_lr,
            "schedule_steps": mine.schedule_steps,
            "other_steps": other.schedule_steps,
            "other_run": other.diagnosis.source,
        },
    )
    return replace(diagnosis, notes=(*diagnosis.notes, note))


def _number(held: Sequence[Item]) -> Numbering | None:
    records = [item for item in held if isinstance(item, StepRecord) and item.lr is not None]
    return infer_steps([record.lr for record in records], [record.epoch for record in records])


def _renumbered(held: Sequence[Item], numbering: Numbering) -> Iterator[Item]:
    """The items with the steps that the lr tells."""
    step, index = 0, 0
    for item in held:
        if isinstance(item, StepRecord):
            if item.lr is not None:
                step, index = numbering.steps[index], index + 1
            yield replace(item, step=step, num_steps=numbering.interval)
        elif isinstance(item, EvaluationRecord | Remark):
            yield replace(item, step=step)
