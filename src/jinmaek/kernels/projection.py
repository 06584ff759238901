"""A frozen 4-bit linear layer with its LoRA adapter: y = x Wᵀ + b + s · drop(x) Aᵀ Bᵀ.

The adapter rides in the same product: the rows of x and W go on with a few columns more, drop(x) Aᵀ beside s · B, so
that base and adapter are summed in one fp32 accumulation and the adapter costs no pass over the output.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from jinmaek.kernels import fp8
from jinmaek.kernels.dropout import drop
from jinmaek.kernels.nf4 import dequantise

_ROOM = 64  # columns that an adapter's rank is rounded up to: what cuBLAS's tiles are made of


@dataclass(slots=True)
class Adapter:
    """The trainable part. ``a``: fp32 [rank, in], ``b``: fp32 [out, rank]; their gradients go into ``.grad``.

    ``half_a`` [rank, in] and ``tail`` [out, room] are this step's half-precision copies, the tail times ``scale``
    and 0 beyond the rank.
    """

    a: torch.nn.Parameter
    b: torch.nn.Parameter
    scale: float
    dropout: float
    half_a: torch.Tensor
    tail: torch.Tensor

    @classmethod
    def of(
        cls, a: torch.nn.Parameter, b: torch.nn.Parameter, scale: float, dropout: float, dtype: torch.dtype
    ) -> Adapter:
        """Copies are filled by :func:`refresh`."""
        room = -(-a.shape[0] // _ROOM) * _ROOM
        return cls(a, b, scale, dropout, torch.empty_like(a, dtype=dtype), b.new_zeros(b.shape[0], room, dtype=dtype))

    @property
    def rank(self) -> int:
        """Width of the low-rank update."""
        return self.a.shape[0]


@torch.no_grad()
def refresh(adapters: list[Adapter]) -> None:
    """Take this step's half-precision copies of all adapters, in a few launches."""
    if adapters:
        torch._foreach_copy_([each.half_a for each in adapters], [each.a for each in adapters])
        scaled = torch._foreach_mul([each.b for each in adapters], [each.scale for each in adapters])
        torch._foreach_copy_([each.tail[:, : each.rank] for each in adapters], scaled)


