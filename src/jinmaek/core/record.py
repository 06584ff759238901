"""The truth of one training step.

Everywhere in jinmaek three facts are kept apart: ``None`` is "not observed", NaN (or an infinity) is
"seen and non-finite", and 0 is zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupStats:
    """Statistics of the trainable tensors that share a module name, for instance all ``query_key_value``.

    ``grad_norm`` is the 2-norm of the group's gradient before clipping, ``weight_norm`` the 2-norm of its
    weights before the update, ``max_update`` the largest |Δw| of any element in this step.
    """

    grad_norm: float | None = None
    weight_norm: float | None = None
    max_update: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """One step as it was, before any filter.

    Attributes:
        step: 1 for the first step; counts steps tried, not updates applied.
        loss: mean negative log-likelihood per loss token over the whole step, in nats, before any filter;
            ``None`` when the step held no loss token.
        loss_reported: what a filtering source printed instead (only foreign logs have it).
        grad_norm: 2-norm of the gradient of all trainable weights, before clipping.
        clip_ratio: factor that clipping multiplied the gradient by (1.0: not clipped).
        lr: learning rate this step used, read before the schedule moved.
        num_tokens: tokens that were no padding.
        num_loss_tokens: tokens that counted in the loss.
        seconds: wall-clock time of the step.
        optimizer_stepped: whether the weights were updated.
        loss_scale: fp16 loss scale this step's backward used.
        update_ratio: largest |Δw| of any trainable element divided by lr.
        example_ids: ids of the step's examples, in order.
        groups: statistics by module name.
        digest: hash of the exact bits of loss and gradient norms; equal digests mean the same step.
        memory_bytes: most device memory that tensors took at once since the process began; ``None`` on the CPU.
        num_steps: steps that the record sums up, ``step`` being the last of them (other trainers' logs print a
            line every ten steps, say; jinmaek's own records are always of one step).
        first_grad_norm: 2-norm of the gradient of the step's first microbatch alone, the mean over its own
            ``first_loss_tokens``, unscaled; ``None`` where one microbatch is the whole step. Held against
            ``grad_norm`` it gives the gradient noise scale (:mod:`jinmaek.detect.noise_scale`).
        first_loss_tokens: tokens of that microbatch that counted in the loss.
        epoch: passes over the data so far, as a foreign log printed it.
        token_accuracy: share of tokens guessed right, as a foreign log printed it.
    """

    step: int
    loss: float | None = None
    loss_reported: float | None = None
    grad_norm: float | None = None
    clip_ratio: float | None = None
    lr: float | None = None
    num_tokens: int | None = None
    num_loss_tokens: int | None = None
    seconds: float | None = None
    optimizer_stepped: bool | None = None
    loss_scale: float | None = None
    update_ratio: float | None = None
    example_ids: tuple[str, ...] | None = None
    groups: Mapping[str, GroupStats] | None = None
    digest: str | None = None
    first_grad_norm: float | None = None
    first_loss_tokens: int | None = None
    memory_bytes: int | None = None
    num_steps: int = 1
    epoch: float | None = None
    token_accuracy: float | None = None


def same_step(one: StepRecord, other: StepRecord) -> bool:
    """Whether two records are of one and the same step: by digest, or without one by loss and gradient norm."""
    if one.digest is not None and other.digest is not None:
        return one.digest == other.digest
    return repr((one.loss, one.grad_norm)) == repr((other.loss, other.grad_norm))  # NaN is NaN


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationRecord:
    """Held-out loss after ``step`` steps, mean nats a token; NaN where it was seen and not finite.

    ``example_losses``: the same of each held-out example, in the order of the run's ``held_out`` list;
    ``prompt_loss``, ``answer_loss``: mean nats a token of the held-out prompts, learnt or not, and of the answers.
    ``None``: not measured.
    """

    step: int
    loss: float
    epoch: float | None = None
    example_losses: tuple[float, ...] | None = None
    prompt_loss: float | None = None
    answer_loss: float | None = None


RemarkKind = Literal[
    "skipped",  # the trainer said that it threw a step away
    "scale_floor",  # DeepSpeed: "Current loss scale already at minimum"
    "no_grad_inputs",  # "None of the inputs have requires_grad=True. Gradients will be None"
    "attention_kernel",  # a warning of cuDNN's or flash attention's backward
    "out_of_memory",
    "checkpoint",  # saved; ``text`` is its path
    "resumed",  # training went on from ``step``
    "end",  # the run's end; ``text`` says how
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """Something said beside the numbers. ``step`` is the last step before it, ``None`` if none was seen yet."""

    kind: RemarkKind
    step: int | None = None
    text: str = ""


@dataclass(slots=True, kw_only=True)
class RunFacts:
    """What a source says of the run as a whole; ``None`` is "not said".

    Attributes:
        source: format the run was read from: ``jinmaek``, ``trainer_state``, ``console``, ``tensorboard``,
            ``wandb``, ``csv``, ``jsonl`` …
        steps_known: whether the records' ``step`` is the trainer's (else it counts the records).
        filters_loss: whether the trainer may have replaced non-finite losses before it printed them
            (transformers' ``logging_nan_inf_filter``).
        objective: ``sft`` unless the log's columns say ``preference`` (DPO, ORPO, KTO …) or ``rl`` (GRPO, PPO …).
        schedule: ``constant``, ``linear``, ``cosine`` …, with ``schedule_steps`` its length and ``warmup_steps``
            its rise, in optimizer steps; ``peak_lr`` its highest value.
        steps_per_epoch: optimizer steps of one pass over the data.
        versions: versions of packages.
        num_weights: trainable weights.
        data: counts that jinmaek's data report holds (``num_examples``, ``num_truncated`` …).
    """

    source: str
    steps_known: bool = True
    filters_loss: bool | None = None
    objective: Literal["sft", "preference", "rl"] = "sft"
    max_steps: int | None = None
    logging_steps: int | None = None
    accumulation: int | None = None
    schedule: str | None = None
    schedule_steps: int | None = None
    warmup_steps: int | None = None
    peak_lr: float | None = None
    max_grad_norm: float | None = None
    weight_decay: float | None = None
    precision: str | None = None
    optimizer: str | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    steps_per_epoch: float | None = None
    vocab_size: int | None = None
    num_weights: int | None = None
    versions: Mapping[str, str | None] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)


Item = StepRecord | EvaluationRecord | Remark
