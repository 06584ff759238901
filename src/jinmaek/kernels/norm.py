"""Residual sum and normalisation in one pass: LayerNorm (one or two of the same input, as in GPT-NeoX) and RMSNorm.

Where a model has no norm in a place (EXAONE 4 before its parts), ``None`` stands for it: the sum as it is.

Statistics and sums are fp32 inside, whatever the tensors are stored in. Backward recomputes them from the stored
sum, so that nothing but it has to be kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
import triton.language as tl


@dataclass(frozen=True, slots=True)
class Norm:
    """A norm's weights: fp32 [hidden]; ``bias`` is ``None`` without one. ``centred`` is LayerNorm, else RMSNorm."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    eps: float
    centred: bool


@triton.jit
def _forward_kernel(
    x_ptr, delta1_ptr, delta2_ptr, shift_ptr, sum_ptr, weight1_ptr, bias1_ptr, out1_ptr, weight2_ptr, bias2_ptr, out2_ptr,
    hidden, out1_stride, out2_stride, eps,
    DELTAS: tl.constexpr, SHIFT: tl.constexpr, SUM: tl.constexpr, PLAIN: tl.constexpr, CENTRED: tl.constexpr,
    BIAS: tl.constexpr, NORMS: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, SIZE)
    inside = columns < hidden
    x = tl.load(x_ptr + row * hidden + columns, mask=inside, other=0.0).to(tl.float32)
    if DELTAS > 0:
        x += tl.load(delta1_ptr + row * hidden + columns, mask=inside, other=0.0).to(tl.float32)
    if DELTAS > 1:
        x += tl.load(delta2_ptr + row * hidden + columns, mask=inside, other=0.0).to(tl.float32)
    if SHIFT:
        x += tl.load(shift_ptr + columns, mask=inside, other=0.0)
    if SUM:
        # What the backward pass will read is what is normalised here.
        stored = x.to(sum_ptr.dtype.element_ty)
        tl.store(sum_ptr + row * hidden + columns, stored, mask=inside)
        x = stored.to(tl.float32)
    mean = tl.sum(x, 0) / hidden if CENTRED else 0.0
    centred = tl.where(inside, x - mean, 0.0)
    normal = centred * (1 / tl.sqrt(tl.sum(centred * centred, 0) / hidden + eps))
    y = x if PLAIN else normal * tl.load(weight1_ptr + columns, mask=inside, other=0.0)
    if BIAS:
        y += tl.load(bias1_ptr + columns, mask=inside, other=0.0)
    tl.store(out1_ptr + row * out1_stride + columns, y.to(out1_ptr.dtype.element_ty), mask=inside)
    if NORMS > 1:
        y = normal * tl.load(weight2_ptr + columns, mask=inside, other=0.0)
        if BIAS:
            y += tl.load(bias2_ptr + columns, mask=inside, other=0.0)
        tl.store(out2_ptr + row * out2_stride + columns, y.to(out2_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _backward_kernel(
    x_ptr, grad1_ptr, weight1_ptr, grad2_ptr, weight2_ptr, residual_ptr, out_ptr, half_ptr,
    hidden, grad1_stride, grad2_stride, eps,
    PLAIN: tl.constexpr, CENTRED: tl.constexpr, NORMS: tl.constexpr, RESIDUAL: tl.constexpr, HALF: tl.constexpr,
    SIZE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, SIZE)
    inside = columns < hidden
    place = row * hidden + columns
    x = tl.load(x_ptr + place, mask=inside, other=0.0).to(tl.float32)
    mean = tl.sum(x, 0) / hidden if CENTRED else 0.0
    centred = tl.where(inside, x - mean, 0.0)
    inverse = 1 / tl.sqrt(tl.sum(centred * centred, 0) / hidden + eps)
    normal = centred * inverse
    grad = tl.load(grad1_ptr + row * grad1_stride + columns, mask=inside, other=0.0).to(tl.float32)
    if not PLAIN:
        grad *= tl.load(weight1_ptr + columns, mask=inside, other=0.0)
    if NORMS > 1:
        second = tl.load(grad2_ptr + row * grad2_stride + columns, mask=inside, other=0.0).to(tl.float32)
        grad += second * tl.load(weight2_ptr + columns, mask=inside, other=0.0)
    along = tl.sum(grad * normal, 0) / hidden
    level = tl.sum(grad, 0) / hidden if CENTRED else 0.0
    result = grad if PLAIN else (grad - level - normal * along) * inverse
    if RESIDUAL:
        result += tl.load(residual_ptr + place, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + place, result.to(out_ptr.dtype.element_ty), mask=inside)
    if HALF:
        tl.store(half_ptr + place, result.to(half_ptr.dtype.element_ty), mask=inside)


def _none(x: torch.Tensor) -> Norm:
    """What a kernel is given where there is no norm; it reads none of it."""
    return Norm(x, None, 1.0, centred=False)


def _launch(hidden: int) -> dict[str, int]:
    size = triton.next_power_of_2(hidden)
    return {"SIZE": size, "num_warps": min(max(size // 1024, 1), 16)}


def add_and_normalise(
    x: torch.Tensor,
    deltas: Sequence[torch.Tensor],
    shift: torch.Tensor | None,
    norms: Sequence[Norm | None],
    outs: Sequence[torch.Tensor],
    total: torch.Tensor | None = None,
) -> None:
    """``total`` = x + Σ deltas + shift, rounded to its dtype, and each of ``norms`` of it into one of ``outs``.

    Args:
        x: [tokens, hidden], contiguous.
        deltas: none, one or two of the same shape, of any dtype.
        shift: fp32 [hidden], added to each row.
        norms: one or two, of the same kind and eps; one ``None``: the sum itself.
        outs: [tokens, at least hidden], one a norm; only the first ``hidden`` columns are written.
        total: [tokens, hidden], contiguous; may be ``x``. ``None``: there is nothing to add.
    """
    assert total is not None or not (deltas or shift is not None)
    one, other = norms[0] or _none(x), norms[-1] or _none(x)
    assert (one.eps, one.centred) == (other.eps, other.centred)
    _forward_kernel[(x.shape[0],)](
        x, deltas[0] if deltas else x, deltas[-1] if deltas else x, shift if shift is not None else x,
        total if total is not None else x,
        one.weight, one.bias if one.bias is not None else x, outs[0],
        other.weight, other.bias if other.bias is not None else x, outs[-1],
        x.shape[1], outs[0].stride(0), outs[-1].stride(0), one.eps,
        DELTAS=len(deltas), SHIFT=shift is not None, SUM=total is not None, PLAIN=norms[0] is None,
        CENTRED=one.centred, BIAS=one.bias is not None, NORMS=len(norms), **_launch(x.shape[1]),
    )  # fmt: skip


def normalise_backward(
    x: torch.Tensor,
    grads: Sequence[torch.Tensor],
    norms: Sequence[Norm | None],
    residual: torch.Tensor | None,
    out: torch.Tensor,
    half: torch.Tensor | None = None,
) -> None:
    """Gradient of ``x`` through one or two norms of it, plus ``residual``, into ``out`` (may be ``residual``).

    Args:
        x: what was normalised, [tokens, hidden], contiguous, like all the others but ``grads``.
        grads: of each norm's output; their rows may lie further apart.
        norms: those norms, of the same kind and eps.
        residual: the gradient that reaches ``x`` past the norms.
        out: takes the sum.
        half: takes it once more, in a dtype of its own.
    """
    one, other = norms[0] or _none(x), norms[-1] or _none(x)
    _backward_kernel[(x.shape[0],)](
        x, grads[0], one.weight, grads[-1], other.weight, residual if residual is not None else x, out,
        half if half is not None else out, x.shape[1], grads[0].stride(0), grads[-1].stride(0), one.eps,
        PLAIN=norms[0] is None, CENTRED=one.centred, NORMS=len(norms), RESIDUAL=residual is not None, HALF=half is not None,
        **_launch(x.shape[1]),
    )  # fmt: skip
