"""Faults of schedule, optimizer and data in runs of jinmaek, whose records are of every step."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from typing import Any

from bench.diagnosis import jinmaek_patches as broken
from bench.diagnosis import material
from bench.diagnosis.jinmaek_run import JinmaekJob, pairs
from bench.diagnosis.mechanisms import (
    fresh_head,
    kill_both_factors,
)
from bench.diagnosis.scenario import Scenario, Truth, first_skip, until_learnt_by_heart, until_worse


def _schedule_faults() -> list[Scenario]:
    def hot(lr: float, **optim: Any) -> Any:
        return lambda seed: JinmaekJob(seed, {"optim": {"lr": lr} | optim})

    def exhausted(seed: int) -> JinmaekJob:
        return JinmaekJob(seed, patches=[broken.schedule_for(46 + 3 * (seed % 5))])

    def warming(seed: int) -> JinmaekJob:
        return JinmaekJob(seed, patches=[broken.schedule_for(6000, warmup_steps=3000)])

    def resumed(seed: int) -> JinmaekJob:
        sections: dict[str, dict[str, Any]] = {"optim": {"warmup_steps": 0}}
        return JinmaekJob(seed, sections, stop_at=50, resume_patches=[broken.forgetful_resume()])

    def clipped(seed: int) -> JinmaekJob:
        return JinmaekJob(seed, {"train": {"max_grad_norm": 0.01}})

    def adam(seed: int) -> JinmaekJob:
        sections: dict[str, dict[str, Any]] = {"optim": {"schedule": "constant"}, "train": {"max_steps": 150}}
        return JinmaekJob(seed, sections, patches=[broken.buggy_adam()])

    def frozen(seed: int) -> JinmaekJob:
        return JinmaekJob(seed, patches=[broken.frozen_optimizer()])

    return [
        Scenario("lr-hot", "jinmaek", "lr-too-high-divergence", "Real: lr 0.2.", hot(0.2), until_worse),
        Scenario(
            "lr-hot-constant",
            "jinmaek",
            "lr-too-high-divergence",
            "Real: lr 0.08, constant.",
            hot(0.08, schedule="constant"),
            until_worse,
        ),
        Scenario(
            "schedule-exhausted",
            "jinmaek",
            "lr-zero",
            "A schedule made for half of the run.",
            exhausted,
            lambda truths: next((truth.step for truth in truths if truth.step > 1 and truth.lr == 0.0), None),
        ),
        Scenario(
            "warmup-too-long", "jinmaek", "warmup-longer-than-run", "A warm-up of 3,000 steps in 100.", warming, 1
        ),
        Scenario(
            "resume-lost",
            "jinmaek",
            "resume-state-lost",
            "Stopped at step 50, resumed with the adapter alone.",
            resumed,
            51,
        ),
        Scenario("always-clipped", "jinmaek", "always-clipped", "Real: max_grad_norm 0.01.", clipped, 1),
        Scenario(
            "buggy-8bit",
            "jinmaek",
            "optim-8bit-map-bug",
            "AdamW whose second moment decays as in bitsandbytes 0.36.0-0.41.0.",
            adam,
            _adam_bound,
            also=("lr-too-high-divergence",),
        ),
        Scenario(
            "frozen-optimizer",
            "jinmaek",
            "params-not-updating",
            "An optimizer over copies of the weights.",
            frozen,
            (1, 2),
        ),
        Scenario(
            "frozen-zero-gradient",
            "jinmaek",
            "params-not-updating",
            "Both LoRA factors start at 0: the gradient is exactly 0.",
            lambda seed: JinmaekJob(seed, prepare=kill_both_factors),
            (1, 2),
        ),
        Scenario(
            "dead-module",
            "jinmaek",
            "partial-target-modules",
            "The adapter of dense_4h_to_h is cut from the graph.",
            lambda seed: JinmaekJob(seed, prepare=broken.detached),
            (1, 2),
        ),
    ]


def _adam_bound(truths: Sequence[Truth]) -> tuple[int, int] | None:
    """Wrong from step 2 on; shown where an update passes Adam's bound, (1 - beta1) / sqrt(1 - beta2)."""
    bound = 0.1 / 0.001**0.5
    first = next((truth.step for truth in truths if (truth.update_ratio or 0.0) > bound), None)
    return None if first is None else (2, first)


def _few(seed: int, count: int) -> list[dict[str, Any]]:
    return random.Random(seed).sample(pairs(), count)


