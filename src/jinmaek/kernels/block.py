"""One decoder layer, forward and backward, keeping no more than the memory plan allows.

What is kept whole: the layer's input, queries, keys and values (rotated), the attention's output, and the MLP's
inner values before the activation: 9 · hidden numbers a token in GPT-NeoX. Norms and activations are computed
again, which costs a pass over memory and no product. A layer may keep less and compute more (:class:`Keep`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import torch

from jinmaek.kernels.activation import Activation, activate, activate_backward
from jinmaek.kernels.attention import Documents, attend, attend_backward
from jinmaek.kernels.norm import Norm, add_and_normalise, normalise_backward
from jinmaek.kernels.projection import Projection
from jinmaek.kernels.rotary import rotate


class Keep(IntEnum):
    """How much of a layer is kept for the backward pass; the rest is computed again."""

    INPUT = 0  # only the residual stream
    ATTENTION = 1  # and queries, keys, values and the attention's output
    ALL = 2  # and the MLP's inner values


@dataclass(frozen=True, slots=True)
class Dtypes:
    """``compute``: of the linear layers; ``attention``: of scores and head; ``residual``: of the stream."""

    compute: torch.dtype
    attention: torch.dtype
    residual: torch.dtype


@dataclass(frozen=True, slots=True)
class Pass:
    """What all layers of one forward and backward pass share. ``seed``: int64 [1], of the dropout masks."""

    documents: Documents
    cos: torch.Tensor
    sin: torch.Tensor
    seed: torch.Tensor


@dataclass(slots=True)
class Stream:
    """The residual stream: x [tokens, hidden], and what is still to be added to it."""

    x: torch.Tensor
    deltas: list[torch.Tensor] = field(default_factory=list)
    shift: torch.Tensor | None = None

    def normalise(self, norms: Sequence[Norm], outs: Sequence[torch.Tensor]) -> None:
        """Add what is to be added, and take ``norms`` of the sum."""
        pending = bool(self.deltas) or self.shift is not None
        total = torch.empty_like(self.x) if pending else None
        add_and_normalise(self.x, self.deltas, self.shift, norms, outs, total)
        if total is not None:
            self.x, self.deltas, self.shift = total, [], None


Lows = list[torch.Tensor | None]


@dataclass(slots=True)
class Kept:
    """What a layer keeps from its forward pass; ``middle`` is the stream between attention and MLP, where it is another."""

    x: torch.Tensor
    middle: torch.Tensor | None = None
    qkv: torch.Tensor | None = None
    attended: torch.Tensor | None = None
    level: torch.Tensor | None = None
    inner: torch.Tensor | None = None
    attention_lows: Lows = field(default_factory=list)
    mlp_lows: Lows = field(default_factory=list)


@dataclass(slots=True)
class Attention:
    """Projections to heads, attention, projection back.

    ``inputs``: one projection, whose output has each head's query, key and value side by side (GPT-NeoX), or three
    (query, key, value). The biases of ``output`` are not its own: they are the stream's shift.
    """

    inputs: list[Projection]
    output: Projection
    num_heads: int
    num_key_heads: int
    head_size: int
    scale: float
    dtypes: Dtypes
    window: int | None = None

    def split(self, qkv: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries, keys and values [tokens, heads, head size], views of the projections' output."""
        tokens = qkv.shape[0]
        if len(self.inputs) == 1:
            q, k, v = qkv.view(tokens, self.num_heads, 3, self.head_size).unbind(2)
            return q, k, v
        q, k, v = qkv.view(tokens, -1, self.head_size).split([self.num_heads, self.num_key_heads, self.num_key_heads], 1)
        return q, k, v

    def parts(self, qkv: torch.Tensor) -> list[torch.Tensor]:
        """What each input projection writes, views of ``qkv``."""
        return list(qkv.split([projection.out_features for projection in self.inputs], 1))

    def project(self, x: torch.Tensor, shared: Pass) -> tuple[torch.Tensor, Lows]:
        """Rotated queries and keys, and values, in one tensor [tokens, all heads]."""
        qkv = _empty(x, sum(projection.out_features for projection in self.inputs))
        lows: Lows = [
            projection.forward(x, shared.seed, out)[1] for projection, out in zip(self.inputs, self.parts(qkv), strict=True)
        ]
        qkv = qkv.to(self.dtypes.attention)
        for heads in self.split(qkv)[:2]:
            rotate(heads, shared.cos, shared.sin, shared.documents.positions)
        return qkv, lows

    def attend(self, qkv: torch.Tensor, shared: Pass) -> tuple[torch.Tensor, torch.Tensor]:
        """The heads' output, as input of ``output``, and the softmax's level."""
        attended = _empty(qkv, self.output.width, self.dtypes.compute)
        level = attend(*self.split(qkv), self._documents(shared), self.scale, self._heads(attended))
        return attended, level

    def project_back(self, attended: torch.Tensor, shared: Pass) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What attention adds to the stream."""
        delta, low = self.output.forward(attended, shared.seed)
        return delta.to(self.dtypes.attention), low

    def backward(self, grad: torch.Tensor, x: torch.Tensor | None, kept: Kept, shared: Pass, *, wanted: bool) -> torch.Tensor | None:
        """Gradient of ``x``, the normalised input, from that of the stream; of the adapters on the way."""
        qkv, attended, level = kept.qkv, kept.attended, kept.level
        assert qkv is not None and attended is not None and level is not None
        *lows, low = kept.attention_lows
        if self.dtypes.attention != self.dtypes.compute:
            grad = grad.to(self.dtypes.attention).to(self.dtypes.compute)  # where the forward pass rounded
        heads_grad = self.output.backward(grad, attended, low, shared.seed, None)
        assert heads_grad is not None
        dqkv = torch.empty_like(qkv)
        results = self.split(dqkv)
        grads = self._heads(heads_grad)
        attend_backward(grads, *self.split(qkv), self._heads(attended), level, self._documents(shared), self.scale, results)
        for heads in results[:2]:
            rotate(heads, shared.cos, shared.sin, shared.documents.positions, back=True)
        into = None
        dqkv = dqkv.to(self.dtypes.compute)
        for projection, part, own in zip(self.inputs, self.parts(dqkv), lows, strict=True):
            into = projection.backward(part, x, own, shared.seed, into, wanted=wanted)
        return into

    def _heads(self, flat: torch.Tensor) -> torch.Tensor:
        width = self.num_heads * self.head_size
        return flat[:, :width].unflatten(1, (self.num_heads, self.head_size))

    def _documents(self, shared: Pass) -> Documents:
        return shared.documents if self.window is None else shared.documents.within(self.window)


@dataclass(slots=True)
class Mlp:
    """Up (one projection, or gate and up), activation, down. The bias of ``output`` is the stream's shift."""

    inputs: list[Projection]
    output: Projection
    activation: Activation

    @property
    def gated(self) -> bool:
        """Whether the activation of one half multiplies the other."""
        return len(self.inputs) == 2

    def project(self, x: torch.Tensor, shared: Pass) -> tuple[torch.Tensor, Lows]:
        """The values before the activation [tokens, (gate and) inner size]."""
        inner = _empty(x, sum(projection.out_features for projection in self.inputs))
        lows: Lows = [
            projection.forward(x, shared.seed, out)[1] for projection, out in zip(self.inputs, self._parts(inner), strict=True)
        ]
        return inner, lows

    def project_back(self, inner: torch.Tensor, shared: Pass) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What the MLP adds to the stream."""
        return self.output.forward(self._activated(inner), shared.seed)

    def backward(self, grad: torch.Tensor, x: torch.Tensor | None, kept: Kept, shared: Pass, *, wanted: bool) -> torch.Tensor | None:
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
        for projection, part, own in zip(self.inputs, self._parts(inner), lows, strict=True):
            into = projection.backward(part, x, own, shared.seed, into, wanted=wanted)
        return into

    def _parts(self, inner: torch.Tensor) -> list[torch.Tensor]:
        return list(inner.split([projection.out_features for projection in self.inputs], 1))

    def _activated(self, inner: torch.Tensor) -> torch.Tensor:
        activated = _empty(inner, self.output.width)
        activate(inner, activated, self.activation, gated=self.gated)
        return activated


@dataclass(slots=True)
class Block:
    """A decoder layer. ``parallel``: attention and MLP read the same stream (GPT-NeoX), else one after the other.

    ``shifts``: the biases of the output projections, fp32 [hidden], as they are added to the stream: after the
    attention and after the MLP; in a parallel layer both after the MLP.
    """

    attention: Attention
    mlp: Mlp
    norms: tuple[Norm, Norm]
    shifts: tuple[torch.Tensor | None, torch.Tensor | None]
    parallel: bool

    def forward(self, stream: Stream, shared: Pass, keep: Keep) -> Kept:
        """Go on with the stream; what is returned is enough for :meth:`backward`."""
        x, y = self._inputs(stream.x)
        if self.parallel:
            stream.normalise(self.norms, (x, y))
        else:
            stream.normalise(self.norms[:1], (x,))
        kept = Kept(stream.x)
        kept.qkv, kept.attention_lows = self.attention.project(x, shared)
        kept.attended, kept.level = self.attention.attend(kept.qkv, shared)
        delta, low = self.attention.project_back(kept.attended, shared)
        kept.attention_lows.append(low)
        stream.deltas.append(delta)
        if not self.parallel:
            stream.shift = self.shifts[0]
            stream.normalise(self.norms[1:], (y,))
            kept.middle = stream.x
        kept.inner, kept.mlp_lows = self.mlp.project(y, shared)
        delta, low = self.mlp.project_back(kept.inner, shared)
        kept.mlp_lows.append(low)
        stream.deltas.append(delta)
        stream.shift = self.shifts[1]
        if keep < Keep.ALL:
            kept.inner = None
        if keep < Keep.ATTENTION:
            kept.qkv = kept.attended = kept.level = None
        return kept

    def backward(
        self, grad: torch.Tensor, half: torch.Tensor, kept: Kept, shared: Pass, *, wanted: bool
    ) -> None:
        """Turn the gradient of the layer's result into that of its input, in place; without ``wanted`` nobody reads it.

        ``grad``: [tokens, hidden] of the stream's dtype; ``half``: the same in that of the linear layers.
        """
        through_mlp = None
        if wanted or not self.parallel or _adapted([*self.mlp.inputs, self.mlp.output]):
            y = self._mlp_again(kept, shared)
            through_mlp = self.mlp.backward(half, y, kept, shared, wanted=wanted or not self.parallel)
            kept.inner = y = None
        if not self.parallel:
            assert kept.middle is not None
            self._normalised(kept.middle, [through_mlp], self.norms[1:], grad, half)
            through_mlp = None
        x = self._attention_again(kept, shared)
        through = self.attention.backward(half, x, kept, shared, wanted=wanted)
        kept.qkv = kept.attended = x = None
        if wanted:
            norms = self.norms if self.parallel else self.norms[:1]
            self._normalised(kept.x, [through, through_mlp], norms, grad, half)

    def _inputs(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self._input(like, self.attention.inputs), self._input(like, self.mlp.inputs)

    def _input(self, like: torch.Tensor, projections: Sequence[Projection]) -> torch.Tensor:
        return _empty(like, max(each.width for each in projections), self.attention.dtypes.compute)

    def _mlp_again(self, kept: Kept, shared: Pass) -> torch.Tensor | None:
        """The MLP's normalised input, where it is needed again, and its inner values if they were not kept."""
        if kept.inner is not None and not _adapted(self.mlp.inputs):
            return None
        y = self._input(kept.x, self.mlp.inputs)
        add_and_normalise(kept.x if kept.middle is None else kept.middle, [], None, self.norms[1:], (y,))
        if kept.inner is None:
            kept.inner, _ = self.mlp.project(y, shared)
        return y

    def _attention_again(self, kept: Kept, shared: Pass) -> torch.Tensor | None:
        """The attention's normalised input, where it is needed again, and what lies within if it was not kept."""
        if kept.qkv is not None and not _adapted(self.attention.inputs):
            return None
        x = self._input(kept.x, self.attention.inputs)
        add_and_normalise(kept.x, [], None, self.norms[:1], (x,))
        if kept.qkv is None:
            kept.qkv, _ = self.attention.project(x, shared)
            kept.attended, kept.level = self.attention.attend(kept.qkv, shared)
        return x

    def _normalised(
        self, x: torch.Tensor, grads: Sequence[torch.Tensor | None], norms: Sequence[Norm], grad: torch.Tensor, half: torch.Tensor
    ) -> None:
        given = [each for each in grads if each is not None]
        normalise_backward(x, given, norms, grad, grad, None if half is grad else half)


def _empty(like: torch.Tensor, width: int, dtype: torch.dtype | None = None) -> torch.Tensor:
    return torch.empty(like.shape[0], width, device=like.device, dtype=dtype or like.dtype)


def _adapted(projections: Sequence[Projection]) -> bool:
    return any(each.adapter is not None for each in projections)
