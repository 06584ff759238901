"""fp16 on a CPU: the arithmetic, the scaler, and what accelerate does with them.

Real: torch's autocast, torch's ``GradScaler("cpu")``, accelerate's bookkeeping of skipped steps, Trainer's log.
Replaced: how a fp16 matrix product is computed. The CPU's own fp16 kernels take 2.4 s a step; here a product's
inputs are rounded to fp16, multiplied and summed in fp32, and the result is stored as fp16, which is what a GPU's
tensor cores do. Values beyond 65,504 become inf on their own, forwards and backwards. Losses of both ways agree to
four digits over 60 steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn

LARGEST = 65504.0
_linear = nn.functional.linear
_attention = nn.functional.scaled_dot_product_attention


def _stored(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """``tensor`` as a kernel that sums in fp32 reads it from memory of ``dtype``; its gradient is stored alike."""
    return tensor.to(dtype).float()


def _half_linear(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    if not torch.is_autocast_enabled("cpu"):
        return _linear(x, weight, bias)
    dtype = torch.get_autocast_dtype("cpu")
    with torch.autocast("cpu", enabled=False):
        added = None if bias is None else _stored(bias, dtype)
        return _linear(_stored(x, dtype), _stored(weight, dtype), added).to(dtype)


def _half_attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, attn_mask: torch.Tensor | None = None, **settings: Any
) -> torch.Tensor:
    if not torch.is_autocast_enabled("cpu"):
        return _attention(q, k, v, attn_mask=attn_mask, **settings)
    dtype = torch.get_autocast_dtype("cpu")
    with torch.autocast("cpu", enabled=False):
        mask = attn_mask.float() if attn_mask is not None and attn_mask.is_floating_point() else attn_mask
        inputs = (_stored(tensor, dtype) for tensor in (q, k, v))
        return _attention(*inputs, attn_mask=mask, **settings).to(dtype)


@contextmanager
def half_arithmetic() -> Iterator[None]:
    """Autocast's matrix products as a GPU computes them."""
    with (
        patch("torch.nn.functional.linear", _half_linear),
        patch("torch.nn.functional.scaled_dot_product_attention", _half_attention),
    ):
        yield


@contextmanager
def old_accelerate() -> Iterator[None]:
    """accelerate 0.20 and 0.21: a step was skipped if the scale fell. A scale of 0 cannot fall any more.

    The three lines are those of ``AcceleratedOptimizer.step`` of that time.
    """

    def step(self: Any, closure: Any = None) -> None:
        if not self.gradient_state.sync_gradients:
            return
        scale_before = self.scaler.get_scale()
        self.scaler.step(self.optimizer, closure)
        self.scaler.update()
        self._is_overflow = self.scaler.get_scale() < scale_before

    with patch.object(AcceleratedOptimizer, "step", step):
        yield
