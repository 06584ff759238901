"""What a step reads and makes, tensor by tensor in its own order, as short hashes that two runs can be held by.

Of all those tensors one at most is kept: the first that is another than in the run before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import torch
from torch import nn
from torch.utils._pytree import tree_leaves

from jinmaek.core.parting import Place, PlaceKind
from jinmaek.core.record import StepRecord
from jinmaek.replay.scene import Scene
from jinmaek.training.batches import Batch
from jinmaek.training.state import State

_CHUNK = 1 << 22  # bytes hashed at a time: several copies of them lie on the device meanwhile
_GOLDEN, _MIX, _STEP = -0x61C8864680B583EB, -0x4B47D0C58F8E2D95, 0x369DEA0F31A53F85  # odd: multiplying loses nothing
_PEFT_PREFIX = "base_model.model."


@dataclass(frozen=True, slots=True)
class Entry:
    """One tensor of a step. ``value`` is that of a single number; the hash stands for it where entries compare."""

    step: int
    kind: PlaceKind
    name: str
    microbatch: int | None
    shape: tuple[int, ...]
    bits: int
    value: float | None = field(compare=False)

    @property
    def key(self) -> tuple[int, PlaceKind, str, int | None]:
        """Which tensor it is."""
        return self.step, self.kind, self.name, self.microbatch


class Trace:
    """The tensors of a replay, in order.

    ``kept`` is, on the host, the one of number ``keep``, or the first that is another than in ``expected``.
    """

    def __init__(self, expected: Sequence[Entry] | None = None, keep: int | None = None) -> None:
        self.entries: list[Entry] = []
        self.kept: torch.Tensor | None = None
        self._expected = expected
        self._keep = keep

    @torch.no_grad()
    def note(self, step: int, kind: PlaceKind, name: str, tensor: torch.Tensor, microbatch: int | None = None) -> None:
        """The next tensor."""
        value = float(tensor) if tensor.numel() == 1 else None
        entry = Entry(step, kind, name, microbatch, tuple(tensor.shape), bits_of(tensor), value)
        number = len(self.entries)
        self.entries.append(entry)
        if number == self._keep or (self._expected is not None and self._parts(number, entry)):
            self.kept, self._expected = tensor.detach().cpu().clone(), None

    def note_number(self, step: int, kind: PlaceKind, value: float | None) -> None:
        """A number of the host; nothing where there is none."""
        if value is not None:
            self.note(step, kind, kind, torch.tensor(value, dtype=torch.float64))

    def _parts(self, number: int, entry: Entry) -> bool:
        assert self._expected is not None
        return number >= len(self._expected) or self._expected[number] != entry


def trace_measure(scene: Scene, trace: Trace, state: State, step: int) -> StepRecord:
    """Step ``step`` from ``state`` up to its gradient: inputs, what each module returns, loss, gradients."""
    batches = scene.batches(step)
    for number, batch in enumerate(batches, 1):
        for name in ("input_ids", "targets", "position_ids"):
            tensor = getattr(batch, name)
            if tensor is not None:
                trace.note(step, "input", name, tensor, number)
    with _watching(scene.training.model, trace, step, batches):
        reading = scene.measure(state, step, batches)
    if reading.loss is not None:  # without a loss token there was no backward pass
        trace.note_number(step, "loss", reading.loss)
        trace.note_number(step, "loss_scale", reading.loss_scale)
        for name, weight in scene.training.params.items():
            if weight.grad is not None:
                trace.note(step, "gradient", plain_name(name), weight.grad)
    return reading


def trace_update(scene: Scene, trace: Trace, state: State, step: int) -> StepRecord:
    """Step ``step`` from ``state`` with its update: lr, and the weights afterwards."""
    reading = scene.update(state, step)
    trace.note_number(step, "lr", reading.lr)
    for name, weight in scene.training.params.items():
        trace.note(step, "update", plain_name(name), weight)
    return reading


def plain_name(name: str) -> str:
    """A module or weight without what PEFT puts before it, and without the adapter's name."""
    return name.removeprefix(_PEFT_PREFIX).replace(".default", "")


