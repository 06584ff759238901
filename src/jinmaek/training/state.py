"""The state of a training: all that steps change, read out, copied to the host, and put back.

A step's random numbers and examples are functions of seed and step (:mod:`jinmaek.training.step`,
:mod:`jinmaek.training.batches`), so the step number *is* the state of RNG and data cursor; the global generators
lie beside it for whoever loads a state by hand.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from jinmaek.training.step import Training

State = dict[str, Any]


def state_of(training: Training, step: int) -> State:
    """The state after ``step``. Its tensors are the living ones: copy them before the next step."""
    return {
        "step": step,
        "weights": {name: weight.detach() for name, weight in training.params.items()},
        "optimizer": training.optimizer.state_dict(),
        "schedule": training.schedule.state_dict(),
        "loss_scale": None if training.loss_scale is None else training.loss_scale.state_dict(),
        "rng": rng_state(),
    }


def bring_to(training: Training, state: Mapping[str, Any]) -> None:
    """Bring ``training`` to ``state``, which stays as it is and can be used again."""
    with torch.no_grad():
        for name, weight in training.params.items():
            weight.copy_(state["weights"][name])
    # torch's optimizers keep the tensors they are given, and would write into them.
    training.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))
    training.schedule.load_state_dict(state["schedule"])
    if training.loss_scale is not None and state["loss_scale"] is not None:
        training.loss_scale.load_state_dict(state["loss_scale"])


def rng_state() -> State:
    """The global generators; a CUDA generator's state lies on the host, so nothing waits."""
    state: State = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a tensor lies in its dtype's row."""

    dtype: torch.dtype
    start: int
    shape: tuple[int, ...]


class StateCopy:
    """A state on its way to the host, copied behind the kernels already queued; the host does not wait.

    Tensors of one dtype are laid behind one another first: hundreds of small copies would cost the host
    milliseconds, and each its own pinned buffer.
    """

    def __init__(self, state: State) -> None:
        rows: dict[torch.dtype, list[torch.Tensor]] = {}
        self._skeleton = _placed(state, rows, {})
        self._rows = {dtype: _to_host(row) for dtype, row in rows.items()}
        self._done: torch.cuda.Event | None = None
        if torch.cuda.is_available():
            self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._done.record()

    @property
    def num_bytes(self) -> int:
        """Bytes on the host."""
        return sum(row.numel() * row.element_size() for row in self._rows.values())

    def wait(self) -> State:
        """The copy, whole; waits for the device."""
        if self._done is not None:
            self._done.synchronize()
        state: State = _filled(self._skeleton, self._rows)
        return state


def _placed(value: Any, rows: dict[torch.dtype, list[torch.Tensor]], sizes: dict[torch.dtype, int]) -> Any:
    if isinstance(value, torch.Tensor):
        start = sizes.get(value.dtype, 0)
        sizes[value.dtype] = start + value.numel()
        rows.setdefault(value.dtype, []).append(value.detach().reshape(-1))
        return _Place(value.dtype, start, tuple(value.shape))
    if isinstance(value, Mapping):
        return {key: _placed(item, rows, sizes) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_placed(item, rows, sizes) for item in value)
    return copy.copy(value)


def _filled(value: Any, rows: Mapping[torch.dtype, torch.Tensor]) -> Any:
    if isinstance(value, _Place):
        size = torch.Size(value.shape).numel()
        return rows[value.dtype][value.start : value.start + size].view(value.shape)
    if isinstance(value, dict):
        return {key: _filled(item, rows) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_filled(item, rows) for item in value)
    return value


def _to_host(row: list[torch.Tensor]) -> torch.Tensor:
    device = next((each.device for each in row if each.device.type == "cuda"), None)
    if device is None:
        return torch.cat(row)
    if any(each.device != device for each in row):
        # Paged optimizers keep theirs in memory that host and device share: wait until nobody writes to it.
        torch.cuda.current_stream(device).synchronize()
        row = [each.to(device) for each in row]
    together = torch.cat(row)
    host = torch.empty(together.shape, dtype=together.dtype, pin_memory=True)
    return host.copy_(together, non_blocking=True)
