"""The two halves of a decoder layer, attention and MLP, forward and backward."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from jinmaek.kernels.activation import Activation, activate, activate_backward
from jinmaek.kernels.attention import attend, attend_backward
from jinmaek.kernels.head_norm import normalise_heads, normalise_heads_backward
from jinmaek.kernels.norm import Norm
from jinmaek.kernels.projection import Projection
from jinmaek.kernels.rotary import rotate
from jinmaek.kernels.stream import Dtypes, Kept, Lows, Pass, empty


@dataclass(slots=True)
class Attention:
    """Projections to heads, attention, projection back.

    ``inputs``: one projection, whose output has each head's query, key and value side by side (GPT-NeoX), or three
    (query, key, value). The biases of ``output`` are not its own, but the stream's shift, unless a norm comes after
    it. ``head_norms``: of queries and keys, before they are turned; ``rotary``: which of the pass's tables turn them,
    ``None``: they are not turned.
    """

    inputs: list[Projection]
    output: Projection
    num_heads: int
    num_key_heads: int
    head_size: int
    scale: float
    dtypes: Dtypes
    window: int | None = None
    head_norms: tuple[Norm, Norm] | None = None
    rotary: int | None = 0

    def split(self, qkv: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values [tokens, heads, head size], views of the projections' output."""
        tokens = qkv.shape[0]
        if len(self.inputs) == 1:
            q, k, v = qkv.view(tokens, self.num_heads, 3, self.head_size).unbind(2)
            return q, k, v
        q, k, v = torch.split(
            qkv.view(tokens, -1, self.head_size), [self.num_heads, self.num_key_heads, self.num_key_heads], 1
        )
        return q, k, v

    def project(self, x: torch.Tensor, shared: Pass) -> tuple[torch.Tensor, Lows]:
        """Queries, keys and values in one tensor [tokens, all heads], turned unless a norm comes before that."""
        qkv, lows = _project(self.inputs, x, shared)
        qkv = qkv.to(self.dtypes.attention)
        if self.head_norms is None:
            self._turn(qkv, shared)
        return qkv, lows

    def attend(self, qkv: torch.Tensor, shared: Pass) -> tuple[torch.Tensor, torch.Tensor]:
        """The heads' output, as input of ``output``, and the softmax's level."""
        attended = empty(qkv, self.output.width, self.dtypes.compute)
        level = attend(*self._ready(qkv, shared), shared.seen(self.window), self.scale, self._heads(attended))
        return attended, level

    def project_back(self, attended: torch.Tensor, shared: Pass) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What attention adds to the stream."""
        delta, low = self.output.forward(attended, shared.seed)
        return delta.to(self.dtypes.attention), low

    def backward(
        self, grad: torch.Tensor, x: torch.Tensor | None, kept: Kept, shared: Pass, *, wanted: bool
    ) -> torch.Tensor | None:
        """Gradient of ``x``, the normalised input, from that of the stream; of the adapters on the way."""
        qkv, attended, level = kept.qkv, kept.attended, kept.level
        assert qkv is not None
        assert attended is not None
        assert level is not None
        *lows, low = kept.attention_lows
        if self.dtypes.attention != self.dtypes.compute:
            grad = grad.to(self.dtypes.attention).to(self.dtypes.compute)  # where the forward pass rounded
        heads_grad = self.output.backward(grad, attended, low, shared.seed, None)
        assert heads_grad is not None
        dqkv = torch.empty_like(qkv)
        grads = self._heads(heads_grad).to(self.dtypes.attention)
        attend_backward(
            grads, *self._ready(qkv, shared), self._heads(attended), level, shared.seen(self.window), self.scale,
            self.split(dqkv),
        )  # fmt: skip
        self._turn(dqkv, shared, back=True)
        if self.head_norms is not None:
            normalise_heads_backward(qkv, self.head_norms, self.num_heads, self.num_key_heads, dqkv)
        into = None
        dqkv = dqkv.to(self.dtypes.compute)
        for projection, part, own in zip(self.inputs, _parts(self.inputs, dqkv), lows, strict=True):
            into = projection.backward(part, x, own, shared.seed, into, wanted=wanted)
        return into

    def _ready(self, qkv: torch.Tensor, shared: Pass) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values as the attention takes them."""
        q, k, v = self.split(qkv)
        if self.head_norms is None:
            return q, k, v
        both = empty(qkv, (self.num_heads + self.num_key_heads) * self.head_size)
        normalise_heads(qkv, self.head_norms, self.num_heads, both)
        self._turn(both, shared)
        q, k = torch.split(both.view(len(both), -1, self.head_size), [self.num_heads, self.num_key_heads], 1)
        return q, k, v

    def _turn(self, qkv: torch.Tensor, shared: Pass, *, back: bool = False) -> None:
        if self.rotary is not None:
            cos, sin = shared.rotary[self.rotary]
            rotate(self._turned(qkv), cos, sin, shared.documents.positions, back=back)

    def _turned(self, qkv: torch.Tensor) -> torch.Tensor:
        """Queries and keys [tokens, heads, head size], or [tokens, heads, 2, head size] where they lie in pairs."""
        if len(self.inputs) == 1:
            return qkv.view(-1, self.num_heads, 3, self.head_size)[:, :, :2]
        return qkv.view(qkv.shape[0], -1, self.head_size)[:, : self.num_heads + self.num_key_heads]

    def _heads(self, flat: torch.Tensor) -> torch.Tensor:
        width = self.num_heads * self.head_size
        return flat[:, :width].view(-1, self.num_heads, self.head_size)