@contextmanager
def _watching(model: Any, trace: Trace, step: int, batches: Sequence[Batch]) -> Iterator[None]:
    """Note what modules return in the forward pass, and not what checkpointing computes again in the backward."""
    # Microbatches without a loss token are left out of the step.
    numbers = iter([number for number, batch in enumerate(batches, 1) if batch.num_loss_tokens])
    base, present = model.get_base_model(), [0]

    def begin(*_: Any) -> None:
        present[0] = next(numbers, 0)

    def end(*_: Any) -> None:
        present[0] = 0

    def noting(name: str) -> Any:
        def note(_: nn.Module, __: Any, output: Any) -> None:
            for tensor in tree_leaves(output) if present[0] else ():
                if isinstance(tensor, torch.Tensor):
                    trace.note(step, "forward", name, tensor, present[0])

        return note

    handles = [base.register_forward_pre_hook(begin)]
    handles += [module.register_forward_hook(noting(plain_name(name))) for name, module in base.named_modules()]
    handles.append(base.register_forward_hook(end))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def bits_of(tensor: torch.Tensor) -> int:
    """A hash of the tensor's bits, computed where it lies: no large tensor travels to the host.

    64 bits, mixed by place and value. It tells runs apart on one machine and is not kept anywhere.
    """
    raw = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    total = torch.zeros((), dtype=torch.int64, device=tensor.device)
    for at in range(0, raw.numel(), _CHUNK):
        part = raw[at : at + _CHUNK]
        aligned = part.new_zeros(-(-part.numel() // 8) * 8)
        aligned[: part.numel()] = part
        words = aligned.view(torch.int64)
        mixed = (words + torch.arange(1, words.numel() + 1, device=words.device) * _GOLDEN) * _MIX
        mixed = (mixed ^ (mixed >> 29)) * _GOLDEN
        total = total * _STEP + (mixed ^ (mixed >> 32)).sum()
    return int(total)


def first_parting(run: Sequence[Entry], against: Sequence[Entry]) -> int | None:
    """Number of the first entry that is not the same in both, from 0."""
    pairs = enumerate(zip_longest(run, against))
    return next((number for number, (one, other) in pairs if one != other), None)


def place_at(number: int, run: Sequence[Entry], against: Sequence[Entry]) -> Place:
    """The place of entry ``number``, the first that is not the same in both."""
    one = run[number] if number < len(run) else None
    other = against[number] if number < len(against) else None
    if one is not None and other is not None and one.key != other.key:
        # Where the orders differ, what one of them lacks altogether tells more than what comes elsewhere.
        missing = one.key not in {entry.key for entry in against}
        one, other = (one, None) if missing else (None, other)
    entry = one or other
    assert entry is not None
    own = run if one is not None else against
    in_step = [each for each, seen in enumerate(own) if seen.step == entry.step]
    several = any((each.microbatch or 1) > 1 for each in (*run, *against))
    return Place(
        step=entry.step,
        kind=entry.kind,
        name=entry.name,
        number=in_step.index(number) + 1,
        count=len(in_step),
        microbatch=entry.microbatch if several else None,
        only_in="run" if other is None else "against" if one is None else None,
        run_shape=None if one is None else one.shape,
        against_shape=None if other is None else other.shape,
        run_value=None if one is None else one.value,
        against_value=None if other is None else other.value,
    )


def distance(one: torch.Tensor, other: torch.Tensor) -> tuple[float, int]:
    """Largest |difference| (NaN where but one of the two is NaN), and how many elements differ."""
    one, other = one.double(), other.double()
    same = (one == other) | (one.isnan() & other.isnan())
    apart = (one - other).abs().masked_fill(same, 0)
    return float(apart.max()), int((~same).sum())