class Weights:
    """The frozen matrices, dequantised into memory that all of them share, or kept where there is room for them.

    ``keep``: keep them; ``fp8``: products are taken in fp8 (:mod:`jinmaek.kernels.fp8`).
    """

    def __init__(self, device: torch.device, dtype: torch.dtype) -> None:
        self.keep = False
        self.fp8 = False
        self._dtype = dtype
        self._device = device
        self._numbers = 0
        self._shared: torch.Tensor | None = None
        self._kept: dict[tuple[int, str], torch.Tensor] = {}
        self._divisors: dict[int, torch.Tensor] = {}

    def reserve(self, numbers: int) -> None:
        """Room for a matrix of so many numbers will be wanted."""
        self._numbers = max(self._numbers, numbers)

    @property
    def shared_bytes(self) -> int:
        """Bytes of the memory that all matrices share."""
        return self._numbers * self._dtype.itemsize

    def matrix(self, projection: Projection) -> torch.Tensor:
        """[out, in + room], the adapter's tail included; where matrices are not kept, the next call overwrites it."""
        key = (id(projection), "half")
        out = self._kept.get(key)
        if out is None:
            out = self._new((projection.out_features, projection.width))
            projection.write_weight(out)
            if self.keep:
                self._kept[key] = out
        if projection.adapter is not None:
            out[:, projection.in_features :].copy_(projection.adapter.tail)
        return out

    def codes(self, projection: Projection, *, transposed: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """The base's matrix over a divisor, e4m3 [out, in] or transposed, and that divisor, fp32 [1]."""
        if id(projection) not in self._divisors:
            largest = self._new((projection.out_features, projection.width))[:, : projection.in_features]
            projection.write_weight(largest)
            self._divisors[id(projection)] = (largest.abs().max().float() / fp8.LARGEST).reshape(1)
        divisor, key = self._divisors[id(projection)], (id(projection), "transposed" if transposed else "codes")
        if key in self._kept:
            return self._kept[key], divisor
        shape = projection.out_features, projection.in_features
        shape = shape[::-1] if transposed else shape
        out = self._new(shape).view(torch.uint8).view(-1)[: shape[0] * shape[1]].view(fp8.DTYPE).view(shape)
        if self.keep:
            out = self._kept[key] = torch.empty(shape, device=self._device, dtype=fp8.DTYPE)
        projection.write_weight(out, divisor=divisor, transposed=transposed)
        return out, divisor

    def _new(self, shape: tuple[int, int]) -> torch.Tensor:
        if self.keep and not self.fp8:
            return torch.empty(shape, device=self._device, dtype=self._dtype)
        if self._shared is None:
            self._shared = torch.empty(self._numbers, device=self._device, dtype=self._dtype)
        return self._shared[: shape[0] * shape[1]].view(shape)


class Projection:
    """One frozen linear layer, perhaps with an adapter."""

    def __init__(
        self, weight: Any, bias: torch.Tensor | None, adapter: Adapter | None, weights: Weights, salt: int
    ) -> None:
        """Make it.

        Args:
            weight: bitsandbytes' ``Params4bit``, or a plain matrix [out, in].
            bias: [out], in the dtype of ``weights``.
            adapter: the trainable part.
            weights: where the matrix is dequantised.
            salt: tells its dropout from the other layers'.
        """
        self.weight = weight
        self.bias = bias
        self.adapter = adapter
        self.salt = salt
        self._state = getattr(weight, "quant_state", None)
        self._weights = weights
        self.out_features, self.in_features = (weight if self._state is None else self._state).shape
        weights.reserve(self.out_features * self.width)

    @property
    def width(self) -> int:
        """Columns of an input: the features, and room for the adapter."""
        return int(self.in_features + (0 if self.adapter is None else self.adapter.tail.shape[1]))

    def write_weight(self, out: torch.Tensor, *, divisor: torch.Tensor | None = None, transposed: bool = False) -> None:
        """The base's matrix, perhaps over ``divisor`` (fp32 [1]) or transposed, into the first columns of ``out``."""
        if self._state is not None:
            dequantise(self.weight.data, self._state, out, divisor=divisor, transposed=transposed)
            return
        matrix = self.weight if divisor is None else self.weight / divisor
        matrix = matrix.t() if transposed else matrix
        out[:, : matrix.shape[1]].copy_(matrix)

    def forward(
        self, x: torch.Tensor, seed: torch.Tensor | None, out: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """y [tokens, out] and, with an adapter, drop(x) Aᵀ [tokens, rank], which the backward pass needs.

        x: [tokens, at least width], its features filled; the columns after them are overwritten. Without ``seed``
        nothing is dropped.
        """
        adapter = self.adapter
        low = None if adapter is None else self._dropped(x, seed) @ adapter.half_a.t()
        if self._weights.fp8:
            y = fp8.product(x[:, : self.in_features], *self._weights.codes(self, transposed=False), self.bias)
            y = y if adapter is None or low is None else y.addmm_(low, adapter.tail[:, : adapter.rank].t())
            return (y if out is None else out.copy_(y)), low
        x = x[:, : self.width]
        if adapter is not None and low is not None:
            room = x[:, self.in_features :]
            room[:, adapter.rank :].zero_()
            room[:, : adapter.rank].copy_(low)
        matrix = self._weights.matrix(self).t()
        if self.bias is None:
            return torch.mm(x, matrix, out=out), low
        return torch.addmm(self.bias, x, matrix, out=out), low

    def backward(
        self,
        grad: torch.Tensor,
        x: torch.Tensor | None,
        low: torch.Tensor | None,
        seed: torch.Tensor | None,
        into: torch.Tensor | None,
        *,
        wanted: bool = True,
    ) -> torch.Tensor | None:
        """Gradient of the input [tokens, in] if ``wanted``, added to ``into``; the adapter's goes to its weights.

        ``x``: the input's features once more, needed only with an adapter; ``low`` as :meth:`forward` gave it.
        """
        adapter, dlow = self.adapter, None
        if wanted:
            into, dlow = self._through_base(grad, into)
        if adapter is None:
            return into
        assert x is not None
        assert low is not None
        dlow = grad @ adapter.tail[:, : adapter.rank] if dlow is None else dlow
        _add_grad(adapter.b, grad.t(), low, adapter.scale)
        _add_grad(adapter.a, dlow.t(), self._dropped(x, seed), 1.0)
        if not wanted or into is None:
            return into
        if adapter.dropout == 0 or seed is None:
            return into.addmm_(dlow, adapter.half_a)
        return drop(dlow @ adapter.half_a, adapter.dropout, seed, self.salt, into, add=into)

    def _through_base(self, grad: torch.Tensor, into: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """The base's gradient added to ``into``; and the adapter's low-rank one, where the same product gives it."""
        if self._weights.fp8:
            through = fp8.product(grad, *self._weights.codes(self, transposed=True), None)
            return (through if into is None else into.add_(through)), None
        matrix = self._weights.matrix(self)
        if into is not None:
            return into.addmm_(grad, matrix[:, : self.in_features]), None
        both = grad @ matrix
        low = None if self.adapter is None else both[:, self.in_features :][:, : self.adapter.rank]
        return both[:, : self.in_features], low

    def _dropped(self, x: torch.Tensor, seed: torch.Tensor | None) -> torch.Tensor:
        features = x[:, : self.in_features]
        assert self.adapter is not None
        if self.adapter.dropout == 0 or seed is None:
            return features
        out = torch.empty(features.shape, device=x.device, dtype=x.dtype)
        return drop(features, self.adapter.dropout, seed, self.salt, out)


def _add_grad(param: torch.nn.Parameter, left: torch.Tensor, right: torch.Tensor, factor: float) -> None:
    """Add ``factor`` · left right to the gradient of ``param``; the product leaves its fp32 accumulator unrounded."""
    product = torch.mm(left, right, out_dtype=torch.float32) if left.is_cuda else left.float() @ right.float()
    if param.grad is None:
        param.grad = product.mul_(factor)
    else:
        param.grad.add_(product, alpha=factor)
