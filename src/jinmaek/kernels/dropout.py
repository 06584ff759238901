"""Dropout whose mask is a function of a seed and the place: the backward pass makes it anew instead of keeping it."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

_SIZE = 1024


@triton.jit
def _dropout_kernel(
    x_ptr, out_ptr, add_ptr, seed_ptr, salt, width, x_stride, out_stride, add_stride, share,
    ADD: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0)
    columns = tl.program_id(1) * SIZE + tl.arange(0, SIZE)
    inside = columns < width
    seed = tl.load(seed_ptr) + salt
    kept = tl.rand(seed, row * width + columns) >= share
    x = tl.load(x_ptr + row.to(tl.int64) * x_stride + columns, mask=inside, other=0.0).to(tl.float32)
    y = tl.where(kept, x / (1 - share), 0.0)
    if ADD:
        y += tl.load(add_ptr + row.to(tl.int64) * add_stride + columns, mask=inside, other=0.0).to(tl.float32)
    tl.store(out_ptr + row.to(tl.int64) * out_stride + columns, y.to(out_ptr.dtype.element_ty), mask=inside)


def drop(
    x: torch.Tensor,
    share: float,
    seed: torch.Tensor,
    salt: int,
    out: torch.Tensor,
    *,
    add: torch.Tensor | None = None,
) -> torch.Tensor:
    """``out`` = x with a ``share`` of it set to 0 and the rest divided by 1 − share, plus ``add``.

    Args:
        x: [tokens, width], rows contiguous; may be wider than what is read: ``out`` says how wide.
        share: probability of 0.
        seed: int64 [1] on the device: the step's and microbatch's.
        salt: tells layers apart.
        out: [tokens, width]; may be ``add``.
        add: [tokens, width].
    """
    tokens, width = out.shape
    more = add if add is not None else out
    _dropout_kernel[(tokens, triton.cdiv(width, _SIZE))](
        x, out, more, seed, salt, width, x.stride(0), out.stride(0), more.stride(0), share,
        ADD=add is not None, SIZE=_SIZE,
    )  # fmt: skip
    return out
