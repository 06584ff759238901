"""The arms on numerics: precision, loss scale, stored weights, kernels. Each changes one thing of the step."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager
from typing import Any

import torch

from jinmaek.core.record import StepRecord
from jinmaek.core.verdict import Trial
from jinmaek.replay.case import Case
from jinmaek.replay.changes import (
    attention_by,
    attention_in_fp32,
    computed_in,
    reference_dequantisation,
    value_replaced,
    with_loss_scale,
    without_non_finite,
)
from jinmaek.replay.locate import plain_name

_OUTLIER = 1e3  # times the second largest of its weight
_MOST_OUTLIERS = 3


def plain_kernels(case: Case) -> Trial:
    """The step by plain PyTorch instead of the fused kernels (:func:`jinmaek.replay.changes.plain` is at work)."""
    case.facts["is_fp16"] = case.is_fp16
    case.facts["other_mask"] = case.scene.session.recipe.adapter.dropout > 0
    return case.try_arm("plain_kernels", "kernel", case.measure)


def precision(case: Case) -> None:
    """The step in a dtype of wider range; in fp32 only where bf16 leaves the question open."""
    training, recipe = case.scene.training, case.scene.session.recipe
    if case.is_fp16:
        case.try_arm("bf16", "precision", lambda: _measured(case, computed_in(training, torch.bfloat16)))
    if recipe.train.precision != "fp32" and case.outcome("bf16") != "heals":
        case.try_arm("fp32", "precision", lambda: _measured(case, computed_in(training, torch.float32)))


def loss_scale(case: Case) -> None:
    """The largest power of two that the gradient bears, where a smaller scale heals at all."""
    used = case.replayed.reading.loss_scale
    if used is None or case.failure.symptom != "gradient_not_finite" or used <= 1:
        return
    smallest = case.scene.training.loss_scale.minimum if case.scene.training.loss_scale else 1.0
    low, high = min(smallest, 1.0), used
    if _with_scale(case, low).outcome != "heals":
        return
    while high / low > 2:
        middle = 2.0 ** math.floor((math.log2(low) + math.log2(high)) / 2)
        middle = middle if middle > low else low * 2
        if _with_scale(case, middle).outcome == "heals":
            low = middle
        else:
            high = middle
    case.facts["largest_finite_scale"] = low


def _with_scale(case: Case, scale: float) -> Trial:
    state = with_loss_scale(case.before, scale)
    return case.try_arm("smaller_scale", "loss_scale", lambda: case.measure(state), {"loss_scale": scale})


def kernels(case: Case) -> None:
    """The same mathematics by other code, in the same dtype; attention in fp32 beside it."""
    training, section = case.scene.training, case.scene.session.recipe.model
    other = "eager" if section.attention != "eager" else "sdpa"
    facts = {"kernel": other}
    case.try_arm("other_attention", "kernel", lambda: _measured(case, attention_by(training, other)), facts)
    if section.attention == "sdpa":
        case.try_arm("attention_fp32", "kernel", lambda: _measured(case, attention_in_fp32(training)))
    if section.quantization in ("nf4", "fp4"):
        change = reference_dequantisation
        case.try_arm("reference_dequantisation", "kernel", lambda: _measured(case, change(training)))


def _measured(case: Case, change: AbstractContextManager[None]) -> StepRecord:
    with change:
        return case.measure()


def stored_weights(case: Case) -> None:
    """Numbers of the frozen base that are not finite, or absurdly large, replaced by 0."""
    for name, weight in frozen_numbers(case.scene.training.model):
        sizes = weight.detach().float().abs().flatten()
        bad = int((~torch.isfinite(sizes)).sum())
        if bad:
            facts: dict[str, Any] = {"weight": name, "num_non_finite": bad, "num_values": sizes.numel()}
            case.facts.setdefault("bad_weights", []).append(facts)
            _try_mended(case, weight, facts)
        elif sizes.numel() > 1:
            _try_outlier(case, name, weight, sizes)


def _try_mended(case: Case, weight: torch.Tensor, facts: dict[str, Any]) -> None:
    case.try_arm("mended_weight", "weights", lambda: _measured(case, without_non_finite(weight)), facts)


def _try_outlier(case: Case, name: str, weight: torch.Tensor, sizes: torch.Tensor) -> None:
    (largest, second), places = torch.topk(sizes, 2)
    if float(largest) <= _OUTLIER * max(float(second), 1e-6):
        return
    found = case.facts.setdefault("outliers", [])
    if len(found) == _MOST_OUTLIERS:
        return
    index = int(places[0])
    facts = {"weight": name, "value": float(weight.flatten()[index]), "typical": float(sizes.median())}
    found.append(facts)
    case.try_arm("mended_weight", "weights", lambda: _measured(case, value_replaced(weight, index, 0.0)), facts)


def frozen_numbers(model: torch.nn.Module) -> list[tuple[str, torch.Tensor]]:
    """The base's floating numbers by name: plain weights, and the scales of quantised ones."""
    found = []
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            continue
        state = getattr(weight, "quant_state", None)
        if state is not None:
            scales = state.state2.absmax if state.nested else state.absmax
            found.append((f"{plain_name(name)}.absmax", scales))
        elif weight.is_floating_point():
            found.append((plain_name(name), weight.data))
    return found
