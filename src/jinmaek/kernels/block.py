"""One decoder layer, forward and backward, keeping no more than the memory plan allows.

What is kept whole: the layer's input, queries, keys and values (rotated), the attention's output, and the MLP's
inner values before the activation: 9 · hidden numbers a token in GPT-NeoX. Norms and activations are computed
again, which costs a pass over memory and no product. A layer may keep less and compute more (:class:`Keep`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from jinmaek.kernels.norm import Norm, add_and_normalise, normalise_backward
from jinmaek.kernels.parts import Attention, Mlp
from jinmaek.kernels.projection import Projection
from jinmaek.kernels.stream import Keep, Kept, Pass, Stream, empty


@dataclass(slots=True)
class Block:
    """A decoder layer. ``parallel``: attention and MLP read the same stream (GPT-NeoX), else one after the other.

    ``shifts``: the biases of the output projections, fp32 [hidden], as they are added to the stream: after the
    attention and after the MLP; in a parallel layer both after the MLP. ``norms``: before attention and MLP, ``None``
    where there is none; ``after``: of what attention and MLP give, before it is added to the stream.
    """

    attention: Attention
    mlp: Mlp
    norms: tuple[Norm | None, Norm | None]
    shifts: tuple[torch.Tensor | None, torch.Tensor | None]
    parallel: bool
    after: tuple[Norm, Norm] | None = None

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
        if self.after is not None:
            kept.attention_delta, delta = delta, _normal(delta, self.after[0])
        stream.deltas.append(delta)
        if not self.parallel:
            stream.shift = self.shifts[0]
            stream.normalise(self.norms[1:], (y,))
            kept.middle = stream.x
        kept.inner, kept.mlp_lows = self.mlp.project(y, shared)
        delta, low = self.mlp.project_back(kept.inner, shared)
        kept.mlp_lows.append(low)
        if self.after is not None:
            kept.mlp_delta, delta = delta, _normal(delta, self.after[1])
        stream.deltas.append(delta)
        stream.shift = self.shifts[1]
        if keep < Keep.ALL:
            kept.inner = None
        if keep < Keep.ATTENTION:
            kept.qkv = kept.attended = kept.level = None
        return kept

    def backward(self, grad: torch.Tensor, half: torch.Tensor, kept: Kept, shared: Pass, *, wanted: bool) -> None:
        """Turn the gradient of the layer's result into that of its input, in place; without ``wanted`` nobody reads it.

        ``grad``: [tokens, hidden] of the stream's dtype; ``half``: the same in that of the linear layers.
        """
        through_mlp = None
        if wanted or not self.parallel or _adapted([*self.mlp.inputs, self.mlp.output]):
            y = self._mlp_again(kept, shared)
            into_mlp = half if self.after is None else _through(kept.mlp_delta, half, self.after[1])
            through_mlp = self.mlp.backward(into_mlp, y, kept, shared, wanted=wanted or not self.parallel)
            kept.inner = y = None
        if not self.parallel:
            assert kept.middle is not None
            self._normalised(kept.middle, [through_mlp], self.norms[1:], grad, half)
            through_mlp = None
        x = self._attention_again(kept, shared)
        into = half if self.after is None else _through(kept.attention_delta, half, self.after[0])
        through = self.attention.backward(into, x, kept, shared, wanted=wanted)
        kept.qkv = kept.attended = x = None
        if wanted:
            norms = self.norms if self.parallel else self.norms[:1]
            self._normalised(kept.x, [through, through_mlp], norms, grad, half)

    def _inputs(self, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self._input(like, self.attention.inputs), self._input(like, self.mlp.inputs)

    def _input(self, like: torch.Tensor, projections: Sequence[Projection]) -> torch.Tensor:
        return empty(like, max(each.width for each in projections), self.attention.dtypes.compute)

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
        self,
        x: torch.Tensor,
        grads: Sequence[torch.Tensor | None],
        norms: Sequence[Norm | None],
        grad: torch.Tensor,
        half: torch.Tensor,
    ) -> None:
        given = [each for each in grads if each is not None]
        normalise_backward(x, given, norms, grad, grad, None if half is grad else half)


def _normal(delta: torch.Tensor, norm: Norm) -> torch.Tensor:
    out = torch.empty_like(delta)
    add_and_normalise(delta, [], None, [norm], [out])
    return out


def _through(delta: torch.Tensor | None, grad: torch.Tensor, norm: Norm) -> torch.Tensor:
    """Gradient of what a part gave from that of its norm."""
    assert delta is not None
    out = torch.empty_like(grad)
    normalise_backward(delta, [grad], [norm], None, out)
    return out


def _adapted(projections: Sequence[Projection]) -> bool:
    return any(each.adapter is not None for each in projections)
