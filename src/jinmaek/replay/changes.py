"""What an arm changes of a training while the step runs again: one thing each, put back afterwards."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from jinmaek.replay.dequantisation import reference_linear
from jinmaek.training.state import State
from jinmaek.training.step import Training


@contextmanager
def computed_in(training: Training, dtype: torch.dtype) -> Iterator[None]:
    """The whole step in ``dtype`` (fp16 is scaled as before, others need no scale).

    Weights that are stored in a half-precision dtype of their own are widened or converted for as long.
    """
    kept = training.dtype, training.loss_scale
    quantised = [module for module in training.model.modules() if hasattr(module, "compute_dtype")]
    computing = [module.compute_dtype for module in quantised]
    stored = [
        (weight, weight.data)
        for weight in training.model.parameters()
        if weight.dtype in (torch.float16, torch.bfloat16) and not weight.requires_grad
    ]
    try:
        training.dtype = None if dtype == torch.float32 else dtype
        training.loss_scale = training.loss_scale if dtype == torch.float16 else None
        for module in quantised:
            module.compute_dtype = dtype
        for weight, data in stored:
            weight.data = data.to(dtype)
        yield
    finally:
        training.dtype, training.loss_scale = kept
        for module, before in zip(quantised, computing, strict=True):
            module.compute_dtype = before
        for weight, data in stored:
            weight.data = data


@contextmanager
def plain(training: Training) -> Iterator[bool]:
    """Without the fused kernels; yields whether there were any."""
    fused, training.fused = training.fused, None
    try:
        yield fused is not None
    finally:
        training.fused = fused


@contextmanager
def without_dropout(training: Training) -> Iterator[None]:
    """Every dropout of the model passes everything on."""
    layers = [module for module in training.model.modules() if isinstance(module, nn.Dropout)]
    shares = [layer.p for layer in layers]
    try:
        for layer in layers:
            layer.p = 0.0
        yield
    finally:
        for layer, share in zip(layers, shares, strict=True):
            layer.p = share


@contextmanager
def attention_by(training: Training, name: str) -> Iterator[None]:
    """Another of transformers' attention implementations."""
    model = training.model.get_base_model()
    before = model.config._attn_implementation
    model.set_attn_implementation(name)
    try:
        yield
    finally:
        model.set_attn_implementation(before)


@contextmanager
def attention_in_fp32(training: Training) -> Iterator[None]:
    """The same attention, its products and softmax in fp32; the output is rounded back."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward
    from transformers.masking_utils import sdpa_mask

    def attend(module: nn.Module, *tensors: torch.Tensor | None, **settings: Any) -> Any:
        query = tensors[0]
        assert query is not None
        with torch.autocast(query.device.type, enabled=False):
            wide = [each if each is None or each.dtype == torch.bool else each.float() for each in tensors]
            output, weights = sdpa_attention_forward(module, *wide, **settings)
        return output.to(query.dtype), weights

    AttentionInterface.register("jinmaek_fp32", attend)
    AttentionMaskInterface.register("jinmaek_fp32", sdpa_mask)
    with attention_by(training, "jinmaek_fp32"):
        yield


@contextmanager
def reference_dequantisation(training: Training) -> Iterator[None]:
    """4-bit layers through a plain dequantisation and torch's own product, in the same compute dtype."""
    from bitsandbytes.nn import Linear4bit

    layers = [module for module in training.model.modules() if isinstance(module, Linear4bit)]
    try:
        for layer in layers:
            layer.forward = reference_linear(layer)
        yield
    finally:
        for layer in layers:
            del layer.forward


@contextmanager
def value_replaced(weight: torch.Tensor, index: int, value: float) -> Iterator[None]:
    """One stored number of the frozen base, by flat ``index``, replaced."""
    flat = weight.view(-1)
    before = flat[index].clone()
    try:
        flat[index] = value
        yield
    finally:
        flat[index] = before


@contextmanager
def without_non_finite(weight: torch.Tensor) -> Iterator[None]:
    """A stored tensor of the frozen base with 0 for everything in it that is not finite."""
    before = weight.clone()
    try:
        torch.nan_to_num_(weight, nan=0.0, posinf=0.0, neginf=0.0)
        yield
    finally:
        weight.copy_(before)


def with_weights(state: State, weights: Mapping[str, torch.Tensor]) -> State:
    """``state`` with another adapter."""
    return {**state, "weights": weights}


def with_loss_scale(state: State, scale: float) -> State:
    """``state`` with another fp16 loss scale."""
    return {**state, "loss_scale": {**state["loss_scale"], "scale": torch.tensor(scale)}}


@contextmanager
def lr_times(training: Training, factor: Callable[[int], float]) -> Iterator[None]:
    """Every update moves by ``factor(step)`` times as much; ``step`` counts the schedule's updates.

    The optimizer's own step method is wrapped: the schedule goes on as it was.
    """
    optimizer = training.optimizer
    step = optimizer.step

    @functools.wraps(step)  # the schedule looks for the mark that it put on the method
    def slower() -> None:
        rates = [group["lr"] for group in optimizer.param_groups]
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * factor(training.schedule.last_epoch)
        try:
            step()
        finally:
            for group, rate in zip(optimizer.param_groups, rates, strict=True):
                group["lr"] = rate

    try:
        optimizer.step = slower  # type: ignore[method-assign,assignment]
        yield
    finally:
        optimizer.step = step  # type: ignore[method-assign]
