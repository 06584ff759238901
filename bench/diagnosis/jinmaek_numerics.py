"""Faults of numbers in runs of jinmaek: overflow, skipped steps, poisoned weights."""

from __future__ import annotations

from functools import partial
from typing import Any

from bench.diagnosis import jinmaek_patches as broken
from bench.diagnosis import material
from bench.diagnosis.jinmaek_run import JinmaekJob
from bench.diagnosis.mechanisms import from_step, growing, once, overflow_backward, overflow_forward, poison_token
from bench.diagnosis.scenario import Scenario, first_non_finite, first_skip

_FP16 = {"precision": "fp16", "max_steps": 100}


def _fp16_faults() -> list[Scenario]:
    def masked(**train: Any) -> Any:
        def job(seed: int) -> JinmaekJob:
            share = growing(51 + 3 * (seed % 5))
            return JinmaekJob(seed, {"train": _FP16 | train}, prepare=partial(overflow_forward, share=share))

        return job

    def every_step(seed: int) -> JinmaekJob:
        return JinmaekJob(seed, {"train": _FP16}, prepare=partial(overflow_forward, share=from_step(1)))

    def collapse(seed: int) -> JinmaekJob:
        train = _FP16 | {"max_steps": 215, "batch_size": 4, "max_skipped_steps": 1000}
        share = growing(26 + seed % 5, over=5, last=1.0)
        prepare = partial(overflow_forward, share=share)
        return JinmaekJob(seed, {"train": train}, prepare=prepare, patches=[broken.no_floor()])

    def underflow(seed: int) -> JinmaekJob:
        train = _FP16 | {"loss_scale_init": 2.0**-18, "loss_scale_min": 2.0**-30}
        return JinmaekJob(seed, {"train": train})

    def ignoring(seed: int) -> JinmaekJob:
        train = _FP16 | {"max_skipped_steps": 1000}
        prepare = partial(overflow_forward, share=from_step(31 + seed % 5, 0.4))
        return JinmaekJob(seed, {"train": train}, prepare=prepare, patches=[broken.schedule_ignores_skips()])

    skip = "nan-masked-scaler-skip"
    real = "Real: fp16 autocast rounding, jinmaek's loss scale and its skipping. Injected: "
    return [
        Scenario(
            "masked-linear",
            "jinmaek",
            skip,
            real + "value vectors grow past 65,504 on more and more batches; the "
            "limit on skipped steps is raised so that the run goes on.",
            masked(max_skipped_steps=1000),
            first_skip(10),
        ),
        Scenario(
            "masked-stopped",
            "jinmaek",
            skip,
            real + "the same, and jinmaek stops after ten skipped steps.",
            masked(),
            first_skip(10),
        ),
        Scenario(
            "every-step",
            "jinmaek",
            "scaler-skip-every-step",
            real + "every batch overflows from step 1.",
            every_step,
            1,
        ),
        Scenario(
            "collapse",
            "jinmaek",
            "scaler-collapse-to-zero",
            real + "all batches overflow, and the floor under "
            "the loss scale is taken away, as torch's own scaler has none.",
            collapse,
            first_skip(10),
            also=(skip,),
        ),
        Scenario(
            "underflow",
            "jinmaek",
            "gradient-underflow",
            "Real: fp16 gradients below 6e-8 are 0. Set: loss scale 2^-18.",
            underflow,
            1,
            also=("params-not-updating",),
        ),
        Scenario(
            "schedule-ignores-skips",
            "jinmaek",
            "schedule-ignores-skips",
            real + "40 % of batches overflow; the scheduler steps all the same.",
            ignoring,
            first_skip(10),
            also=(skip,),
        ),
    ]


def _number_faults() -> list[Scenario]:
    def backward(seed: int) -> JinmaekJob:
        prepare = partial(overflow_backward, share=from_step(31 + seed % 5, 0.3))
        return JinmaekJob(seed, prepare=prepare)

    def poison(seed: int) -> JinmaekJob:
        token = broken.common_token(material.rows, 0.01)
        return JinmaekJob(seed, {"train": {"max_steps": 120}}, prepare=partial(poison_token, token=token))

    def poisoned(seed: int) -> JinmaekJob:
        prepare = partial(overflow_backward, share=once(42 + seed % 5))
        train = {"max_steps": 80, "precision": "bf16"}
        return JinmaekJob(seed, {"train": train}, prepare=prepare, patches=[broken.no_guard(), broken.no_last_save()])

    return [
        Scenario(
            "grad-nan",
            "jinmaek",
            "grad-nan-finite-loss",
            "Real: a backward that sums squares in fp16 overflows on 30 % of batches, jinmaek skips them.",
            backward,
            first_non_finite,
        ),
        Scenario(
            "poison-rows",
            "jinmaek",
            "nan-batch-intermittent",
            "Real: rows with one token whose embedding is 1e30 overflow layer norm; jinmaek skips the step.",
            poison,
            first_non_finite,
        ),
        Scenario(
            "poisoned-weights",
            "jinmaek",
            "nan-poisoned-weights",
            "Real: AdamW applies a NaN gradient. Injected: "
            "one backward that overflows; jinmaek's check for finite numbers is taken out.",
            poisoned,
            first_non_finite,
        ),
    ]


def scenarios() -> list[Scenario]:
    """All of them."""
    return [*_fp16_faults(), *_number_faults()]
