"""Faults of numbers: true overflows, placed where and when a scenario wants them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from bench.diagnosis.fp16 import LARGEST
from torch import nn

Share = Callable[[int], float]
"""Step -> share of batches that are to overflow."""


def never(step: int) -> float:
    """No batch overflows."""
    return 0.0


def growing(first: int, over: int = 25, last: float = 0.97) -> Share:
    """From step ``first`` on more and more batches, ``last`` of them after ``over`` steps."""
    return lambda step: 0.0 if step < first else min(last, 0.25 + (last - 0.25) * (step - first) / over)


def from_step(first: int, share: float = 1.0) -> Share:
    """This share of batches from step ``first`` on."""
    return lambda step: share if step >= first else 0.0


def once(*steps: int) -> Share:
    """Exactly these steps."""
    return lambda step: 1.0 if step in steps else 0.0


class Overflow:
    """Decides the factor that makes a share of the batches exceed fp16's largest number.

    Which batches those are is not chosen: the factor is taken from the largest magnitudes of the batches so far,
    so that those above the wanted quantile overflow of themselves.
    """

    def __init__(self, share: Share) -> None:
        self.share = share
        self.step = 0
        self._peaks: list[float] = []

    def factor(self, peak: float, *, training: bool) -> float:
        """The factor of this forward pass, whose largest magnitude is ``peak``."""
        if training:
            self.step += 1
            self._peaks.append(peak)
        share = self.share(max(1, self.step))
        if share <= 0:
            return 1.0
        seen = torch.tensor(self._peaks or [peak])
        if share >= 1:
            return 2 * LARGEST / min(float(seen.min()), peak)
        return LARGEST / float(torch.quantile(seen, 1 - share))


def overflow_forward(model: nn.Module, share: Share, layer: int = 2) -> None:
    """Value vectors times a factor, divided by it again after attention: the same function, until fp16 overflows.

    The overflow is real (a fp16 tensor takes a value above 65,504 and holds inf); the factor stands for the
    growth of an activation that a broken optimizer or a long training brings about.
    """
    attention = model.get_submodule(f"base_model.model.gpt_neox.layers.{layer}.attention")
    heads = model.config.num_attention_heads  # type: ignore[union-attr]
    overflow = Overflow(share)
    used = [1.0]

    def grow(module: nn.Module, _: Any, out: torch.Tensor) -> torch.Tensor:
        split = out.unflatten(-1, (heads, 3, -1))
        values = split[..., 2, :]
        used[0] = overflow.factor(float(values.detach().abs().max()), training=module.training)
        grown = torch.stack([split[..., 0, :], split[..., 1, :], values * used[0]], dim=-2)
        return grown.flatten(-3)

    def shrink(_: nn.Module, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (given[0] / used[0], *given[1:])

    attention.query_key_value.register_forward_hook(grow)  # type: ignore[union-attr]
    attention.dense.register_forward_pre_hook(shrink)  # type: ignore[union-attr]


class _SquaresInHalf(torch.autograd.Function):
    """Identity, whose backward recomputes a sum of squares in fp16, as a norm's hand-written backward would."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, factor: float) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        (x,) = ctx.saved_tensors
        squares = (x.float().square().sum(-1, keepdim=True) * ctx.factor).half()
        return (grads[0].float() * squares.float() / squares.float()).to(grads[0].dtype), None


def overflow_backward(model: nn.Module, share: Share, layer: int = 1) -> None:
    """Only the backward pass overflows: loss finite, gradient NaN (inf / inf), whatever the loss scale is.

    So do hand-written backward kernels of norms and attention that keep an intermediate in fp16.
    """
    block = model.get_submodule(f"base_model.model.gpt_neox.layers.{layer}.mlp")
    overflow = Overflow(share)

    def wrap(module: nn.Module, _: Any, out: torch.Tensor) -> torch.Tensor:
        peak = float(out.detach().float().square().sum(-1).max())
        return _SquaresInHalf.apply(out, overflow.factor(peak, training=module.training))  # type: ignore[no-any-return]

    block.register_forward_hook(wrap)


def poison_token(model: nn.Module, token: int) -> None:
    """The embedding of one token as large as fp16 allows: layer norm's variance of such a row is inf in fp16.

    In fp32 the squares overflow as well (1e30 squared), so the row is NaN in any precision.
    """
    with torch.no_grad():
        model.get_input_embeddings().weight[token] = 1e30  # type: ignore[operator, union-attr, index]


def fresh_head(model: nn.Module, seed: int) -> None:
    """An output head that was not in the checkpoint (renamed key, wrong class, untied) and is newly initialised.

    transformers says so in a warning that nobody reads; the first loss is then ln(vocabulary).
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        weight = model.get_output_embeddings().weight  # type: ignore[operator, union-attr]
        weight.copy_(torch.randn(weight.shape, generator=generator) * model.config.initializer_range)  # type: ignore[union-attr]


def kill_both_factors(model: nn.Module) -> None:
    """lora_A zeroed where lora_B starts at zero: each one's gradient is the other one, exactly 0 for ever."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_A" in name:
                weight.zero_()
