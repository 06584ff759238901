"""4-bit weights turned back into numbers by the definition, in plain torch: a reference for the fast kernels.

Formula: bitsandbytes' ``QuantState`` (functional.py): value = code[nibble] · absmax[block], the high nibble first;
with double quantisation absmax = code2[byte] · absmax2[block of 256] + offset.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


@torch.no_grad()
def dequantised(weight: Any) -> torch.Tensor:
    """The matrix that a ``Params4bit`` stands for, fp32 [out, in]."""
    state = weight.quant_state
    packed = weight.data.reshape(-1).view(torch.uint8)
    nibbles = torch.stack((packed >> 4, packed & 15), dim=1).reshape(-1)
    values = state.code.float()[nibbles.int()]
    size = state.shape.numel()
    values = values[:size]
    if short := -size % state.blocksize:  # of the last block
        values = nn.functional.pad(values, (0, short))
    blocks = values.reshape(-1, state.blocksize) * _absmax(state)[:, None]
    matrix: torch.Tensor = blocks.reshape(-1)[:size].reshape(state.shape)
    return matrix


def _absmax(state: Any) -> torch.Tensor:
    if not state.nested:
        absmax: torch.Tensor = state.absmax.float()
        return absmax
    inner = state.state2
    values = inner.code.float()[state.absmax.int()]
    scales = inner.absmax.float().repeat_interleave(inner.blocksize)[: values.numel()]
    nested: torch.Tensor = values * scales + state.offset
    return nested


class _ReferenceProduct(torch.autograd.Function):
    """x · Wᵀ with W made anew in forward and backward: keeping it would take four bytes a weight."""

    @staticmethod
    def forward(context: Any, x: torch.Tensor, weight: Any, dtype: torch.dtype) -> torch.Tensor:
        context.weight, context.dtype = weight, dtype
        return x @ dequantised(weight).to(dtype).t()

    @staticmethod
    def backward(context: Any, *grads: torch.Tensor) -> Any:
        return grads[0] @ dequantised(context.weight).to(context.dtype), None, None


def reference_linear(layer: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """A forward for a bitsandbytes ``Linear4bit`` that uses none of its kernels.

    x: [..., in] of any floating dtype; the product is in the layer's compute dtype, the result in x's.
    """

    def forward(x: torch.Tensor) -> torch.Tensor:
        dtype: Any = layer.compute_dtype or x.dtype
        with torch.autocast(x.device.type, enabled=False):
            product: torch.Tensor = _ReferenceProduct.apply(x.to(dtype), layer.weight, dtype)  # type: ignore[no-untyped-call]
            if layer.bias is not None:
                product = product + layer.bias.to(dtype)  # type: ignore[operator]
        return product.to(x.dtype)

    return forward