@dataclass(slots=True)
class Mlp:
    """Up (one projection, or gate and up), activation, down. The bias of ``output``: see :class:`Attention`."""

    inputs: list[Projection]
    output: Projection
    activation: Activation

    @property
    def gated(self) -> bool:
        """Whether the activation of one half multiplies the other."""
        return len(self.inputs) == 2

    def project(self, x: torch.Tensor, shared: Pass) -> tuple[torch.Tensor, Lows]:
        """The values before the activation [tokens, (gate and) inner size]."""
        return _project(self.inputs, x, shared)

    def project_back(self, inner: torch.Tensor, shared: Pass) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What the MLP adds to the stream."""
        return self.output.forward(self._activated(inner), shared.seed)

    def backward(
        self, grad: torch.Tensor, x: torch.Tensor | None, kept: Kept, shared: Pass, *, wanted: bool
    ) -> torch.Tensor | None:
        """As :meth:`Attention.backward`; ``kept.inner`` is overwritten."""
        assert kept.inner is not None
        *lows, low = kept.mlp_lows
        adapted = self.output.adapter is not None
        activated = self._activated(kept.inner) if adapted else None
        inner_grad = self.output.backward(grad, activated, low, shared.seed, None)
        del activated
        assert inner_grad is not None
        inner, into = activate_backward(kept.inner, inner_grad, self.activation, gated=self.gated), None
        del inner_grad
        for projection, part, own in zip(self.inputs, _parts(self.inputs, inner), lows, strict=True):
            into = projection.backward(part, x, own, shared.seed, into, wanted=wanted)
        return into

    def _activated(self, inner: torch.Tensor) -> torch.Tensor:
        activated = empty(inner, self.output.width)
        activate(inner, activated, self.activation, gated=self.gated)
        return activated


def _project(inputs: list[Projection], x: torch.Tensor, shared: Pass) -> tuple[torch.Tensor, Lows]:
    """All projections of x side by side, and what their adapters need again."""
    if len(inputs) == 1:
        y, low = inputs[0].forward(x, shared.seed)
        return y, [low]
    together = empty(x, sum(each.out_features for each in inputs))
    pairs = zip(inputs, _parts(inputs, together), strict=True)
    return together, [each.forward(x, shared.seed, out)[1] for each, out in pairs]


def _parts(projections: list[Projection], together: torch.Tensor) -> list[torch.Tensor]:
    """What each projection writes, views of ``together``."""
    return list(torch.split(together, [each.out_features for each in projections], 1))
