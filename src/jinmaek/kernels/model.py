"""A whole causal language model on the fast path: loss and the adapter's gradients of one row of documents."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch

from jinmaek.kernels.attention import Documents
from jinmaek.kernels.block import Block, Dtypes, Keep, Kept, Pass, Stream
from jinmaek.kernels.loss_head import head_loss
from jinmaek.kernels.norm import Norm, normalise_backward
from jinmaek.kernels.offload import Offload
from jinmaek.kernels.planner import LayerBytes, Plan, plan_memory
from jinmaek.kernels.projection import Adapter, Projection, refresh

_HEAD_CHUNK = 1024


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """Documents behind one another, on the device.

    ``ids``, ``targets``: int64 [tokens]; ``learnt``: int64 [n], the tokens whose target counts, at least one.
    """

    ids: torch.Tensor
    targets: torch.Tensor
    learnt: torch.Tensor
    documents: Documents

    @classmethod
    def of(cls, ids: np.ndarray, targets: np.ndarray, lengths: list[int], ignored: int, device: torch.device) -> Row:
        """Sent to ``device`` in one copy that nobody waits for.

        Args:
            ids: int64 [tokens] of all documents.
            targets: int64 [tokens], the next token, ``ignored`` where none is learnt.
            lengths: of the documents, in order; their sum is ``tokens``.
            ignored: see ``targets``.
            device: where to.
        """
        tokens, learnt = len(ids), np.flatnonzero(targets != ignored)
        ends = np.cumsum(lengths)
        starts = np.repeat(ends - lengths, lengths)
        numbers = np.stack([starts, np.repeat(ends, lengths), np.arange(tokens) - starts])
        everything = np.concatenate([ids, np.where(targets == ignored, 0, targets), learnt, numbers.reshape(-1)])
        sent = torch.from_numpy(everything)
        if device.type == "cuda":
            sent = sent.pin_memory().to(device, non_blocking=True)
        ids_there, targets_there, learnt_there, rest = sent.split([tokens, tokens, len(learnt), 3 * tokens])
        return cls(ids_there, targets_there, learnt_there, Documents(*rest.to(torch.int32).view(3, tokens)))


@dataclass(slots=True)
class FusedModel:
    """The parts of the model.

    ``embedding``, ``head``: [vocabulary, hidden], the head in the attention's dtype; ``cos``, ``sin``: of the rotary
    positions, fp32 [positions, half the turned dimensions]; ``recompute``: whether activations may be computed twice
    where memory is short; ``memory_limit``: bytes of device memory to stay below, ``None``: all there are.
    """

    embedding: torch.Tensor
    blocks: list[Block]
    final_norm: Norm
    head: torch.Tensor
    cos: torch.Tensor
    sin: torch.Tensor
    dtypes: Dtypes
    recompute: bool
    memory_limit: int | None = None
    _adapters: list[Adapter] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._adapters = [each.adapter for each in self.projections() if each.adapter is not None]

    def projections(self) -> list[Projection]:
        """All linear layers but the head."""
        parts = [part for block in self.blocks for part in (block.attention, block.mlp)]
        return [each for part in parts for each in (*part.inputs, part.output)]

    @torch.no_grad()
    def loss(self, row: Row, seed: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
        """Summed negative log-likelihood of the learnt tokens, fp32 [], in nats.

        Args:
            row: the documents.
            seed: int64 [1] on the device, of the dropout masks.
            weight: fp32 [1] on the device: the gradient of ``weight`` times the loss is added to the adapters'
                weights; ``None``: no gradient, nothing is kept.
        """
        refresh(self._adapters)
        shared = Pass(row.documents, self.cos, self.sin, seed)
        stream = Stream(self.embedding[row.ids].to(self.dtypes.residual))
        plan = self.plan(row.ids.numel()) if weight is not None else None
        layers = self._forward(stream, shared, plan)
        hidden = torch.empty(stream.x.shape, device=stream.x.device, dtype=self.dtypes.attention)
        stream.normalise([self.final_norm], [hidden])
        loss, grad = head_loss(hidden, self.head, row.targets, row.learnt, weight)
        del hidden
        if grad is not None:
            self._backward(stream.x, grad, layers, shared)
        return loss

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
        fixed = _HEAD_CHUNK * self.head.shape[0] * 4 + 64 * 2**20
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
        mlp = (inner + 2 * down + inputs + 2 * hidden) * size
        attention = 2 * qkv * max(size, high) + (2 * attended + inputs + 3 * hidden) * size
        working = max(mlp, attention) + 2 * hidden * dtypes.residual.itemsize
        return LayerBytes(stream, qkv * high + attended * size + 4 * block.attention.num_heads, inner * size, working)

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
