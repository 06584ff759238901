"""Optimizer, learning-rate schedule and fp16 loss scaling, each from a library that others trust."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from jinmaek.config.recipe import OptimSection, TrainSection

_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


def make_optimizer(params: Iterable[nn.Parameter], section: OptimSection) -> torch.optim.Optimizer:
    """AdamW of torch (fused), or one of bitsandbytes' 8-bit and paged ones."""
    settings: dict[str, Any] = {
        "lr": section.lr,
        "betas": (section.beta1, section.beta2),
        "eps": section.eps,
        "weight_decay": section.weight_decay,
    }
    if section.name == "adamw":
        return torch.optim.AdamW(params, fused=True, **settings)
    import bitsandbytes.optim

    kinds = {
        "adamw_8bit": bitsandbytes.optim.AdamW8bit,
        "paged_adamw_8bit": bitsandbytes.optim.PagedAdamW8bit,
        "paged_adamw_32bit": bitsandbytes.optim.PagedAdamW32bit,
    }
    optimizer: torch.optim.Optimizer = kinds[section.name](params, **settings)
    return optimizer


def make_schedule(
    optimizer: torch.optim.Optimizer, section: OptimSection, max_steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """transformers' schedule; it moves once for each update, over ``schedule_steps`` (default: the run)."""
    from transformers import get_scheduler

    schedule: torch.optim.lr_scheduler.LRScheduler = get_scheduler(
        _SCHEDULES[section.schedule],
        optimizer,
        num_warmup_steps=section.warmup_steps,
        num_training_steps=section.schedule_steps or max_steps,
    )
    return schedule


class LossScale:
    """fp16 loss scaling: torch's GradScaler, with a floor under its scale.

    Without one the scale halves at every overflow until it is 0 (after 166 in a row), and from then on every
    gradient is 0 · inf = NaN: the founding run spent 12 of its 13.5 hours there.
    """

    def __init__(self, section: TrainSection, device: torch.device) -> None:
        self.minimum = section.loss_scale_min
        self._growth_steps = section.loss_scale_growth_steps
        self._one = torch.ones((), device=device)
        self._scaler = self._make(section.loss_scale_init)

    def _make(self, scale: float) -> torch.amp.GradScaler:
        return torch.amp.GradScaler(self._one.device.type, init_scale=scale, growth_interval=self._growth_steps)

    def scale(self, loss: torch.Tensor) -> torch.Tensor:
        """``loss`` times the scale."""
        return self._scaler.scale(loss)

    def current(self) -> torch.Tensor:
        """The scale, fp32 [], on the device."""
        return self._scaler.scale(self._one)

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the optimizer's gradients by the scale."""
        self._scaler.unscale_(optimizer)

    def update(self, used: float, *, finite: bool) -> None:
        """Move the scale after a step that ``used`` this scale: up now and then, down at an overflow."""
        lowered = used * self._scaler.get_backoff_factor()
        if not finite and lowered < self.minimum:
            self._scaler.update(self.minimum)
        else:
            self._scaler.update()

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Scale and finite steps since it moved, as tensors [] of the device: nobody waits for them."""
        scale = self.current()  # GradScaler makes its tensors at their first use
        return {"scale": scale, "growth_tracker": self._scaler._growth_tracker.clone()}  # type: ignore[union-attr]

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go on from what :meth:`state_dict` said; a step that was measured and not updated is forgotten."""
        self._scaler = self._make(float(state["scale"]))
        constants = self._scaler.state_dict()
        self._scaler.load_state_dict({**constants, "_growth_tracker": int(state["growth_tracker"])})
