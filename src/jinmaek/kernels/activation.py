"""The MLP's activations, forward and backward: exact GELU, and gated SiLU or tanh-GELU."""

from __future__ import annotations

from typing import Literal

import torch
import triton
import triton.language as tl

Activation = Literal["gelu", "silu", "gelu_tanh"]
_KINDS: dict[Activation, int] = {"gelu": 0, "silu": 1, "gelu_tanh": 2}
_COLUMNS = 1024


@triton.jit
def _value_and_slope(x, KIND: tl.constexpr):
    """f(x) and f'(x) in fp32."""
    if KIND == 0:
        below = 0.5 * (1 + tl.math.erf(x * 0.7071067811865476))
        return x * below, below + x * 0.3989422804014327 * tl.exp(-0.5 * x * x)
    if KIND == 1:
        below = 1 / (1 + tl.exp(-x))
        return x * below, below * (1 + x * (1 - below))
    inner = 0.7978845608028654 * (x + 0.044715 * x * x * x)
    tanh = 1 - 2 / (1 + tl.exp(2 * inner))
    slope = 0.7978845608028654 * (1 + 0.134145 * x * x)
    return 0.5 * x * (1 + tanh), 0.5 * (1 + tanh) + 0.5 * x * (1 - tanh * tanh) * slope


@triton.jit
def _forward_kernel(x_ptr, out_ptr, width, x_stride, out_stride, KIND: tl.constexpr, GATED: tl.constexpr, SIZE: tl.constexpr):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * SIZE + tl.arange(0, SIZE)
    inside = columns < width
    x = tl.load(x_ptr + row * x_stride + columns, mask=inside, other=0.0).to(tl.float32)
    y, _ = _value_and_slope(x, KIND)
    if GATED:
        y *= tl.load(x_ptr + row * x_stride + width + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + row * out_stride + columns, y.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _backward_kernel(x_ptr, grad_ptr, out_ptr, width, stride, grad_stride, KIND: tl.constexpr, GATED: tl.constexpr, SIZE: tl.constexpr):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * SIZE + tl.arange(0, SIZE)
    inside = columns < width
    place = row * stride + columns
    x = tl.load(x_ptr + place, mask=inside, other=0.0).to(tl.float32)
    grad = tl.load(grad_ptr + row * grad_stride + columns, mask=inside, other=0.0).to(tl.float32)
    y, slope = _value_and_slope(x, KIND)
    dtype = out_ptr.dtype.element_ty
    if GATED:
        factor = tl.load(x_ptr + place + width, mask=inside, other=0.0).to(tl.float32)
        tl.store(out_ptr + place + width, (grad * y).to(dtype), mask=inside)
        grad *= factor
    tl.store(out_ptr + place, (grad * slope).to(dtype), mask=inside)


def _grid(rows: int, width: int) -> tuple[int, int]:
    return rows, triton.cdiv(width, _COLUMNS)


def activate(x: torch.Tensor, out: torch.Tensor, kind: Activation, *, gated: bool) -> None:
    """f(x), or f(gate) · up of ``x`` = [gate, up], into the first columns of ``out``.

    x: [tokens, width] or [tokens, 2 · width], rows contiguous; out: [tokens, at least width].
    """
    width = x.shape[1] // 2 if gated else x.shape[1]
    _forward_kernel[_grid(x.shape[0], width)](
        x, out, width, x.stride(0), out.stride(0), KIND=_KINDS[kind], GATED=gated, SIZE=_COLUMNS
    )


def activate_backward(x: torch.Tensor, grad: torch.Tensor, kind: Activation, *, gated: bool) -> torch.Tensor:
    """Gradient of ``x`` from that of :func:`activate`'s result, written over ``x`` and returned."""
    width = x.shape[1] // 2 if gated else x.shape[1]
    _backward_kernel[_grid(x.shape[0], width)](
        x, grad, x, width, x.stride(0), grad.stride(0), KIND=_KINDS[kind], GATED=gated, SIZE=_COLUMNS
    )
    return x
