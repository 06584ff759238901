"""Healthy runs of transformers.Trainer, among them everything that only looks like a fault."""

from __future__ import annotations

import random
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from bench.diagnosis import material
from bench.diagnosis.material import Row
from bench.diagnosis.mechanisms import once, overflow_forward
from bench.diagnosis.scenario import HEALTHY, Onset, Scenario
from bench.diagnosis.schedules import adamw, lambda_schedule
from bench.diagnosis.trainer_data import Sequential, by_difficulty
from bench.diagnosis.trainer_dynamics import resumed
from bench.diagnosis.trainer_run import TrainerJob, run
from torch import nn

_HELD_OUT = partial(material.rows, material.HELD_OUT)


def _with(args: dict[str, Any], **job: Any) -> Any:
    return lambda seed: TrainerJob(seed, dict(args), **job)


def _few_epochs(seed: int) -> TrainerJob:
    chosen = random.Random(seed).sample(list(material.rows()), 160)
    args = {"max_steps": 120, "learning_rate": 5e-4, "weight_decay": 0.05}
    return TrainerJob(seed, args, rows=chosen)


def _curriculum(seed: int) -> TrainerJob:
    """Short rows first: a curriculum on purpose, loss may climb mildly with length."""
    ordered = sorted(material.rows(longest=128), key=lambda row: len(row.ids))
    return TrainerJob(seed, {"max_steps": 112, "learning_rate": 1e-3}, rows=ordered, trainer=Sequential)


def _by_length(seed: int) -> TrainerJob:
    args = {"max_steps": 110, "train_sampling_strategy": "group_by_length", "per_device_train_batch_size": 8}
    lengths = [_Sized(input_ids=row.ids, labels=row.labels) for row in material.rows(longest=128)]
    return TrainerJob(seed, args | {"logging_steps": 1}, rows=lengths)  # type: ignore[arg-type]


class _Sized(dict[str, list[int]]):
    """A row that Trainer's sampler can take the length of."""

    @property
    def ids(self) -> list[int]:
        """Token ids."""
        return self["input_ids"]

    @property
    def labels(self) -> list[int]:
        """Labels."""
        return self["labels"]


@lru_cache(maxsize=1)
def _trained() -> nn.Module:
    """The model after 250 steps on the rows, adapter merged: where a converged run goes on."""
    kept: list[nn.Module] = []
    args = {"max_steps": 250, "logging_steps": 50}
    job = TrainerJob(99, args, prepare=kept.append)
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        run(job, Path(folder))
    return kept[0].merge_and_unload()  # type: ignore[operator, no-any-return]


def _converged(lr: float, **args: Any) -> Any:
    import copy

    def job(seed: int) -> TrainerJob:
        return TrainerJob(seed, {"max_steps": 100, "learning_rate": lr, **args}, model=copy.deepcopy(_trained()))

    return job


def _fp16(scaler: dict[str, Any], prepare: Any = None, **args: Any) -> Any:
    def job(seed: int) -> TrainerJob:
        made = TrainerJob(seed, {"max_steps": 100, **args}, precision="fp16", scaler=dict(scaler))
        if prepare:
            made.prepare = prepare
        return made

    return job


def _outlier(seed: int) -> TrainerJob:
    """One batch of random tokens in an otherwise clean set, log each step."""
    pick = random.Random(seed)
    rows = list(material.rows())
    pick.shuffle(rows)
    for number in range(400, 408):
        noise = [pick.randrange(5, 3000) for _ in range(30)]
        rows[number] = Row(noise, noise)
    return TrainerJob(seed, {"max_steps": 84, "logging_steps": 1}, rows=rows, trainer=Sequential)


def _wsd(seed: int) -> TrainerJob:
    rule = lambda_schedule(lambda update: min(1.0, (update + 1) / 10, max(0.02, (120 - update) / 30)))
    return TrainerJob(seed, {"max_steps": 120}, optimizer=adamw(), schedule=rule)


def _mixed(seed: int) -> TrainerJob:
    """Shuffled rows of very different difficulty, tiny batches: noise that no rule may call ordered data."""
    rows = [*by_difficulty()[:150], *by_difficulty()[-150:]]
    return TrainerJob(seed, {"max_steps": 120, "per_device_train_batch_size": 1, "logging_steps": 1}, rows=rows)


