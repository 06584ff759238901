"""A forward and backward pass recorded once as a CUDA graph and replayed: the host then launches one thing a step.

Small models leave the GPU waiting for the host, whose two thousand launches take longer than they compute.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from jinmaek.kernels.attention import Documents
from jinmaek.kernels.row import Row

Loss = Callable[[Row, torch.Tensor, torch.Tensor], torch.Tensor]


class Recorded:
    """``loss`` of rows of one length with the gradients of ``params``, from a graph."""

    def __init__(self, loss: Loss, params: Sequence[torch.nn.Parameter], row: Row) -> None:
        """Record ``loss`` on memory of its own; ``row``, of which every token counts as learnt, says how long."""
        device = row.ids.device
        self._params = list(params)
        self._row = replace(
            row,
            ids=row.ids.clone(),
            targets=row.targets.clone(),
            learnt=row.learnt.clone(),
            documents=Documents(*(each.clone() for each in row.documents.tensors())),
        )
        self._seed = torch.zeros(1, dtype=torch.int64, device=device)
        self._weight = torch.ones(1, device=device)
        self._grads = [torch.zeros_like(param) for param in self._params]
        self._graph = torch.cuda.CUDAGraph()
        before = [param.grad for param in self._params]
        _give(self._params, self._grads)
        try:
            self._record(loss)
        finally:
            _give(self._params, before)

    def _record(self, loss: Loss) -> None:
        aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # kernels are compiled and libraries made ready outside of the recording
            loss(self._row, self._seed, self._weight)
        torch.cuda.current_stream().wait_stream(aside)
        # Other threads may copy to the host meanwhile (snapshots, the base that is being kept).
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            torch._foreach_zero_(self._grads)
            self._loss = loss(self._row, self._seed, self._weight)

    @torch.no_grad()
    def loss(self, row: Row, seed: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        """As :meth:`jinmaek.kernels.model.FusedModel.loss` with a weight; gradients are added to ``params``."""
        self._row.ids.copy_(row.ids)
        self._row.targets.copy_(row.targets)
        for own, given in zip(self._row.documents.tensors(), row.documents.tensors(), strict=True):
            own.copy_(given)
        self._seed.copy_(seed)
        self._weight.copy_(weight)
        self._graph.replay()
        if self._params[0].grad is None:
            _give(self._params, torch._foreach_mul(self._grads, 1.0))
        else:
            torch._foreach_add_([param.grad for param in self._params if param.grad is not None], self._grads)
        return self._loss.clone()


def _give(params: Sequence[torch.nn.Parameter], grads: Sequence[torch.Tensor | None]) -> None:
    for param, grad in zip(params, grads, strict=True):
        param.grad = grad
