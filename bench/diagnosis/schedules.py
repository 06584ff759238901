"""Optimizers and schedules that scenarios plug in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

Weights = list[nn.Parameter]


def trainable(model: nn.Module) -> Weights:
    """The weights that train."""
    return [weight for weight in model.parameters() if weight.requires_grad]


def adamw(lr: float = 2e-3, **settings: Any) -> Callable[[nn.Module], torch.optim.Optimizer]:
    """torch's AdamW over the trainable weights."""
    return lambda model: torch.optim.AdamW(trainable(model), lr=lr, **settings)


def lambda_schedule(rule: Callable[[int], float]) -> Callable[[torch.optim.Optimizer], LambdaLR]:
    """A schedule that multiplies the peak by ``rule(updates so far)``."""
    return lambda optimizer: LambdaLR(optimizer, rule)


def _levels(signed: bool, fixed: bool) -> torch.Tensor:
    """bitsandbytes' dynamic code book, as ``create_dynamic_map`` made it before and after 0.41.1 (256 read)."""
    highest, bits = 7, 8 - (1 if signed or fixed else 0)
    extra = 2 ** (bits - highest) - 1
    if not signed and not fixed:
        extra *= 2
    out: list[float] = []

    def add(count: int, power: int) -> None:
        edges = torch.linspace(0.1, 1, count)
        means = ((edges[:-1] + edges[1:]) / 2 * 10.0 ** (power - highest + 1)).tolist()
        out.extend(means + [-mean for mean in means] if signed else means)

    for power in range(highest):
        add(int(2 ** (power + bits - highest) + 1 if signed else 2 ** (power + bits - highest + 1) + 1), power)
        if extra > 0 and not fixed:
            add(extra + 1, power)
    if fixed and extra > 0:
        add(extra + 1, highest - 1)
    out += [0.0, 1.0]
    out += [0.0] * (256 - len(out))
    return torch.tensor(sorted(out)[:256])


def _quantised(values: torch.Tensor, code: torch.Tensor, block: int = 2048) -> torch.Tensor:
    """Nearest code word of each value, blockwise scaled by its largest magnitude."""
    flat = values.flatten()
    padded = torch.zeros(-(-len(flat) // block) * block)
    padded[: len(flat)] = flat
    rows = padded.view(-1, block)
    largest = rows.abs().amax(1, keepdim=True).clamp_min(1e-30)
    scaled = (rows / largest).contiguous()
    above = torch.searchsorted(code, scaled).clamp(1, len(code) - 1)
    low, high = code[above - 1], code[above]
    near = torch.where(scaled - low < high - scaled, low, high) * largest
    return near.flatten()[: len(flat)].view_as(values)


class BuggyAdam8bit(torch.optim.Optimizer):
    """AdamW with the state of bitsandbytes 0.36.0–0.41.0 (``fixed`` gives 0.41.1's).

    The kernel updates the weights with exact moments and then stores them in 8 bits. Its unsigned code book had
    524 entries of which 256 are read, the largest 0.093 instead of 1: the second moment of the dominant elements
    shrinks at every step. The arithmetic is that of catalogue/bnb_8bit_map_simulation.py.
    """

    def __init__(
        self,
        params: Any,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        fixed: bool = False,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})
        self._codes = _levels(True, fixed), _levels(False, fixed)

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, group)

    def _update(self, weight: torch.Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        beta1, beta2 = group["betas"]
        count = state["step"] = state.get("step", 0) + 1
        first = beta1 * state.get("first", torch.zeros_like(weight)) + (1 - beta1) * weight.grad
        second = beta2 * state.get("second", torch.zeros_like(weight)) + (1 - beta2) * weight.grad**2
        denominator = (second / (1 - beta2**count)).sqrt() + group["eps"]
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.sub_(group["lr"] * (first / (1 - beta1**count)) / denominator)
        state["first"], state["second"] = (_quantised(first, self._codes[0]), _quantised(second, self._codes[1]))
