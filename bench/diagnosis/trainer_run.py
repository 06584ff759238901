"""One run of transformers.Trainer: the job, the run, what is kept of it."""

from __future__ import annotations

import contextlib
import io
import json
import math
import shutil
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from bench.diagnosis import material
from bench.diagnosis.fp16 import half_arithmetic
from bench.diagnosis.material import Row
from bench.diagnosis.scenario import Truth
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments


@dataclass(slots=True)
class TrainerJob:
    """What one Trainer run does; fields that are left alone give an ordinary healthy run.

    ``precision``: fp32, bf16, fp16, or fp16-alone (fp16 without a loss scale, as in a model loaded in fp16);
    ``scaler``: settings of ``GradScaler``; ``prepare`` gets the PEFT model before training; ``optimizer`` and
    ``schedule`` replace Trainer's.
    """

    seed: int
    args: dict[str, Any] = field(default_factory=dict)
    rows: Sequence[Row] = field(default_factory=material.rows)
    held_out: Sequence[Row] | None = None
    model: nn.Module | None = None
    rank: int = 8
    precision: str = "fp32"
    scaler: dict[str, Any] | None = None
    prepare: Callable[[nn.Module], None] = lambda model: None
    optimizer: Callable[[nn.Module], torch.optim.Optimizer] | None = None
    schedule: Callable[[torch.optim.Optimizer], Any] | None = None
    callbacks: list[TrainerCallback] = field(default_factory=list)
    patches: list[AbstractContextManager[Any]] = field(default_factory=list)
    trainer: type[Trainer] = Trainer
    resume_from: Callable[[TrainerJob, Path], str | None] = lambda job, folder: None
    watched: list[Truth] = field(default_factory=list)


class _Watch(TrainerCallback):
    """Notes what each step really did: the loss before any filter, and whether the update was applied."""

    def __init__(self, truths: list[Truth]) -> None:
        self.trainer: Any = None
        self.losses: list[float] = []
        self._truths = truths
        self._finite = True

    def on_pre_optimizer_step(self, *_: Any, **__: Any) -> None:
        grads = [weight.grad for weight in self.trainer.model.parameters() if weight.grad is not None]
        self._finite = all(bool(torch.isfinite(grad).all()) for grad in grads)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        accelerator = self.trainer.accelerator
        self._truths.append(
            Truth(
                step=state.global_step + 1,
                loss=math.fsum(self.losses) if all(map(math.isfinite, self.losses)) else math.nan,
                finite_gradient=self._finite,
                applied=not accelerator.optimizer_step_was_skipped,
                lr=self.trainer._get_learning_rate(),
                scale=accelerator.scaler.get_scale() if accelerator.scaler is not None else None,
            )
        )
        self.losses.clear()


def make_trainer(job: TrainerJob, folder: Path) -> Trainer:
    """The job's Trainer, ready to train; ``folder`` is for what Trainer writes."""

    class Watched(job.trainer):  # type: ignore[name-defined, misc]
        def create_accelerator_and_postprocess(self) -> None:
            super().create_accelerator_and_postprocess()
            if job.precision == "fp16":  # accelerate switches fp16 off on a CPU; torch can do both halves of it
                self.accelerator.native_amp = True
                self.accelerator.scaler = torch.amp.GradScaler("cpu", **(job.scaler or {}))

        def compute_loss(self, *given: Any, **named: Any) -> Any:
            if job.precision != "fp16-alone":
                return super().compute_loss(*given, **named)
            with torch.autocast("cpu", torch.float16):
                return super().compute_loss(*given, **named)

        def training_step(self, *given: Any, **named: Any) -> torch.Tensor:
            loss = super().training_step(*given, **named)
            watch.losses.append(float(loss))
            return loss

    watch = _Watch(job.watched)
    model = job.model if job.model is not None else material.base_model()
    torch.manual_seed(job.seed)
    config = LoraConfig(r=job.rank, lora_alpha=2 * job.rank, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, config)
    job.prepare(model)
    optimizer = job.optimizer(model) if job.optimizer else None
    schedule = job.schedule(optimizer) if job.schedule and optimizer is not None else None
    trainer = Watched(
        model=model,
        args=_arguments(job, folder),
        train_dataset=list(job.rows),
        eval_dataset=list(job.held_out) if job.held_out is not None else None,
        data_collator=material.collate,
        optimizers=(optimizer, schedule),
        callbacks=[watch, *job.callbacks],
    )
    watch.trainer = trainer
    return trainer


def _arguments(job: TrainerJob, folder: Path) -> TrainingArguments:
    settings: dict[str, Any] = {
        "use_cpu": True,
        "per_device_train_batch_size": 8,
        "max_steps": 100,
        "learning_rate": 2e-3,
        "lr_scheduler_type": "linear",
        "optim": "adamw_torch",  # not the fused one: see masked-fused
        "warmup_steps": 5,
        "logging_steps": 5,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "prediction_loss_only": True,
        "per_device_eval_batch_size": 16,
        "fp16": job.precision == "fp16",
        "bf16": job.precision == "bf16",
        "seed": job.seed,
    }
    return TrainingArguments(output_dir=str(folder), **settings | job.args)


def run(job: TrainerJob, out: Path) -> list[Truth]:
    """Train, and keep ``trainer_state.json`` and ``console.txt`` in ``out``; returns what really happened."""
    transformers.logging.set_verbosity_error()
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    said = io.StringIO()
    try:
        with ExitStack() as stack:
            for change in [half_arithmetic(), *job.patches]:
                stack.enter_context(change)
            checkpoint = job.resume_from(job, folder)
            trainer = make_trainer(job, folder)
            with contextlib.redirect_stdout(said):
                trainer.train(resume_from_checkpoint=checkpoint)
        trainer.state.save_to_json(str(out / "trainer_state.json"))
        (out / "console.txt").write_text(said.getvalue(), "utf-8")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return job.watched


def logging_steps(out: Path) -> int:
    """The logging period that the saved state names."""
    return int(json.loads((out / "trainer_state.json").read_text("utf-8"))["logging_steps"])
