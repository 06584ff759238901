"""Rotary positions, written over queries and keys where they lie (GPT-NeoX's and Llama's halves)."""

from __future__ import annotations

import torch
import triton
import triton.language as tl


@triton.jit
def _rotate_kernel(
    x_ptr, cos_ptr, sin_ptr, positions_ptr, num_heads, token_stride, head_stride, pair_stride,
    HALF: tl.constexpr, HEADS: tl.constexpr, PAIRS: tl.constexpr, BACK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    position = tl.load(positions_ptr + token).to(tl.int64)
    heads = tl.program_id(1) * HEADS + tl.arange(0, HEADS)[:, None]
    columns = tl.arange(0, HALF)[None, :]
    inside = heads < num_heads
    cos = tl.load(cos_ptr + position * HALF + columns)
    sin = tl.load(sin_ptr + position * HALF + columns)
    if BACK:
        sin = -sin
    place = x_ptr + token * token_stride + columns
    place += (heads // 2 * head_stride + heads % 2 * pair_stride) if PAIRS else heads * head_stride
    first = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    second = tl.load(place + HALF, mask=inside, other=0.0).to(tl.float32)
    dtype = x_ptr.dtype.element_ty
    tl.store(place, (first * cos - second * sin).to(dtype), mask=inside)
    tl.store(place + HALF, (second * cos + first * sin).to(dtype), mask=inside)


def rotate(
    x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, positions: torch.Tensor, *, back: bool = False
) -> None:
    """Turn the first dimensions of each head by the angle of its position, in place; ``back`` is the gradient.

    Args:
        x: [tokens, heads, head size] or [tokens, heads, 2, head size], any strides but the last, which is 1.
        cos: fp32 [positions, half the turned dimensions], a power of two; ``sin`` likewise.
        sin: see ``cos``.
        positions: int32 [tokens].
    """
    pairs = x.ndim == 4
    num_heads = x.shape[1] * (2 if pairs else 1)
    heads = min(triton.next_power_of_2(num_heads), 32)
    _rotate_kernel[(x.shape[0], triton.cdiv(num_heads, heads))](
        x, cos, sin, positions, num_heads, x.stride(0), x.stride(1), x.stride(2),
        HALF=cos.shape[1], HEADS=heads, PAIRS=pairs, BACK=back,
    )  # fmt: skip
