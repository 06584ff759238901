"""The gradient of a step's first microbatch: held against the whole step's it tells how noisy a gradient is."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn


class FirstGradient:
    """Its norm, taken on the device on the way; ``num_loss_tokens`` is ``None`` where one microbatch is the step."""

    def __init__(self) -> None:
        self.num_loss_tokens: int | None = None
        self._norm: torch.Tensor | None = None

    @torch.no_grad()
    def note(self, params: Iterable[nn.Parameter], num_loss_tokens: int, num_in_step: int) -> None:
        """Take the norm of what ``params`` hold, if they hold the first microbatch of several and nothing else."""
        if self.num_loss_tokens is None and num_loss_tokens < num_in_step:
            self.num_loss_tokens = num_loss_tokens
            grads = [weight.grad for weight in params if weight.grad is not None]
            self._norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(grads)))

    def on_device(self, like: torch.Tensor) -> torch.Tensor:
        """fp32 [1], still scaled; 0 where there is none."""
        return torch.zeros_like(like)[None] if self._norm is None else self._norm[None]

    def unscaled(self, norm: torch.Tensor | None, scale: float | None, num_in_step: int) -> float | None:
        """``norm``, :meth:`on_device` on the host, as that of the mean over the microbatch's own tokens."""
        if self.num_loss_tokens is None or norm is None:
            return None
        return float(norm) / (1.0 if scale is None else scale or math.nan) * num_in_step / self.num_loss_tokens
