"""4-bit weights turned back into a half-precision matrix, one launch for codes and doubly quantised scales.

Formula: bitsandbytes' ``QuantState`` (functional.py): value = code[nibble] · absmax[block], the high nibble first;
with double quantisation absmax = code2[byte] · absmax2[block of 256] + offset. Two roundings each, so no fused
multiply-add: the result is bitsandbytes' own to the bit.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

_ROWS, _MOST_BYTES = 4, 512  # of a tile: 4 rows of 1024 numbers


@triton.jit
def _dequantise_kernel(
    packed_ptr, code_ptr, absmax_ptr, code2_ptr, absmax2_ptr, offset_ptr, out_ptr, scale_ptr,
    num_rows, row_bytes, out_stride,
    BLOCK: tl.constexpr, BLOCK2: tl.constexpr, NESTED: tl.constexpr, SCALED: tl.constexpr, TRANSPOSED: tl.constexpr,
    ROWS: tl.constexpr, BYTES: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    columns = tl.program_id(1) * BYTES + tl.arange(0, BYTES)[None, :]
    inside = (rows < num_rows) & (columns < row_bytes)
    place = rows.to(tl.int64) * row_bytes + columns
    packed = tl.load(packed_ptr + place, mask=inside, other=0).to(tl.int32)
    block = place * 2 // BLOCK
    if NESTED:
        scale = tl.load(code2_ptr + tl.load(absmax_ptr + block, mask=inside, other=0).to(tl.int32))
        scale = scale * tl.load(absmax2_ptr + block // BLOCK2, mask=inside, other=0.0) + tl.load(offset_ptr)
    else:
        scale = tl.load(absmax_ptr + block, mask=inside, other=0.0)
    high = tl.load(code_ptr + (packed >> 4)) * scale
    low = tl.load(code_ptr + (packed & 15)) * scale
    if SCALED:
        high = high / tl.load(scale_ptr)
        low = low / tl.load(scale_ptr)
    dtype = out_ptr.dtype.element_ty
    if TRANSPOSED:
        to = (columns * 2).to(tl.int64) * out_stride + rows
        tl.store(out_ptr + to, high.to(dtype), mask=inside)
        tl.store(out_ptr + to + out_stride, low.to(dtype), mask=inside)
    else:
        both = tl.interleave(high, low)
        wide = tl.program_id(1) * BYTES * 2 + tl.arange(0, BYTES * 2)[None, :]
        to = rows.to(tl.int64) * out_stride + wide
        tl.store(out_ptr + to, both.to(dtype), mask=(rows < num_rows) & (wide < row_bytes * 2))


def dequantise(
    packed: torch.Tensor, state: Any, out: torch.Tensor, *, scale: torch.Tensor | None = None, transposed: bool = False
) -> torch.Tensor:
    """Write the matrix that ``packed`` and bitsandbytes' ``QuantState`` stand for into the first columns of ``out``.

    Args:
        packed: uint8 codes, two to a byte, of a matrix [rows, columns] with an even number of columns.
        state: its ``QuantState``.
        out: [rows, at least columns] (transposed: [columns, at least rows]) of any floating dtype, rows contiguous.
        scale: fp32 [1]: what the numbers are divided by first (for fp8).
        transposed: write the transposed matrix.
    """
    num_rows, num_columns = state.shape
    nested = bool(state.nested)
    second = state.state2 if nested else state
    row_bytes = num_columns // 2
    # A transposed tile is written along its rows: as many of them as make whole sectors.
    rows, size = (64, 32) if transposed else (_ROWS, min(_MOST_BYTES, triton.next_power_of_2(row_bytes)))
    grid = (triton.cdiv(num_rows, rows), triton.cdiv(row_bytes, size))
    _dequantise_kernel[grid](
        packed, state.code, state.absmax, second.code, second.absmax, state.offset if nested else state.code, out,
        scale if scale is not None else state.code, num_rows, row_bytes, out.stride(0),
        BLOCK=state.blocksize, BLOCK2=second.blocksize, NESTED=nested, SCALED=scale is not None,
        TRANSPOSED=transposed, ROWS=rows, BYTES=size, enable_fp_fusion=False,
    )  # fmt: skip
    return out


def is_supported(state: Any) -> bool:
    """Whether the kernel reads this ``QuantState``: a matrix with whole bytes a row and scales in blocks of a row."""
    return len(state.shape) == 2 and state.shape[1] % 2 == 0 and state.code.dtype == torch.float32
