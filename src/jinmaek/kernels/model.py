"""A whole causal language model on the fast path: loss and the adapter's gradients of one row of documents."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

from jinmaek.kernels.block import Block
from jinmaek.kernels.graph import Recorded
from jinmaek.kernels.loss_head import head_loss
from jinmaek.kernels.norm import Norm, normalise_backward
from jinmaek.kernels.offload import Offload
from jinmaek.kernels.planner import LayerBytes, Plan, plan_memory
from jinmaek.kernels.projection import Adapter, Projection, Weights, refresh
from jinmaek.kernels.row import Row
from jinmaek.kernels.stream import Dtypes, Keep, Kept, Pass, Stream

_HEAD_CHUNK = 1024
_SPARE = 1 << 30  # bytes for what is not counted


@dataclass(slots=True)
class FusedModel:
    """The parts of the model.

    ``embedding``, ``head``: [vocabulary, hidden], the head in the attention's dtype; ``rotary``: see
    :class:`~jinmaek.kernels.stream.Pass`; ``embedding_scale``: what embeddings are multiplied by; ``recompute``:
    whether activations may be computed twice where memory is short; ``memory_limit``: bytes of device memory to stay
    below, ``None``: all there are; ``fixed_tokens``: rows of this length come often and are computed from a CUDA
    graph, where there can be one.
    """

    embedding: torch.Tensor
    blocks: list[Block]
    final_norm: Norm
    head: torch.Tensor
    rotary: tuple[tuple[torch.Tensor, torch.Tensor], ...]
    dtypes: Dtypes
    weights: Weights
    recompute: bool
    memory_limit: int | None = None
    fixed_tokens: int | None = None
    embedding_scale: float | None = None
    _adapters: list[Adapter] = field(default_factory=list)
    _recorded: Recorded | None = None

    def __post_init__(self) -> None:
        self._adapters = [each.adapter for each in self.projections() if each.adapter is not None]

    def projections(self) -> list[Projection]:
        """All linear layers but the head."""
        parts = [part for block in self.blocks for part in (block.attention, block.mlp)]
        return [each for part in parts for each in (*part.inputs, part.output)]

    @torch.no_grad()
    def loss(self, row: Row, seed: torch.Tensor | None = None, weight: torch.Tensor | None = None) -> torch.Tensor:
        """Summed negative log-likelihood of the learnt tokens, fp32 [], in nats.

        Args:
            row: the documents.
            seed: int64 [1] on the device, of the dropout masks; without one nothing is dropped.
            weight: fp32 [1] on the device: the gradient of ``weight`` times the loss is added to the adapters'
                weights; ``None``: no gradient, nothing is kept.
        """
        if weight is None or seed is None or not self._from_graph(row):
            return self._loss(row, seed, weight)
        if self._recorded is None:
            params = [param for adapter in self._adapters for param in (adapter.a, adapter.b)]
            self._recorded = Recorded(self._loss, params, row)
        return self._recorded.loss(row, seed, weight)

    @torch.no_grad()
    def token_losses(self, row: Row) -> torch.Tensor:
        """Negative log-likelihood of each learnt token, fp32 [n] in the order of ``row.learnt``, without dropout."""
        return self._losses(row, None, None)

    def _from_graph(self, row: Row) -> bool:
        tokens = row.ids.numel()
        if row.ids.device.type != "cuda" or tokens != self.fixed_tokens or row.learnt.numel() != tokens:
            return False
        return self._recorded is not None or not self.plan(tokens).offload  # copies to the host cannot be recorded

    def _loss(self, row: Row, seed: torch.Tensor | None, weight: torch.Tensor | None) -> torch.Tensor:
        return self._losses(row, seed, weight).sum()

    @torch.no_grad()
    def _losses(self, row: Row, seed: torch.Tensor | None, weight: torch.Tensor | None) -> torch.Tensor:
        refresh(self._adapters)
        shared = Pass(row.documents, self.rotary, seed)
        stream = Stream(self._embedded(row))
        plan = self.plan(row.ids.numel()) if weight is not None else None
        layers = self._forward(stream, shared, plan)
        hidden = torch.empty(stream.x.shape, device=stream.x.device, dtype=self.dtypes.attention)
        stream.normalise([self.final_norm], [hidden])
        losses, grad = head_loss(hidden, self.head, row.targets, row.learnt, weight)
        del hidden
        if grad is not None:
            self._backward(stream.x, grad, layers, shared)
        return losses

    def _embedded(self, row: Row) -> torch.Tensor:
        embedded = self.embedding[row.ids]
        if self.embedding_scale is not None:
            embedded = embedded * self.embedding_scale
        return embedded.to(self.dtypes.residual)

    def _forward(self, stream: Stream, shared: Pass, plan: Plan | None) -> Offload:
        layers = Offload(enabled=plan is not None and plan.offload)
        for number, block in enumerate(self.blocks):
            kept = block.forward(stream, shared, plan.keep[number] if plan else Keep.INPUT)
            if plan is not None:
                layers.put(kept)
        return layers

    def _backward(self, x: torch.Tensor, grad: torch.Tensor, layers: Offload, shared: Pass) -> None:
        total = torch.empty_like(x)
        half = total if self.dtypes.residual == self.dtypes.compute else torch.empty_like(x, dtype=self.dtypes.compute)
        normalise_backward(x, [grad], [self.final_norm], None, total, None if half is total else half)
        for number in reversed(range(len(self.blocks))):
            kept: Kept = layers.take()
            self.blocks[number].backward(total, half, kept, shared, wanted=number > 0)

    def plan(self, tokens: int) -> Plan:
        """What is kept of each layer for a row of so many tokens, with the memory that is free now."""
        fixed = _HEAD_CHUNK * self.head.shape[0] * 4 + self.weights.shared_bytes
        return plan_memory(
            self.layer_bytes(), len(self.blocks), tokens, fixed, self._available(), recompute=self.recompute
        )

    def layer_bytes(self) -> LayerBytes:
        """Bytes a token of a layer (all are alike)."""
        block, dtypes = self.blocks[0], self.dtypes
        hidden, size, high = self.embedding.shape[1], dtypes.compute.itemsize, dtypes.attention.itemsize
        qkv = sum(each.out_features for each in block.attention.inputs)
        inner = sum(each.out_features for each in block.mlp.inputs)
        inputs = max(each.width for each in (*block.attention.inputs, *block.mlp.inputs))
        down = block.mlp.output.width
        attended = block.attention.output.width
        stream = hidden * dtypes.residual.itemsize * (1 if block.parallel else 2)
        stream += 0 if block.after is None else 2 * hidden * high
        mlp = (inner + 2 * down + inputs + 2 * hidden) * size
        turned = 0 if block.attention.head_norms is None else qkv
        attention = (2 * qkv + turned) * max(size, high) + (2 * attended + inputs + 3 * hidden) * size
        working = max(mlp, attention) + 2 * hidden * dtypes.residual.itemsize
        return LayerBytes(stream, qkv * high + attended * size + 4 * block.attention.num_heads, inner * size, working)

    def has_room_for_weights(self, tokens: int) -> bool:
        """Whether the base dequantised fits beside a row of so many tokens of which everything is kept."""
        numbers = sum(each.out_features * each.width for each in self.projections())
        everything = plan_memory(self.layer_bytes(), len(self.blocks), tokens, _SPARE, 0, recompute=False)
        needed = numbers * self.dtypes.compute.itemsize + everything.needed_bytes + _SPARE
        return bool(needed <= self._available())

    @property
    def max_positions(self) -> int:
        """Tokens of the longest document."""
        return self.rotary[0][0].shape[0]

    def _available(self) -> int:
        device = self.embedding.device
        if device.type != "cuda":
            return 1 << 62
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        available = free + unused - (512 << 20)  # what others on the card may come to need, cuBLAS among them
        if self.memory_limit is not None:
            available = min(available, self.memory_limit - torch.cuda.memory_allocated(device))
        return available
