"""One training step, told in order. Training and replay call this same function.

Nothing here waits for the device but one point: after the backward pass the host reads one small vector
(loss, loss scale, a gradient norm for each tensor), because whether the optimizer steps is the host's decision
and never a multiplication by zero. What the update did is copied while the next step runs.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from jinmaek.core.record import GroupStats, StepRecord
from jinmaek.training.batches import IGNORED, Batch
from jinmaek.training.first_gradient import FirstGradient
from jinmaek.training.fusing import row_of
from jinmaek.training.model import autocast, group_of
from jinmaek.training.optim import LossScale
from jinmaek.training.step_seed import seed_generators, step_seed

if TYPE_CHECKING:
    from jinmaek.kernels.model import FusedModel


@dataclass(slots=True)
class Training:
    """Everything that a step reads and changes.

    ``params`` are the trainable weights by name; ``dtype`` is autocast's (``None``: fp32, no autocast);
    ``max_grad_norm`` 0 means no clipping; ``seed`` and the step's number give the step's random numbers;
    ``fused`` computes loss and gradient where it is there, else ``model`` and autograd.
    """

    model: Any
    params: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    loss_scale: LossScale | None
    dtype: torch.dtype | None
    device: torch.device
    max_grad_norm: float
    seed: int
    fused: FusedModel | None = None


def nothing() -> None:
    """What the host does while the device computes, where there is nothing to do."""


def run_step(
    training: Training, step: int, batches: Sequence[Batch], meanwhile: Callable[[], None] = nothing
) -> StepOutcome:
    """Run step ``step`` on its microbatches; the optimizer moves only if loss and gradient are finite.

    ``meanwhile`` is called once, between launching the backward pass and waiting for it.
    """
    started = time.perf_counter()
    outcome = measure_step(training, step, batches, meanwhile)
    if outcome.finite:
        params = list(training.params.values())
        if training.max_grad_norm > 0:
            nn.utils.clip_grads_with_norm_(params, training.max_grad_norm, outcome.grad_norm)
        training.optimizer.step()
        training.schedule.step()
        outcome.watch_update()
    if training.loss_scale is not None and outcome.used_scale is not None:
        training.loss_scale.update(outcome.used_scale, finite=outcome.finite)
    return outcome.timed(started)


def measure_step(
    training: Training, step: int, batches: Sequence[Batch], meanwhile: Callable[[], None] = nothing
) -> StepOutcome:
    """The part of a step that changes no state: forward, backward, unscaled gradient, its norm.

    ``meanwhile``: see :func:`run_step`. Afterwards the parameters hold the unscaled gradient, and the host has waited
    for the device.
    """
    num_loss_tokens = sum(batch.num_loss_tokens for batch in batches)
    outcome = StepOutcome(training, step, batches, num_loss_tokens, _lr(training))
    if num_loss_tokens == 0:  # nothing to learn is no loss of 0
        meanwhile()
        return outcome
    seed = step_seed(training.seed, step)
    seed_generators(training.device, seed)

    training.optimizer.zero_grad(set_to_none=True)
    loss = torch.zeros((), device=training.device)
    for number, batch in enumerate(batches):
        if batch.num_loss_tokens:
            loss += add_gradient(training, batch, num_loss_tokens, seed + number)
            outcome.first.note(training.params.values(), batch.num_loss_tokens, num_loss_tokens)

    outcome.loss_scale = _unscale(training)
    norms = torch.stack(torch._foreach_norm([_grad(weight) for weight in training.params.values()]))
    outcome.grad_norm = torch.linalg.vector_norm(norms)
    outcome.send(loss, outcome.grad_norm, norms)
    meanwhile()
    outcome.receive()
    return outcome


def add_gradient(training: Training, batch: Batch, num_loss_tokens: int, seed: int) -> torch.Tensor:
    """Add the microbatch's part of the gradient, scaled for fp16; its part of the step's mean loss, fp32 []."""
    if training.fused is None:
        part = cross_entropy(training, batch, "sum") / num_loss_tokens
        (part if training.loss_scale is None else training.loss_scale.scale(part)).backward()  # type: ignore[no-untyped-call]
        return part.detach()
    weight = torch.full((1,), 1 / num_loss_tokens, device=training.device)
    if training.loss_scale is not None:
        weight *= training.loss_scale.current()
    number = torch.full((1,), seed, device=training.device)
    return training.fused.loss(row_of(batch, training.fused, fill=True), number, weight) / num_loss_tokens


def cross_entropy(training: Training, batch: Batch, reduction: str) -> torch.Tensor:
    """Negative log-likelihood by plain PyTorch, fp32 [] or [rows · tokens], in nats, as the model's mode has it."""
    batch = batch.to(training.device)
    with autocast(training.device, training.dtype):
        # Only what every causal LM takes: GPT-NeoX, for one, stumbles over token_type_ids.
        logits = training.model(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False).logits
    return nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), batch.targets.flatten(), ignore_index=IGNORED, reduction=reduction
    )


def _lr(training: Training) -> float:
    return float(training.optimizer.param_groups[0]["lr"])


def _unscale(training: Training) -> torch.Tensor | None:
    if training.loss_scale is None:
        return None
    used = training.loss_scale.current()
    training.loss_scale.unscale(training.optimizer)
    return used


def _grad(weight: nn.Parameter) -> torch.Tensor:
    return weight.grad if weight.grad is not None else torch.zeros_like(weight)


