"""The residual stream through the layers, and what each layer keeps of its forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import torch

from jinmaek.kernels.attention import Documents
from jinmaek.kernels.norm import Norm, add_and_normalise


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
    """What all layers of one pass share.

    ``rotary``: cosines and sines, fp32 [positions, half the turned dimensions], of each kind of layer; ``seed``:
    int64 [1], of the dropout masks; without one nothing is dropped.
    """

    documents: Documents
    rotary: Sequence[tuple[torch.Tensor, torch.Tensor]]
    seed: torch.Tensor | None
    _windowed: dict[int, Documents] = field(default_factory=dict)

    def seen(self, window: int | None) -> Documents:
        """The documents, as layers of that window see them."""
        if window is None:
            return self.documents
        if window not in self._windowed:
            self._windowed[window] = self.documents.within(window)
        return self._windowed[window]


@dataclass(slots=True)
class Stream:
    """The residual stream: x [tokens, hidden], and what is still to be added to it."""

    x: torch.Tensor
    deltas: list[torch.Tensor] = field(default_factory=list)
    shift: torch.Tensor | None = None

    def normalise(self, norms: Sequence[Norm | None], outs: Sequence[torch.Tensor]) -> None:
        """Add what is to be added, and take ``norms`` of the sum."""
        pending = bool(self.deltas) or self.shift is not None
        total = torch.empty_like(self.x) if pending else None
        add_and_normalise(self.x, self.deltas, self.shift, norms, outs, total)
        if total is not None:
            self.x, self.deltas, self.shift = total, [], None


Lows = list[torch.Tensor | None]


@dataclass(slots=True)
class Kept:
    """What a layer keeps.

    ``middle`` is the stream between attention and MLP, where it is another than ``x``; ``attention_delta`` and
    ``mlp_delta`` are what the parts gave, where a norm comes after them.
    """

    x: torch.Tensor
    middle: torch.Tensor | None = None
    qkv: torch.Tensor | None = None
    attended: torch.Tensor | None = None
    level: torch.Tensor | None = None
    inner: torch.Tensor | None = None
    attention_delta: torch.Tensor | None = None
    mlp_delta: torch.Tensor | None = None
    attention_lows: Lows = field(default_factory=list)
    mlp_lows: Lows = field(default_factory=list)


def empty(like: torch.Tensor, width: int, dtype: torch.dtype | None = None) -> torch.Tensor:
    """Unwritten memory [tokens of ``like``, width]."""
    return torch.empty(like.shape[0], width, device=like.device, dtype=dtype or like.dtype)
