"""Healthy runs of jinmaek, among them what only looks like a fault."""

from __future__ import annotations

import random
from functools import partial
from typing import Any

from bench.diagnosis import jinmaek_patches as changed
from bench.diagnosis.jinmaek_run import JinmaekJob, pairs
from bench.diagnosis.mechanisms import once, overflow_forward
from bench.diagnosis.scenario import HEALTHY, Scenario

Sections = dict[str, dict[str, Any]]


def _with(sections: Sections, **job: Any) -> Any:
    return lambda seed: JinmaekJob(seed, sections, **job)


def _epochs(seed: int) -> JinmaekJob:
    rows = random.Random(seed).sample(pairs(), 160)
    sections: Sections = {"train": {"max_steps": 120}, "optim": {"lr": 5e-4, "weight_decay": 0.05}}
    return JinmaekJob(seed, sections, rows=rows)


def _curriculum(seed: int) -> JinmaekJob:
    rows = sorted(pairs(), key=lambda pair: len(pair["question"]) + len(pair["answer"]))
    return JinmaekJob(
        seed, {"train": {"max_steps": 80}, "optim": {"lr": 1e-3}}, rows=rows, patches=[changed.unshuffled()]
    )


def _one_overflow(seed: int) -> JinmaekJob:
    sections: Sections = {"train": {"precision": "fp16"}}
    return JinmaekJob(seed, sections, prepare=partial(overflow_forward, share=once(50)))


def scenarios() -> list[Scenario]:
    """All of them."""

    def ok(name: str, how: str, job: Any) -> Scenario:
        return Scenario(f"ok-{name}", "jinmaek", HEALTHY, how, job, notes={"seeds": 2})

    fp16 = {"precision": "fp16"}
    return [
        ok("plain", "Linear, 5 warm-up steps.", _with({})),
        ok("batch-1", "Batches of one row.", _with({"train": {"batch_size": 1, "max_steps": 150}})),
        ok("batch-2", "Batches of two rows.", _with({"train": {"batch_size": 2, "max_steps": 150}})),
        ok("high-lr", "lr 8e-3: high, and fine.", _with({"optim": {"lr": 8e-3}})),
        ok("six-epochs", "160 rows, 6 epochs.", _epochs),
        ok(
            "accumulation",
            "8 microbatches of 2, evaluations.",
            _with(
                {"train": {"batch_size": 2, "accumulation": 8, "max_steps": 60, "eval_every": 20}},
                held_out=pairs("held")[:48],
            ),
        ),
        ok("curriculum", "Rows in order of length, on purpose.", _curriculum),
        ok("short-run", "25 steps.", _with({"train": {"max_steps": 25}})),
        ok("constant", "Constant lr.", _with({"optim": {"schedule": "constant", "warmup_steps": 0}})),
        ok("cosine", "Cosine with 10 warm-up steps.", _with({"optim": {"schedule": "cosine", "warmup_steps": 10}})),
        ok("scaler-calibration", "fp16, initial scale 2^21.", _with({"train": fp16 | {"loss_scale_init": 2.0**21}})),
        ok(
            "one-skip",
            "fp16, the scale doubles every 20 steps: single skips.",
            _with({"train": fp16 | {"loss_scale_init": 2.0**16, "loss_scale_growth_steps": 20, "max_steps": 120}}),
        ),
        ok("one-overflow", "fp16, one batch overflows and is skipped.", _one_overflow),
        ok("bf16", "bf16 autocast.", _with({"train": {"precision": "bf16"}})),
        ok("weight-decay", "Weight decay 0.1.", _with({"optim": {"weight_decay": 0.1}})),
        ok("rank-2", "Rank 2.", _with({"adapter": {"rank": 2, "alpha": 4}})),
        ok("resumed", "Stopped at step 50 and resumed with everything.", _with({}, stop_at=50)),
        ok(
            "noisy-eval",
            "Evaluations on 16 rows every 10 steps.",
            _with({"train": {"eval_every": 10}, "optim": {"lr": 1e-3}}, held_out=pairs("held")[:16]),
        ),
        ok("low-lr", "lr 2e-4, 60 steps.", _with({"train": {"max_steps": 60}, "optim": {"lr": 2e-4}})),
        ok("adamw-8bit", "bitsandbytes 0.50's own 8-bit AdamW.", _with({"optim": {"name": "adamw_8bit"}})),
        ok(
            "nf4",
            "nf4 base, as in the quickstart.",
            _with({"model": {"quantization": "nf4", "compute_dtype": "fp32"}, "train": {"max_steps": 60}}),
        ),
        ok(
            "packing",
            "Packed rows of 256 tokens.",
            _with({"data": {"packing": True}, "train": {"batch_size": None, "batch_tokens": 256}}),
        ),
        ok(
            "plain-text",
            "Plain text, all tokens learnt.",
            _with({}, rows=[{"text": f"{pair['question']} {pair['answer']}"} for pair in pairs()]),
        ),
    ]
