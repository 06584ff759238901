"""A run as a comparison needs it: its records thinned to what is compared, its diagnosis, its manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, NamedTuple

from jinmaek.core.errors import RunError
from jinmaek.core.record import EvaluationRecord, Item, Remark, RunFacts, StepRecord
from jinmaek.detect import Diagnosed, diagnose
from jinmaek.detect.trace import Trace
from jinmaek.ingest.source import LogSource
from jinmaek.store import RunDirectory


class Row(NamedTuple):
    """One record. It covers the steps after ``step - width`` up to ``step``; ``loss`` is ``None`` unless healthy."""

    step: int
    width: int
    loss: float | None
    lr: float | None
    grad_norm: float | None
    digest: int | None
    examples: int | None  # hash of the example ids
    printed: float | None  # the loss whatever it was

    @property
    def start(self) -> int:
        """Steps before the first that it covers."""
        return self.step - self.width


@dataclass(slots=True)
class Run:
    """A run that was read whole.

    ``place``: where it lies, not the same for two runs; ``held_out``: content and loss tokens of each held-out example.
    """

    name: str
    diagnosed: Diagnosed
    facts: RunFacts
    rows: list[Row]
    evaluations: list[EvaluationRecord]
    manifest: Mapping[str, Any] | None
    held_out: tuple[tuple[str, int], ...] = ()
    place: str = ""

    @property
    def has_steps(self) -> bool:
        """Whether its steps are the trainer's, or follow from the lr."""
        diagnosis = self.diagnosed.diagnosis
        return diagnosis.steps_known or diagnosis.steps_inferred


@dataclass(slots=True)
class _Collector:
    rows: list[Row] = field(default_factory=list)
    evaluations: dict[int, EvaluationRecord] = field(default_factory=dict)

    def watch(self, item: Item, trace: Trace) -> None:
        """Keep what is compared; what a resumed run does again replaces what it did first."""
        if isinstance(item, StepRecord):
            while self.rows and self.rows[-1].step >= item.step:
                self.rows.pop()
            self.rows.append(_row(item, trace))
        elif isinstance(item, EvaluationRecord):
            self.evaluations[item.step] = item
        elif isinstance(item, Remark) and item.kind == "resumed" and item.step is not None:
            self.evaluations = {step: each for step, each in self.evaluations.items() if step <= (item.step or 0)}


def read(source: LogSource, path: str, progress: Callable[[int], None]) -> Run:
    """Read ``source``, which :func:`jinmaek.ingest.find_logs` found at ``path``.

    Raises:
        LogError: it cannot be read.
    """
    collected = _Collector()
    diagnosed = diagnose(source, (), progress, watch=collected.watch)
    evaluations = [collected.evaluations[step] for step in sorted(collected.evaluations)]
    run = Run(source.name, diagnosed, source.facts, collected.rows, evaluations, None, place=_place(source.name, path))
    if source.facts.source == "jinmaek":
        _add_directory(run, [Path(path), Path(path) / source.name])
    return run


def _place(name: str, path: str) -> str:
    """One file may hold several runs, and a folder's runs are named from the folder on."""
    root = Path(path).resolve()
    if Path(name).resolve() == root:
        return str(root)
    return str(root / name) if (root / name).exists() else f"{root}#{name}"


def _row(record: StepRecord, trace: Trace) -> Row:
    healthy = trace.value is not None and trace.loss_state == "finite" and not trace.fault
    grad, lr = record.grad_norm, record.lr
    return Row(
        record.step,
        max(1, record.num_steps),
        trace.value if healthy else None,
        lr if lr is not None and isfinite(lr) else None,
        grad if grad is not None and isfinite(grad) else None,
        None if record.digest is None else hash(record.digest),
        None if record.example_ids is None else hash(record.example_ids),
        trace.value,
    )


def _add_directory(run: Run, places: Sequence[Path]) -> None:
    """What lies beside the steps: manifest and held-out examples; a lone ``steps.jsonl`` has neither."""
    for folder in places:
        try:
            manifest = RunDirectory.open(folder).read_manifest()
        except RunError:
            continue
        if isinstance(manifest, dict) and isinstance(manifest.get("settings"), dict):
            run.manifest = manifest
            run.held_out = _held_out(folder)
            return


def _held_out(folder: Path) -> tuple[tuple[str, int], ...]:
    try:
        events = RunDirectory(folder).read_events("held_out")
        named = events[-1] if events else {}
        return tuple(zip(named["keys"], map(int, named["num_loss_tokens"]), strict=True))
    except (OSError, ValueError, KeyError, TypeError):
        return ()