def _data_faults() -> list[Scenario]:
    return [
        Scenario(
            "labels-all-masked",
            "jinmaek",
            "labels-all-masked",
            "A collator that masks every row.",
            lambda seed: JinmaekJob(seed, patches=[broken.masked_labels(1.0, seed)]),
            1,
        ),
        Scenario(
            "labels-partly-masked",
            "jinmaek",
            "labels-partly-masked",
            "A collator that masks half of the rows, batches of one.",
            lambda seed: JinmaekJob(
                seed, {"train": {"batch_size": 1, "max_skipped_steps": 50}}, patches=[broken.masked_labels(0.5, seed)]
            ),
            first_skip(),
        ),
        Scenario(
            "overfit",
            "jinmaek",
            "memorisation-overfit",
            "Real: 24 rows, 53 epochs, evaluation on others.",
            lambda seed: JinmaekJob(
                seed,
                {"train": {"max_steps": 160, "eval_every": 10}, "optim": {"lr": 6e-3}},
                rows=_few(seed, 24),
                held_out=pairs("held")[:48],
            ),
            None,
            notes={"onset": "eval_minimum"},
        ),
        Scenario(
            "leaked",
            "jinmaek",
            "duplicate-or-leaked-data",
            "Real: 12 rows copied 60 times, evaluated on themselves.",
            lambda seed: JinmaekJob(
                seed, {"train": {"max_steps": 120, "eval_every": 20}}, rows=_few(seed, 12) * 60, held_out=_few(seed, 12)
            ),
            until_learnt_by_heart,
            also=("memorisation-overfit",),
        ),
        Scenario(
            "not-shuffled",
            "jinmaek",
            "not-shuffled",
            "Rows of three sources behind one another, in file order.",
            _sorted,
            51,
        ),
        Scenario(
            "bad-labels",
            "jinmaek",
            "bad-labels",
            "Labels of each row shuffled.",
            lambda seed: JinmaekJob(seed, patches=[broken.shuffled_targets(seed)]),
            1,
        ),
        Scenario(
            "wrong-forward",
            "jinmaek",
            "wrong-forward-at-step-1",
            "An output head that was not loaded and starts at random.",
            lambda seed: JinmaekJob(seed, prepare=partial(fresh_head, seed=seed)),
            1,
        ),
        Scenario(
            "constant-batch",
            "jinmaek",
            "constant-batch",
            "A data cursor that never moves.",
            lambda seed: JinmaekJob(seed, patches=[broken.constant_batch()]),
            2,
            also=("memorisation-overfit",),
        ),
        Scenario(
            "truncated",
            "jinmaek",
            "silent-truncation",
            "Real: max_length 24 cuts most answers.",
            lambda seed: JinmaekJob(seed, {"data": {"max_length": 24}}),
            1,
        ),
        Scenario(
            "eos-masked",
            "jinmaek",
            "eos-never-learned",
            "The collator masks end-of-text, which is also padding.",
            lambda seed: JinmaekJob(seed, patches=[broken.eos_masked()]),
            1,
        ),
        Scenario(
            "eos-absent",
            "jinmaek",
            "eos-never-learned",
            "A template without end-of-text.",
            lambda seed: JinmaekJob(seed, patches=[broken.eos_absent()]),
            1,
        ),
        Scenario(
            "double-bos",
            "jinmaek",
            "double-bos",
            "Template and tokenizer both add the opening token.",
            lambda seed: JinmaekJob(seed, patches=[broken.double_bos()]),
            1,
        ),
        Scenario(
            "summed-loss",
            "jinmaek",
            "loss-scaled-by-accumulation",
            "Microbatch means added up over 8; evaluations.",
            lambda seed: JinmaekJob(
                seed,
                {"train": {"max_steps": 60, "batch_size": 2, "accumulation": 8, "eval_every": 20}},
                held_out=pairs("held")[:48],
                patches=[broken.summed_accumulation()],
            ),
            1,
        ),
    ]


def _sorted(seed: int) -> JinmaekJob:
    from bench.diagnosis.trainer_data import difficulty_blocks

    rows = difficulty_blocks(seed)
    sections: dict[str, dict[str, Any]] = {"train": {"max_steps": 150, "batch_size": 4}, "optim": {"lr": 3e-4}}
    texts = [{"text": material.tokenizer().decode(row.ids, skip_special_tokens=True)} for row in rows]
    return JinmaekJob(seed, sections, rows=texts, patches=[broken.unshuffled()])


def scenarios() -> list[Scenario]:
    """All of them."""
    return [*_schedule_faults(), *_data_faults()]
