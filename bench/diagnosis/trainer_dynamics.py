"""Faults of schedule and optimizer in transformers.Trainer, as far as a Trainer log can show them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bench.diagnosis import material
from bench.diagnosis.mechanisms import kill_both_factors
from bench.diagnosis.scenario import Scenario, Truth, first_non_finite, until_risen, until_worse
from bench.diagnosis.schedules import BuggyAdam8bit, adamw, lambda_schedule, trainable
from bench.diagnosis.trainer_run import TrainerJob, make_trainer
from torch import nn
from transformers import TrainerCallback

_HELD_OUT = partial(material.rows, material.HELD_OUT)
_EVAL = {"eval_strategy": "steps", "eval_steps": 20}


def _with(args: dict[str, Any], **job: Any) -> Any:
    return lambda seed: TrainerJob(seed, dict(args), **job)


def _fp32_explosion(seed: int) -> TrainerJob:
    """Plain SGD-like growth: no clipping, a lr at which every update overshoots more than the last."""
    args = {"max_steps": 80, "logging_nan_inf_filter": False, "logging_steps": 1, "max_grad_norm": 0.0}
    return TrainerJob(seed, args, optimizer=lambda model: torch.optim.SGD(trainable(model), lr=4.0, momentum=0.95))


def _growth(truths: Sequence[Truth]) -> tuple[int, int]:
    """From the first loss a nat above the start to the first that is no number."""
    return until_worse(truths)[1], first_non_finite(truths) or len(truths)  # type: ignore[index]


def _exhausted(seed: int) -> TrainerJob:
    """The schedule was made for 60 steps (one epoch, say) and the run goes on to 120."""
    end = 56 + 2 * (seed % 5)
    rule = lambda_schedule(lambda update: max(0.0, 1 - update / end))
    return TrainerJob(seed, {"max_steps": 120}, optimizer=adamw(), schedule=rule)


def _interrupted(*lost: str) -> Any:
    """Train to step 60 with a checkpoint there, delete what is ``lost`` from it, go on from it."""

    def first_half(job: TrainerJob, folder: Path) -> str:
        settings = dict(job.args)
        job.args = settings | {"save_strategy": "steps", "save_steps": 60}
        halfway = make_trainer(job, folder)
        halfway.args.max_steps = 100
        halfway.add_callback(_StopAt(60))
        halfway.train()
        job.args = settings
        checkpoint = folder / "checkpoint-60"
        for name in lost:
            (checkpoint / name).unlink()
        return str(checkpoint)

    return first_half


class _StopAt(TrainerCallback):
    """Ends training after a step, as a killed job does."""

    def __init__(self, step: int) -> None:
        self._step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step >= self._step:
            control.should_training_stop = True


def resumed(*lost: str) -> Any:
    """Jobs that stop at step 60 and go on from a checkpoint without the files ``lost``."""
    args = {"max_steps": 100, "lr_scheduler_type": "linear", "warmup_steps": 0}
    return lambda seed: TrainerJob(seed, dict(args), resume_from=_interrupted(*lost))


def _other_weights(model: nn.Module) -> torch.optim.Optimizer:
    """An optimizer over copies of the weights, as after wrapping or moving a model once it was built."""
    return torch.optim.AdamW([nn.Parameter(weight.detach().clone()) for weight in trainable(model)], lr=2e-3)


def _buggy_adam(seed: int) -> TrainerJob:
    """The founding recipe's rate for LoRA times ten, constant: what made the runs of 2023 rise."""
    args = {"max_steps": 200, "lr_scheduler_type": "constant", "warmup_steps": 0}
    return TrainerJob(seed, args, optimizer=lambda model: BuggyAdam8bit(trainable(model), lr=2e-3))


def _eval_only_moves(prepare: Any = None, optimizer: Any = None) -> Any:
    def job(seed: int) -> TrainerJob:
        made = TrainerJob(seed, {"max_steps": 100, **_EVAL}, held_out=_HELD_OUT()[:48], optimizer=optimizer)
        if prepare:
            made.prepare = prepare
        return made

    return job


def scenarios() -> list[Scenario]:
    """All of them."""
    hot, lost, still = "lr-too-high-divergence", "resume-state-lost", "params-not-updating"
    return [
        Scenario(
            "lr-hot",
            "trainer",
            hot,
            "Real: lr 0.2, a hundred times too high.",
            _with({"learning_rate": 0.2}),
            until_worse,
        ),
        Scenario(
            "lr-hot-cosine",
            "trainer",
            hot,
            "Real: lr 0.06 without warm-up, cosine.",
            _with({"learning_rate": 0.06, "lr_scheduler_type": "cosine", "warmup_steps": 0, "max_steps": 120}),
            until_worse,
        ),
        Scenario(
            "divergence-to-nan",
            "trainer",
            "divergence-to-nan",
            "Real: SGD with momentum at a lr beyond stability, no clipping, nan filter off: growth, then NaN.",
            _fp32_explosion,
            _growth,
            also=(hot,),
        ),
        Scenario(
            "lr-zero", "trainer", "lr-zero", "Real: learning_rate 0.", _with({"learning_rate": 0.0}), 1, also=(still,)
        ),
        Scenario(
            "schedule-exhausted",
            "trainer",
            "lr-zero",
            "Real: a linear schedule made for about 60 steps in a run of 120.",
            _exhausted,
            lambda truths: next((truth.step for truth in truths if truth.lr == 0.0), None),
        ),
        Scenario(
            "warmup-too-long",
            "trainer",
            "warmup-longer-than-run",
            "Real: 3,000 warm-up steps in a run of 120.",
            _with({"max_steps": 120, "warmup_steps": 3000}),
            1,
        ),
        Scenario(
            "resume-lost",
            "trainer",
            lost,
            "Real: checkpoint at step 60 without optimizer.pt and scheduler.pt; Trainer goes on from it in silence.",
            resumed("optimizer.pt", "scheduler.pt"),
            61,
        ),
        Scenario(
            "frozen-optimizer",
            "trainer",
            still,
            "Real: an optimizer over copies of the weights; with evaluations.",
            _eval_only_moves(optimizer=_other_weights),
            1,
        ),
        Scenario(
            "frozen-zero-gradient",
            "trainer",
            still,
            "Real: gradient exactly 0. Injected: both LoRA factors start at 0; with evaluations.",
            _eval_only_moves(prepare=kill_both_factors),
            1,
        ),
        Scenario(
            "buggy-8bit",
            "trainer",
            "optim-8bit-map-bug",
            "AdamW whose 8-bit second moment decays as in bitsandbytes 0.36.0-0.41.0 (its arithmetic).",
            _buggy_adam,
            until_risen,
            also=(hot,),
        ),
    ]
