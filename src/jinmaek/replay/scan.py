"""Every operation of a step, forward and backward, with how large its inputs and outputs became.

A dispatch mode sees what torch runs below modules and autograd: the products inside attention, casts, gradients.
Nothing waits for the device until :meth:`OpScan.values` asks for all the numbers at once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from jinmaek.core.verdict import Phase
from jinmaek.replay.modules import ModulesAtWork, phase_now

# What fills in infinities on purpose (masks), or returns memory that nobody has written yet.
_FILLS = ("masked_fill", "where", "full", "fill", "scalar_tensor", "empty", "triu", "tril", "zeros", "ones")
_VIEWS = ("aten._unsafe_view", "aten._reshape_alias", "aten.detach", "aten.lift_fresh")
_LOW = (torch.float16, torch.bfloat16, torch.float32)


@dataclass(frozen=True, slots=True)
class Op:
    """One operation. ``inputs`` and ``output`` are places in :meth:`OpScan.values`: largest |x|, NaN if any is.

    ``key`` names it across steps: module, operation, phase, and which of the like ones in this microbatch.
    """

    key: tuple[str, str, Phase, int]
    micro: int
    dtype: torch.dtype
    inputs: tuple[int, ...]
    output: int
    is_fill: bool
    is_view: bool


class OpScan(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records every operation while active. ``stop_at`` calls ``inspect`` at one of them, with its arguments."""

    def __init__(
        self,
        model: nn.Module,
        *,
        stop_at: Op | None = None,
        inspect: Callable[[Any, tuple[Any, ...], dict[str, Any], Callable[[], Any]], Any] | None = None,
        watch: tuple[str, str, Phase, int] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.ops: list[Op] = []
        self._model = model
        self._stop_at = stop_at
        self._inspect = inspect
        self._watch = watch
        self._values: list[torch.Tensor] = []
        self._known: Any = WeakIdKeyDictionary()  # tensor -> place of its value, and the version it was taken at
        self._counts: Counter[tuple[str, str, Phase]] = Counter()
        self._place_of = ModulesAtWork(model)
        self._micro = -1

    @contextmanager
    def running(self) -> Iterator[OpScan]:
        """Within, operations are recorded."""
        handle = self._model.register_forward_pre_hook(self._next_microbatch)
        try:
            with self._place_of.tracked(), self:
                yield self
        finally:
            handle.remove()

    def values(self) -> list[float]:
        """All largest |x|; the host waits for the device here."""
        found = [0.0] * len(self._values)
        for device in {value.device for value in self._values}:
            places = [place for place, value in enumerate(self._values) if value.device == device]
            numbers = torch.stack([self._values[place] for place in places]).tolist()
            for place, number in zip(places, numbers, strict=True):
                found[place] = number
        return found

    def _next_microbatch(self, *_: Any) -> None:
        self._micro += 1
        self._counts.clear()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        name = f"{func.namespace}.{func._schema.name.partition('::')[2]}"
        place = (self._place_of.module(), name, phase_now())
        key = (*place, self._counts[place])
        self._counts[place] += 1
        if self._watch is not None and key != self._watch:
            return func(*args, **kwargs)
        given = [] if self._watch else _read(name, args, kwargs)
        inputs = tuple(self._place(each) for each in given if _counts(each))
        stop = self._stop_at
        if self._inspect is not None and stop is not None and (key, self._micro) == (stop.key, stop.micro):
            result = self._inspect(func, args, kwargs, lambda: func(*args, **kwargs))
        else:
            result = func(*args, **kwargs)
        self._note(key, result, inputs, name, is_view=func.is_view or name in _VIEWS)
        return result

    def _note(
        self, key: tuple[str, str, Phase, int], result: Any, inputs: tuple[int, ...], name: str, *, is_view: bool
    ) -> None:
        outputs = [each for each in tree_leaves(result) if _counts(each)]
        for output in outputs[:1]:
            # A view shares its values with what it was made of; an operation in place made new ones.
            value = inputs[0] if is_view and inputs else self._add(output)
            self._known[output] = (value, output._version)
            is_fill = any(part in name.partition(".")[2] for part in _FILLS)
            self.ops.append(Op(key, self._micro, output.dtype, inputs, value, is_fill, is_view))
        for output in outputs[1:]:
            self._known[output] = (self._add(output), output._version)

    def _place(self, tensor: torch.Tensor) -> int:
        """Where the value of ``tensor`` is; it is taken anew if something was written into it meanwhile."""
        known = self._known.get(tensor)
        if known is None or known[1] != tensor._version:
            known = self._known[tensor] = (self._add(tensor), tensor._version)
        return int(known[0])

    def _add(self, tensor: torch.Tensor) -> int:
        self._values.append(largest(tensor))
        return len(self._values) - 1


@torch.no_grad()
def largest(tensor: torch.Tensor) -> torch.Tensor:
    """Largest |x|, fp32 []; NaN if any is NaN."""
    norm: torch.Tensor = torch.linalg.vector_norm(tensor.detach(), float("inf"))
    return norm.float()


def _read(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """What an operation reads: not the memory that it only writes to, in which anything may stand."""
    kept = {key: value for key, value in kwargs.items() if key != "out"}
    return tree_leaves((args[1:] if name == "aten.copy_" else args, kept))


def _counts(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype in _LOW and value.numel() > 0 and not value.is_meta