def _to_host(tensor: torch.Tensor) -> torch.Tensor:
    """A copy on its way to the host; read it only once the device has been waited for."""
    if tensor.device.type != "cuda":
        return tensor.clone()
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)


class StepOutcome:
    """What a step did; :meth:`record` is complete once the device has finished the step."""

    def __init__(
        self, training: Training, step: int, batches: Sequence[Batch], num_loss_tokens: int, lr: float
    ) -> None:
        self.step = step
        self.loss_scale: torch.Tensor | None = None
        self.grad_norm: torch.Tensor = torch.zeros((), device=training.device)
        self.finite = False
        self.used_scale: float | None = None
        self._training = training
        self._batches = batches
        self._num_loss_tokens = num_loss_tokens
        self._lr = lr
        self._values: torch.Tensor | None = None
        self.first = FirstGradient()
        self._first_norm: torch.Tensor | None = None
        self._before: tuple[torch.Tensor, ...] = ()
        self._updates: torch.Tensor | None = None
        self._done: torch.cuda.Event | None = None
        self._seconds = math.nan
        self._memory_bytes: int | None = None

    @torch.no_grad()
    def send(self, loss: torch.Tensor, grad_norm: torch.Tensor, norms: torch.Tensor) -> None:
        """Start bringing the step's numbers to the host; ``norms``: fp32 [tensors], of the gradients.

        Whatever can be launched now is: what the host launches after it has waited, the device waits for. The memory
        is the allocator's own count so far, in which the optimizer's part of this step is still missing.
        """
        params: list[torch.Tensor] = list(self._training.params.values())
        weights = torch.stack(torch._foreach_norm(params))
        scale = self.loss_scale if self.loss_scale is not None else torch.ones_like(loss)
        numbers = [torch.stack([loss, grad_norm, scale]), norms, weights, self.first.on_device(loss)]
        whole = _to_host(torch.cat(numbers))
        # The digest is of the others alone: runs that were recorded before the last one was are still reproduced.
        self._values, self._first_norm = whole[:-1], whole[-1]
        self._record_event()
        self._before = torch._foreach_mul(params, 1.0)
        if self._training.device.type == "cuda":
            self._memory_bytes = torch.cuda.max_memory_allocated(self._training.device)

    def receive(self) -> None:
        """Wait for the numbers that were sent: the one place where the host waits for the device."""
        self._wait()
        values = self._values
        if values is None:
            return
        self.finite = bool(torch.isfinite(values[0]) and torch.isfinite(values[1]))
        self.used_scale = None if self.loss_scale is None else float(values[2])

    @torch.no_grad()
    def watch_update(self) -> None:
        """Start copying the largest |Δw| of each tensor since :meth:`send`."""
        changes, self._before = self._before, ()
        torch._foreach_sub_(changes, list(self._training.params.values()))
        self._updates = _to_host(torch.stack(torch._foreach_norm(changes, math.inf)))
        self._record_event()

    def timed(self, started: float) -> StepOutcome:
        """Note the wall-clock time since ``started``."""
        self._seconds = time.perf_counter() - started
        return self

    def record(self) -> StepRecord:
        """The step's record; waits until its update has reached the host (in a later step: no wait)."""
        self._wait()
        known = self._values
        grad_norm = None if known is None else float(known[1])
        return StepRecord(
            step=self.step,
            loss=None if known is None else float(known[0]),
            grad_norm=grad_norm,
            clip_ratio=_clip_ratio(grad_norm, self._training.max_grad_norm) if self.finite else None,
            lr=self._lr,
            num_tokens=sum(batch.num_tokens for batch in self._batches),
            num_loss_tokens=self._num_loss_tokens,
            seconds=self._seconds,
            optimizer_stepped=self.finite,
            loss_scale=self.used_scale,
            update_ratio=self._update_ratio(),
            example_ids=tuple(name for batch in self._batches for name in batch.example_ids),
            groups=None if known is None else self._groups(known),
            first_grad_norm=self.first.unscaled(self._first_norm, self.used_scale, self._num_loss_tokens),
            first_loss_tokens=self.first.num_loss_tokens,
            digest=None if known is None else hashlib.blake2b(known.numpy().tobytes(), digest_size=8).hexdigest(),
            memory_bytes=self._memory_bytes,
        )

    def _update_ratio(self) -> float | None:
        return None if self._updates is None or self._lr == 0 else float(self._updates.max()) / self._lr

    def _groups(self, values: torch.Tensor) -> dict[str, GroupStats]:
        names = list(self._training.params)
        grads, weights = values[3 : 3 + len(names)].double(), values[3 + len(names) :].double()
        groups = {}
        for group in dict.fromkeys(map(group_of, names)):
            chosen = [index for index, name in enumerate(names) if group_of(name) == group]
            groups[group] = GroupStats(
                grad_norm=float(grads[chosen].norm()),
                weight_norm=float(weights[chosen].norm()),
                max_update=None if self._updates is None else float(self._updates[chosen].max()),
            )
        return groups

    def _record_event(self) -> None:
        if self._training.device.type == "cuda":
            self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._done.record()

    def _wait(self) -> None:
        if self._done is not None:
            self._done.synchronize()


def _clip_ratio(grad_norm: float | None, max_grad_norm: float) -> float | None:
    """The factor that torch's clipping applied."""
    if grad_norm is None:
        return None
    return min(1.0, max_grad_norm / (grad_norm + 1e-6)) if max_grad_norm > 0 else 1.0
