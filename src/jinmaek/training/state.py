"""The state of a training: all that steps change, read out, copied to the host, and put back.

A step's random numbers and examples are functions of seed and step (:mod:`jinmaek.training.step`,
:mod:`jinmaek.training.batches`), so the step number *is* the state of RNG and data cursor; the global generators
lie beside it for whoever loads a state by hand.
"""

from __future__ import annotations

import ast
import copy
import math
from collections.abc import Mapping
from functools import cache
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


class StateCopy:
    """A state on its way to the host, copied behind the kernels already queued; the host does not wait.

    Tensors of one dtype and device are laid behind one another first: hundreds of small copies would cost the
    host milliseconds, and each its own pinned buffer.
    """

    def __init__(self, state: State) -> None:
        rows: dict[str, list[torch.Tensor]] = {}
        self._layout = _laid_out(state, rows, {})
        if any(getattr(each, "is_paged", False) for row in rows.values() for each in row):
            # Paged optimizers keep theirs in memory that host and device share: wait until nobody writes to it.
            torch.cuda.synchronize()
        together = {name: torch.cat([each.detach().reshape(-1) for each in row]) for name, row in rows.items()}
        on_device = {name: row for name, row in together.items() if row.device.type == "cuda"}
        self._rows = {name: row for name, row in together.items() if name not in on_device}
        self._done: torch.cuda.Event | None = None
        if on_device:
            sent, self._done = _sent_to_host(on_device)
            self._rows |= sent

    def wait(self) -> State:
        """The copy, whole; waits for the device."""
        return unpacked(self.packed())

    def packed(self) -> State:
        """The copy as it lies: ``rows``, 1-d tensors named after dtype and device, and ``layout``.

        ``layout`` is the state with places for tensors, as a Python literal. A few large tensors and one text are
        written in hardly any interpreter time; hundreds of small ones would take it from the training beside.
        """
        if self._done is not None:
            self._done.synchronize()
        return {"rows": self._rows, "layout": repr(self._layout)}


def unpacked(packed: Mapping[str, Any]) -> State:
    """The state that :meth:`StateCopy.packed` holds; its tensors are views of the rows."""
    state: State = _filled(ast.literal_eval(packed["layout"]), packed["rows"])
    return state


_TENSOR = "tensor"  # (_TENSOR, row, start, shape) stands for a tensor


def _laid_out(value: Any, rows: dict[str, list[torch.Tensor]], sizes: dict[str, int]) -> Any:
    if isinstance(value, torch.Tensor):
        row = f"{str(value.dtype).removeprefix('torch.')}@{value.device.type}"
        start = sizes.get(row, 0)
        sizes[row] = start + value.numel()
        rows.setdefault(row, []).append(value)
        return (_TENSOR, row, start, tuple(value.shape))
    if isinstance(value, Mapping):
        return {key: _laid_out(item, rows, sizes) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_laid_out(item, rows, sizes) for item in value)
    return value


def _filled(value: Any, rows: Mapping[str, torch.Tensor]) -> Any:
    if isinstance(value, tuple) and value[:1] == (_TENSOR,):
        _, row, start, shape = value
        return rows[row][start : start + math.prod(shape)].view(shape)
    if isinstance(value, dict):
        return {key: _filled(item, rows) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_filled(item, rows) for item in value)
    return value


def _sent_to_host(rows: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], torch.cuda.Event]:
    """Pinned copies on their way, on a stream of their own: the next step's kernels do not wait for the bus."""
    device = next(iter(rows.values())).device
    stream = _copy_stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    hosts = {}
    with torch.cuda.stream(stream):
        for name, row in rows.items():
            hosts[name] = torch.empty(row.shape, dtype=row.dtype, pin_memory=True).copy_(row, non_blocking=True)
            row.record_stream(stream)
        done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        done.record(stream)
    return hosts, done


@cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
