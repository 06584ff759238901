"""The truth of one training step.

Everywhere in jinmaek three facts are kept apart: ``None`` is "not observed", NaN (or an infinity) is
"seen and non-finite", and 0 is zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


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
