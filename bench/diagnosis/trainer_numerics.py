"""Faults of numbers in transformers.Trainer: overflow, skipped steps, poisoned weights."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from bench.diagnosis import material
from bench.diagnosis.fp16 import old_accelerate
from bench.diagnosis.material import Row
from bench.diagnosis.mechanisms import (
    Share,
    from_step,
    growing,
    once,
    overflow_backward,
    overflow_forward,
    poison_token,
)
from bench.diagnosis.scenario import Scenario, first_non_finite, first_skip
from bench.diagnosis.trainer_run import TrainerJob
from torch import nn
from transformers import Trainer, TrainerCallback

SCALER = {"init_scale": 65536.0}
_REAL = (
    "Real: fp16 autocast rounding, torch.amp.GradScaler('cpu') put into Trainer's accelerator, accelerate's "
    "bookkeeping of skipped steps, Trainer's nan filter and log. Injected: "
)
_VALUES = "value vectors times a growing factor, divided again after attention, so that they pass 65,504 in fp16 "


def _fp16(seed: int, share: Share, args: dict[str, Any], **changes: Any) -> TrainerJob:
    prepare = partial(overflow_forward, share=share)
    return TrainerJob(seed, args, precision="fp16", scaler=dict(SCALER), prepare=prepare, **changes)


def _masked(schedule: str, **args: Any) -> Any:
    settings = {"max_steps": 120, "lr_scheduler_type": schedule, "logging_steps": 10} | args
    return lambda seed: _fp16(seed, growing(61 + 3 * (seed % 5)), settings)


def _every_step(**args: Any) -> Any:
    return lambda seed: _fp16(seed, from_step(1), {"max_steps": 80, "logging_steps": 5} | args)


def _every_step_backward(seed: int) -> TrainerJob:
    args = {"max_steps": 80, "logging_steps": 5, "lr_scheduler_type": "cosine"}
    prepare = partial(overflow_backward, share=from_step(1))
    return TrainerJob(seed, args, precision="fp16", scaler=dict(SCALER), prepare=prepare)


def _collapse(last: float) -> Any:
    def job(seed: int) -> TrainerJob:
        share = growing(41 + 2 * (seed % 5), over=10, last=last)
        args = {"max_steps": 280, "logging_steps": 10, "warmup_steps": 0}
        return _fp16(seed, share, args, patches=[old_accelerate()], rows=material.rows(longest=26))

    return job


def _no_scaler(seed: int) -> TrainerJob:
    prepare = partial(overflow_forward, share=once(47 + seed % 5))
    return TrainerJob(seed, {"max_steps": 100}, precision="fp16-alone", prepare=prepare)


def _bf16_backward(seed: int) -> TrainerJob:
    prepare = partial(overflow_backward, share=once(52 + seed % 5))
    return TrainerJob(seed, {"max_steps": 100, "lr_scheduler_type": "cosine"}, precision="bf16", prepare=prepare)


def _poisoned_constant(seed: int) -> TrainerJob:
    args = {"max_steps": 100, "lr_scheduler_type": "constant", "warmup_steps": 0}
    return TrainerJob(seed, args, precision="bf16", prepare=partial(overflow_backward, share=once(52 + seed % 5)))


class WithoutNorm(Trainer):
    """Trainer before 4.38, whose log had no gradient norm."""

    def log(self, logs: dict[str, Any], *given: Any, **named: Any) -> None:
        """Log without it."""
        logs.pop("grad_norm", None)
        super().log(logs, *given, **named)


class DropNonFinite(TrainerCallback):
    """A guard: a gradient that is not finite is thrown away before the optimizer sees it."""

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: nn.Module, **_: Any) -> None:
        weights = [weight for weight in model.parameters() if weight.grad is not None]
        if not all(bool(torch.isfinite(weight.grad).all()) for weight in weights if weight.grad is not None):
            for weight in weights:
                weight.grad = None


def _guarded(seed: int) -> TrainerJob:
    prepare = partial(overflow_backward, share=from_step(41 + seed % 5, 0.3))
    args = {"max_steps": 100, "logging_steps": 1}
    return TrainerJob(seed, args, prepare=prepare, callbacks=[DropNonFinite()])


RARE = 2999


def with_rare_token(rows: tuple[Row, ...], every: int, offset: int) -> list[Row]:
    """Each ``every``-th row gets the rare token in the middle of its question."""
    changed = []
    for number, row in enumerate(rows):
        ids = list(row.ids)
        if number % every == offset:
            ids[6] = RARE
        changed.append(Row(ids, row.labels))
    return changed


def _poison_rows(seed: int) -> TrainerJob:
    args = {"max_steps": 100, "logging_steps": 1, "logging_nan_inf_filter": False}
    return TrainerJob(
        seed,
        args,
        rows=with_rare_token(material.rows(), 70, seed % 70),
        prepare=partial(poison_token, token=RARE),
        callbacks=[DropNonFinite()],
    )


def scenarios() -> list[Scenario]:
    """All of them."""
    masked, every = "nan-masked-scaler-skip", "scaler-skip-every-step"
    gradual = _REAL + _VALUES + "on more and more batches from about step 61 on; most steps skipped, weights intact."
    return [
        Scenario("masked-linear", "trainer", masked, gradual, _masked("linear"), first_skip(10)),
        Scenario("masked-cosine", "trainer", masked, gradual, _masked("cosine", warmup_steps=12), first_skip(13)),
        Scenario(
            "masked-constant",
            "trainer",
            masked,
            gradual + " Constant lr: a log cannot tell a frozen schedule.",
            _masked("constant", warmup_steps=0),
            first_skip(10),
            also=("masked-nan-undecided",),
        ),
        Scenario(
            "masked-no-norm",
            "trainer",
            masked,
            gradual + " The log has no gradient norm, as in 2023.",
            lambda seed: replace(_masked("linear")(seed + 10), trainer=WithoutNorm),
            first_skip(10),
        ),
        Scenario(
            "masked-fused",
            "trainer",
            masked,
            gradual
            + " The optimizer is Trainer 5's default, fused AdamW: GradScaler leaves the skipping to it, accelerate "
            "takes every step for done, and lr moves on although nothing is applied.",
            _masked("linear", optim="adamw_torch_fused"),
            first_non_finite,
            also=("schedule-ignores-skips", "masked-nan-undecided"),
        ),
        Scenario("masked-log5", "trainer", masked, gradual, _masked("linear", logging_steps=5), first_skip(10)),
        Scenario(
            "every-step-warmup",
            "trainer",
            every,
            _REAL + _VALUES + "on every batch from step 1; linear, 10 warm-up steps.",
            _every_step(warmup_steps=10),
            1,
        ),
        Scenario(
            "every-step",
            "trainer",
            every,
            _REAL + _VALUES + "on every batch from step 1; cosine without warm-up.",
            _every_step(lr_scheduler_type="cosine", warmup_steps=0),
            1,
        ),
        Scenario(
            "every-step-finite-loss",
            "trainer",
            every,
            _REAL
            + "a backward function that sums squares in fp16 and overflows on every batch; the loss stays finite.",
            _every_step_backward,
            1,
        ),
        Scenario(
            "collapse-intact",
            "trainer",
            "scaler-collapse-to-zero",
            _REAL + _VALUES + "on all batches; accelerate 0.20's rule for a skipped step, so lr unfreezes at scale 0.",
            _collapse(1.0),
            first_skip(10),
            also=(masked,),
        ),
        Scenario(
            "collapse-poisoned",
            "trainer",
            "scaler-collapse-to-zero",
            _REAL
            + _VALUES
            + "on 99 % of batches; accelerate 0.20's rule; at scale 0 the first finite batch writes NaN.",
            _collapse(0.99),
            first_skip(10),
            also=(masked,),
        ),
        Scenario(
            "poisoned-no-scaler",
            "trainer",
            "nan-poisoned-weights",
            "Real: fp16 autocast rounding without any scaler, AdamW applies the NaN. Injected: "
            + _VALUES
            + "at one step.",
            _no_scaler,
            first_non_finite,
        ),
        Scenario(
            "poisoned-bf16",
            "trainer",
            "nan-poisoned-weights",
            "Real: bf16 autocast, no scaler, AdamW applies the NaN. Injected: one backward that sums squares in fp16.",
            _bf16_backward,
            first_non_finite,
        ),
        Scenario(
            "poisoned-constant",
            "trainer",
            "nan-poisoned-weights",
            "As poisoned-bf16 with a constant lr: a log cannot tell poisoned weights from a scaler that skips.",
            _poisoned_constant,
            first_non_finite,
            also=("masked-nan-undecided",),
        ),
        Scenario(
            "guarded-gradient",
            "trainer",
            "grad-nan-finite-loss",
            "Real: NaN gradient from a backward that overflows fp16 on 30 % of batches; a callback drops the gradient.",
            _guarded,
            first_non_finite,
        ),
        Scenario(
            "poison-rows",
            "trainer",
            "nan-batch-intermittent",
            "Real: NaN forward of rows with one rare token whose embedding (1e30) overflows layer norm; no nan filter, "
            "a callback drops the gradient of such steps.",
            _poison_rows,
            first_non_finite,
        ),
    ]
