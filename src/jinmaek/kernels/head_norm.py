"""RMSNorm of each query and key head before its rotary position (Qwen3, Gemma 3, EXAONE 4), forward and backward."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from jinmaek.kernels.norm import Norm

_TILE = 4096  # numbers that a program holds


@triton.jit
def _forward_kernel(
    x_ptr, out_ptr, query_ptr, key_ptr, num_queries, num_heads, x_stride, out_stride, eps,
    HEADS: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    heads = tl.program_id(1) * HEADS + tl.arange(0, HEADS)[:, None]
    columns = tl.arange(0, SIZE)[None, :]
    inside = heads < num_heads
    x = tl.load(x_ptr + token * x_stride + heads * SIZE + columns, mask=inside, other=0.0).to(tl.float32)
    weight = tl.where(heads < num_queries, tl.load(query_ptr + columns), tl.load(key_ptr + columns))
    inverse = 1 / tl.sqrt(tl.sum(x * x, 1) / SIZE + eps)
    y = x * inverse[:, None] * weight
    tl.store(out_ptr + token * out_stride + heads * SIZE + columns, y.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _backward_kernel(
    x_ptr, grad_ptr, query_ptr, key_ptr, num_queries, num_heads, x_stride, grad_stride, eps,
    HEADS: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    heads = tl.program_id(1) * HEADS + tl.arange(0, HEADS)[:, None]
    columns = tl.arange(0, SIZE)[None, :]
    inside = heads < num_heads
    x = tl.load(x_ptr + token * x_stride + heads * SIZE + columns, mask=inside, other=0.0).to(tl.float32)
    place = grad_ptr + token * grad_stride + heads * SIZE + columns
    grad = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    grad *= tl.where(heads < num_queries, tl.load(query_ptr + columns), tl.load(key_ptr + columns))
    inverse = (1 / tl.sqrt(tl.sum(x * x, 1) / SIZE + eps))[:, None]
    normal = x * inverse
    along = tl.sum(grad * normal, 1) / SIZE
    result = (grad - normal * along[:, None]) * inverse
    tl.store(place, result.to(grad_ptr.dtype.element_ty), mask=inside)


def _launch(num_heads: int, size: int) -> int:
    """Heads that one program takes."""
    return min(int(triton.next_power_of_2(num_heads)), max(_TILE // size, 1))


def normalise_heads(x: torch.Tensor, norms: tuple[Norm, Norm], num_queries: int, out: torch.Tensor) -> None:
    """The norm of each query and key head into ``out``.

    Args:
        x: [tokens, at least the heads of ``out`` times their size], rows contiguous: queries, then keys.
        norms: of queries and of keys, weights fp32 [head size], of one eps.
        num_queries: heads that are queries.
        out: [tokens, query and key heads times their size], rows contiguous.
    """
    query, key = norms
    size = query.weight.numel()
    num_heads = out.shape[1] // size
    heads = _launch(num_heads, size)
    _forward_kernel[(x.shape[0], triton.cdiv(num_heads, heads))](
        x, out, query.weight, key.weight, num_queries, num_heads, x.stride(0), out.stride(0), query.eps,
        HEADS=heads, SIZE=size,
    )  # fmt: skip


def normalise_heads_backward(
    x: torch.Tensor, norms: tuple[Norm, Norm], num_queries: int, num_keys: int, grad: torch.Tensor
) -> None:
    """Gradient of ``x`` from that of :func:`normalise_heads`' result, written over it.

    ``grad``: [tokens, at least the query and key heads], rows contiguous.
    """
    query, key = norms
    size, num_heads = query.weight.numel(), num_queries + num_keys
    heads = _launch(num_heads, size)
    _backward_kernel[(x.shape[0], triton.cdiv(num_heads, heads))](
        x, grad, query.weight, key.weight, num_queries, num_heads, x.stride(0), grad.stride(0), query.eps,
        HEADS=heads, SIZE=size,
    )  # fmt: skip
