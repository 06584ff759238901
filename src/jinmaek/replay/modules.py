"""Which module an operation belongs to, in the forward pass and in the backward pass."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from jinmaek.core.verdict import Phase


def phase_now() -> Phase:
    """Whether autograd is at work (what is recomputed for it counts as backward)."""
    return "forward" if torch._C._current_graph_task_id() == -1 else "backward"


class ModulesAtWork:
    """Names of the modules at work.

    In the forward pass they are the stack of calls. In the backward pass they are found by autograd's sequence
    numbers: every node carries the number it was made with, and each module notes which numbers were made within.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._stack: list[str] = []
        self._changes: list[int] = [0]  # sequence numbers at which the innermost module changed, ascending,
        self._inner: list[str] = [""]  # and the module from there on

    @contextmanager
    def tracked(self) -> Iterator[None]:
        """Within, calls are followed."""
        handles = []
        for name, module in self._model.named_modules():
            handles.append(module.register_forward_pre_hook(self._entering(name)))
            handles.append(module.register_forward_hook(self._leaving, always_call=True))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def module(self) -> str:
        """The innermost module at work now."""
        if self._stack:
            return self._stack[-1]
        node: Any = torch._C._current_autograd_node()
        if node is None:
            return ""
        return self._inner[bisect_right(self._changes, node._sequence_nr()) - 1]

    def _entering(self, name: str) -> Any:
        def enter(*_: Any) -> None:
            self._stack.append(name)
            self._note()

        return enter

    def _leaving(self, *_: Any) -> None:
        self._stack.pop()
        self._note()

    def _note(self) -> None:
        # What is recomputed in the backward pass makes nodes that are never run.
        if phase_now() == "forward":
            self._changes.append(torch._C._autograd._get_sequence_nr())
            self._inner.append(self._stack[-1] if self._stack else "")
