"""Products with the frozen base in fp8 (e4m3): one scale a row for activations and gradients, one a matrix for weights.

Lossy, and only where the recipe asks for it. The adapter's own products stay in half precision.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

DTYPE = torch.float8_e4m3fn
LARGEST = 448.0


@triton.jit
def _quantise_kernel(x_ptr, out_ptr, scale_ptr, width, x_stride, LARGEST: tl.constexpr, SIZE: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, SIZE)
    inside = columns < width
    x = tl.load(x_ptr + row * x_stride + columns, mask=inside, other=0.0).to(tl.float32)
    most = tl.max(tl.abs(x), 0)
    scale = tl.where(most > 0, most / LARGEST, 1.0)
    tl.store(scale_ptr + row, scale)
    tl.store(out_ptr + row * width + columns, (x / scale).to(out_ptr.dtype.element_ty), mask=inside)


def quantise_rows(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x [rows, width] as e4m3 [rows, width] times fp32 [rows, 1]; NaN stays NaN."""
    rows, width = x.shape
    out = torch.empty(rows, width, device=x.device, dtype=DTYPE)
    scale = torch.empty(rows, 1, device=x.device, dtype=torch.float32)
    size = triton.next_power_of_2(width)
    _quantise_kernel[(rows,)](
        x, out, scale, width, x.stride(0), LARGEST=LARGEST, SIZE=size, num_warps=min(max(size // 1024, 1), 16)
    )
    return out, scale


def product(x: torch.Tensor, matrix: torch.Tensor, divisor: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """x Wᵀ + b in x's dtype.

    Args:
        x: [rows, in], half precision; its rows may lie further apart.
        matrix: W / divisor, e4m3 [out, in], contiguous; both sizes are multiples of 16.
        divisor: fp32 [1].
        bias: [out] of x's dtype.
    """
    codes, scale = quantise_rows(x)
    scales = divisor.expand(1, matrix.shape[0]).contiguous()
    result: torch.Tensor = torch._scaled_mm(
        codes, matrix.t(), scale, scales, bias=bias, out_dtype=x.dtype, use_fast_accum=True
    )
    return result
