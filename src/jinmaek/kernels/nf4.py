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

_BYTES = 1024  # of a tile that is written as it is read
_ROWS, _COLUMNS = 64, 32  # of one that is written transposed: bytes of so many rows


@triton.jit
def _halves(
    place, inside, packed_ptr, code_ptr, absmax_ptr, code2_ptr, absmax2_ptr, offset_ptr, divisor_ptr,
    BLOCK: tl.constexpr, BLOCK2: tl.constexpr, NESTED: tl.constexpr, DIVIDED: tl.constexpr,
):  # fmt: skip
    """The two numbers of each byte at ``place``, fp32: of the high nibble, of the low one."""
    packed = tl.load(packed_ptr + place, mask=inside, other=0).to(tl.int32)
    block = place * 2 // BLOCK
    if NESTED:
        scale = tl.load(code2_ptr + tl.load(absmax_ptr + block, mask=inside, other=0).to(tl.int32))
        scale = scale * tl.load(absmax2_ptr + block // BLOCK2, mask=inside, other=0.0) + tl.load(offset_ptr)
    else:
        scale = tl.load(absmax_ptr + block, mask=inside, other=0.0)
    high = tl.load(code_ptr + (packed >> 4)) * scale
    low = tl.load(code_ptr + (packed & 15)) * scale
    if DIVIDED:
        high /= tl.load(divisor_ptr)
        low /= tl.load(divisor_ptr)
    return high, low


@triton.jit
def _dequantise_kernel(
    packed_ptr, code_ptr, absmax_ptr, code2_ptr, absmax2_ptr, offset_ptr, divisor_ptr, out_ptr,
    row_bytes, out_stride,
    BLOCK: tl.constexpr, BLOCK2: tl.constexpr, NESTED: tl.constexpr, DIVIDED: tl.constexpr, BYTES: tl.constexpr,
):  # fmt: skip
    row, first = tl.program_id(1), tl.program_id(0) * BYTES
    columns = first + tl.arange(0, BYTES)
    high, low = _halves(
        row * row_bytes + columns, columns < row_bytes, packed_ptr, code_ptr, absmax_ptr, code2_ptr, absmax2_ptr,
        offset_ptr, divisor_ptr, BLOCK, BLOCK2, NESTED, DIVIDED,
    )  # fmt: skip
    wide = first * 2 + tl.arange(0, BYTES * 2)
    both = tl.interleave(high, low).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + row.to(tl.int64) * out_stride + wide, both, mask=wide < row_bytes * 2)


@triton.jit
def _transposed_kernel(
    packed_ptr, code_ptr, absmax_ptr, code2_ptr, absmax2_ptr, offset_ptr, divisor_ptr, out_ptr,
    num_rows, row_bytes, out_stride,
    BLOCK: tl.constexpr, BLOCK2: tl.constexpr, NESTED: tl.constexpr, DIVIDED: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    inside = (rows < num_rows) & (columns < row_bytes)
    high, low = _halves(
        rows * row_bytes + columns, inside, packed_ptr, code_ptr, absmax_ptr, code2_ptr, absmax2_ptr,
        offset_ptr, divisor_ptr, BLOCK, BLOCK2, NESTED, DIVIDED,
    )  # fmt: skip
    to = out_ptr + (columns * 2).to(tl.int64) * out_stride + rows
    tl.store(to, high.to(out_ptr.dtype.element_ty), mask=inside)
    tl.store(to + out_stride, low.to(out_ptr.dtype.element_ty), mask=inside)


def dequantise(
    packed: torch.Tensor,
    state: Any,
    out: torch.Tensor,
    *,
    divisor: torch.Tensor | None = None,
    transposed: bool = False,
) -> torch.Tensor:
    """Write the matrix that ``packed`` and bitsandbytes' ``QuantState`` stand for into the first columns of ``out``.

    Args:
        packed: uint8 codes, two to a byte, of a matrix [rows, columns] with an even number of columns.
        state: its ``QuantState``.
        out: [rows, at least columns] (transposed: [columns, at least rows]) of any floating dtype, rows contiguous.
        divisor: fp32 [1]: what the numbers are divided by first (for fp8).
        transposed: write the transposed matrix.
    """
    num_rows, num_columns = state.shape
    second = state.state2 if state.nested else state
    row_bytes = num_columns // 2
    tensors = (
        packed, state.code, state.absmax, second.code, second.absmax, state.offset if state.nested else state.code,
        divisor if divisor is not None else state.code, out,
    )  # fmt: skip
    kinds = {
        "BLOCK": state.blocksize, "BLOCK2": second.blocksize, "NESTED": bool(state.nested),
        "DIVIDED": divisor is not None, "enable_fp_fusion": False,
    }  # fmt: skip
    if transposed:
        grid = (triton.cdiv(num_rows, _ROWS), triton.cdiv(row_bytes, _COLUMNS))
        _transposed_kernel[grid](*tensors, num_rows, row_bytes, out.stride(0), **kinds, ROWS=_ROWS, COLUMNS=_COLUMNS)
    else:
        size = _tile(row_bytes)
        _dequantise_kernel[(triton.cdiv(row_bytes, size), num_rows)](
            *tensors, row_bytes, out.stride(0), **kinds, BYTES=size
        )
    return out


def _tile(row_bytes: int) -> int:
    """Bytes of a row for one program: the largest power of two that divides the row, if it is large enough."""
    whole = row_bytes & -row_bytes
    return min(_BYTES, whole if whole >= 256 else triton.next_power_of_2(row_bytes))


def is_supported(state: Any) -> bool:
    """Whether the kernel reads this ``QuantState``: a matrix with whole bytes a row and scales in blocks of a row."""
    return len(state.shape) == 2 and state.shape[1] % 2 == 0 and state.code.dtype == torch.float32
