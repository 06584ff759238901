"""One run of jinmaek: the job, the run, what is kept of it."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

from bench.diagnosis import material
from bench.diagnosis.fp16 import half_arithmetic
from bench.diagnosis.scenario import Truth
from torch import nn

from jinmaek import read_steps, resume, train
from jinmaek.training.model import add_adapter

Patch = AbstractContextManager[Any]
KEPT = ("run.json", "steps.jsonl", "events.jsonl")


@dataclass(slots=True)
class JinmaekJob:
    """What one jinmaek run does.

    ``sections`` change the base recipe; ``rows`` and ``held_out`` replace its data; ``prepare`` gets the PEFT model
    as it is made; ``patches`` hold for the whole run, ``resume_patches`` for the part after ``stop_at`` only.
    """

    seed: int
    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    rows: Sequence[dict[str, Any]] | None = None
    held_out: Sequence[dict[str, Any]] | None = None
    prepare: Callable[[nn.Module], None] = lambda model: None
    patches: Sequence[Patch] = ()
    stop_at: int | None = None
    resume_patches: Sequence[Patch] = ()


def pairs(source: str = "train") -> list[dict[str, Any]]:
    """The shipped questions and answers that make short rows."""
    name = material.TRAIN if source == "train" else material.HELD_OUT
    path = Path(str(material.builtin_path(name)))
    found = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    return [pair for pair in found if len(pair["question"]) + len(pair["answer"]) <= 60]


def run(job: JinmaekJob, out: Path) -> list[Truth]:
    """Train, and keep the run's records in ``out``; returns what really happened."""
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    try:
        recipe = material.base_recipe(**_sections(job, folder))
        with ExitStack() as stack:
            for change in [half_arithmetic(), _prepared(job), *job.patches]:
                stack.enter_context(change)
            train(recipe, run_dir=folder / "run", interrupted=_interrupted(job, folder / "run"))
            for change in job.resume_patches:
                stack.enter_context(change)
            if job.stop_at is not None:
                resume(folder / "run")
        for name in KEPT:
            shutil.copy(folder / "run" / name, out / name)
        return truths(out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def truths(run_dir: Path) -> list[Truth]:
    """What a run's records say: jinmaek writes them before any filter."""
    return [
        Truth(
            step=record.step,
            loss=math.nan if record.loss is None else record.loss,
            finite_gradient=record.grad_norm is None or math.isfinite(record.grad_norm),
            applied=bool(record.optimizer_stepped),
            lr=record.lr or 0.0,
            scale=record.loss_scale,
            update_ratio=record.update_ratio,
        )
        for record in read_steps(run_dir / "steps.jsonl")
    ]


def _sections(job: JinmaekJob, folder: Path) -> dict[str, dict[str, Any]]:
    sections = {name: dict(table) for name, table in job.sections.items()}
    sections.setdefault("train", {}).setdefault("seed", job.seed)
    data = sections.setdefault("data", {})
    data["source"] = _written(pairs() if job.rows is None else job.rows, folder / "train.jsonl")
    if job.held_out is not None:
        data["held_out_source"] = _written(job.held_out, folder / "held_out.jsonl")
        data["held_out"] = None
    if job.stop_at is not None:
        sections["train"]["checkpoint_every"] = job.stop_at
    return sections


def _written(rows: Sequence[dict[str, Any]], path: Path) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return str(path)


def _prepared(job: JinmaekJob) -> Patch:
    def prepared(*given: Any) -> Any:
        model = add_adapter(*given)
        job.prepare(model)
        return model

    return patch("jinmaek.training.session.add_adapter", prepared)


def _interrupted(job: JinmaekJob, run_dir: Path) -> Callable[[], bool]:
    if job.stop_at is None:
        return lambda: False
    return lambda: any((run_dir / "checkpoints").glob(f"step-{job.stop_at:08d}"))