def scenarios() -> list[Scenario]:
    """All of them."""
    wide = {"eval_strategy": "steps", "eval_steps": 20}

    def ok(name: str, how: str, job: Any, onset: Onset = None) -> Scenario:
        return Scenario(f"ok-{name}", "trainer", HEALTHY, how, job, onset, notes={"seeds": 2})

    return [
        ok("plain", "Linear, 5 warm-up steps, batches of 8.", _with({})),
        ok(
            "batch-1",
            "Batches of one row, log each step.",
            _with({"per_device_train_batch_size": 1, "logging_steps": 1}),
        ),
        ok("batch-2", "Batches of two rows.", _with({"per_device_train_batch_size": 2, "max_steps": 200})),
        ok("mixed-batch-1", "Easy and hard rows mixed, one a batch, log each step.", _mixed),
        ok("high-lr", "lr 8e-3: high, and fine.", _with({"learning_rate": 8e-3})),
        ok("six-epochs", "160 rows, 6 epochs: a mild staircase.", _few_epochs),
        ok(
            "accumulation",
            "8 microbatches of 2, averaged by Trainer; evaluations.",
            _with(
                {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 8, "max_steps": 60, **wide},
                held_out=_HELD_OUT()[:48],
            ),
        ),
        ok("curriculum", "Rows in order of length, sequential on purpose.", _curriculum),
        ok("group-by-length", "Trainer's group_by_length sampler, rows of 20 to 74 tokens.", _by_length),
        ok("short-run", "25 steps.", _with({"max_steps": 25})),
        ok("constant", "Constant lr.", _with({"lr_scheduler_type": "constant", "warmup_steps": 0})),
        ok("cosine", "Cosine with 10 warm-up steps.", _with({"lr_scheduler_type": "cosine", "warmup_steps": 10})),
        ok(
            "warmup-constant",
            "20 warm-up steps, then constant.",
            _with({"lr_scheduler_type": "constant_with_warmup", "warmup_steps": 20}),
        ),
        ok(
            "restarts",
            "Cosine with three hard restarts.",
            _with(
                {
                    "lr_scheduler_type": "cosine_with_restarts",
                    "lr_scheduler_kwargs": {"num_cycles": 3},
                    "max_steps": 120,
                }
            ),
        ),
        ok("polynomial", "Polynomial decay.", _with({"lr_scheduler_type": "polynomial"})),
        ok("inverse-sqrt", "Inverse square root.", _with({"lr_scheduler_type": "inverse_sqrt", "warmup_steps": 10})),
        ok("wsd", "Warm-up, stable, decay to 2 %.", _wsd),
        ok(
            "to-zero",
            "Linear to exactly 0 at the last step, no warm-up, log each step.",
            _with({"warmup_steps": 0, "logging_steps": 1, "max_steps": 60}),
        ),
        ok(
            "scaler-calibration",
            "fp16, initial scale 2^21: the scaler finds its scale in a few skips.",
            _fp16({"init_scale": 2.0**21}),
        ),
        ok(
            "one-skip",
            "fp16, the scale doubles every 20 steps: single skips when it has grown too far.",
            _fp16({"init_scale": 2.0**16, "growth_interval": 20}, max_steps=120),
        ),
        ok(
            "one-overflow",
            "fp16, one batch at step 50 overflows in the forward pass and is skipped.",
            _fp16({"init_scale": 65536.0}, prepare=partial(overflow_forward, share=once(50)), logging_steps=10),
        ),
        ok("fp16", "fp16 with a scaler and no overflow.", _fp16({"init_scale": 1024.0}, logging_steps=10)),
        ok("outlier", "One batch of random tokens at step 51: a spike that recovers.", _outlier),
        ok("bf16", "bf16 autocast, cosine.", _with({"lr_scheduler_type": "cosine"}, precision="bf16")),
        ok("weight-decay", "Weight decay 0.1.", _with({"weight_decay": 0.1})),
        ok("rank-2", "Rank 2.", _with({}, rank=2)),
        ok("low-start", "Goes on from a model trained on the same rows: low loss from step 1.", _converged(1e-3)),
        ok(
            "plateau",
            "A converged model, constant lr 1e-4: flat.",
            _converged(1e-4, lr_scheduler_type="constant", warmup_steps=0),
        ),
        ok("resumed", "Stopped at step 60 and resumed with everything.", resumed()),
        ok("log-1", "Log each step.", _with({"logging_steps": 1})),
        ok(
            "noisy-eval",
            "Evaluations on 16 rows every 10 steps, low lr.",
            _with(
                {"eval_strategy": "steps", "eval_steps": 10, "learning_rate": 4e-3, "lr_scheduler_type": "constant"},
                held_out=_HELD_OUT()[:16],
            ),
        ),
        ok(
            "low-lr",
            "lr 2e-4, 60 steps, cosine: slow and sound.",
            _with({"learning_rate": 2e-4, "lr_scheduler_type": "cosine", "max_steps": 60, "logging_steps": 10}),
        ),
    ]
