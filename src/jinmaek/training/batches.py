"""Which examples each step sees, and the tensors it gets.

The order is a pure function of seed and step: nothing has to be remembered to go on, or to replay a step.
"""

from __future__ import annotations

import hashlib
import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from jinmaek.training.examples import Example

IGNORED = -100


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """The tensors of one microbatch.

    ``input_ids``: int64 [rows, tokens]; ``targets``: int64 [rows, tokens], the *next* token, ``IGNORED``
    where none is to be learnt; ``position_ids``: int64 [rows, tokens] in a pack, where documents restart at 0,
    else ``None``. No attention mask: padding is on the right, where a causal model does not look, and
    transformers keeps packed documents apart by their positions. ``lengths``: tokens of each example.
    """

    input_ids: torch.Tensor
    targets: torch.Tensor
    position_ids: torch.Tensor | None
    num_tokens: int
    num_loss_tokens: int
    example_ids: tuple[str, ...]
    lengths: tuple[int, ...]

    def to(self, device: torch.device) -> Batch:
        """The batch on ``device``; the copy does not stop the host."""
        positions = None if self.position_ids is None else _moved(self.position_ids, device)
        return Batch(
            _moved(self.input_ids, device),
            _moved(self.targets, device),
            positions,
            self.num_tokens,
            self.num_loss_tokens,
            self.example_ids,
            self.lengths,
        )


def _moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor


def pad(examples: Sequence[Example], pad_id: int) -> Batch:
    """Examples under one another, padded on the right to the longest."""
    width = max(example.num_tokens for example in examples)
    ids = np.full((len(examples), width), pad_id, np.int64)
    targets = np.full((len(examples), width), IGNORED, np.int64)
    for row, example in enumerate(examples):
        ids[row, : example.num_tokens] = example.input_ids
        targets[row, : example.num_tokens] = _targets(example)
    return _batch(ids, targets, None, examples)


def pack(examples: Sequence[Example]) -> Batch:
    """Examples behind one another in one row, positions restarting with each."""
    ids = np.concatenate([example.input_ids for example in examples])[None]
    targets = np.concatenate([_targets(example) for example in examples])[None]
    positions = np.concatenate([np.arange(example.num_tokens) for example in examples])[None]
    return _batch(ids, targets, torch.from_numpy(positions), examples)


def _targets(example: Example) -> np.ndarray:
    targets = np.full(example.num_tokens, IGNORED, np.int64)
    targets[:-1] = np.where(example.learn[1:], example.input_ids[1:], IGNORED)
    return targets


def _batch(ids: np.ndarray, targets: np.ndarray, positions: torch.Tensor | None, examples: Sequence[Example]) -> Batch:
    return Batch(
        torch.from_numpy(ids),
        torch.from_numpy(targets),
        positions,
        sum(example.num_tokens for example in examples),
        int((targets != IGNORED).sum()),
        tuple(example.id for example in examples),
        tuple(example.num_tokens for example in examples),
    )


def epoch_order(count: int, seed: int, epoch: int) -> list[int]:
    """A permutation of ``range(count)`` that depends on nothing but its arguments (no library's generator)."""
    keys = [hashlib.blake2b(f"{seed}:{epoch}:{index}".encode(), digest_size=8).digest() for index in range(count)]
    return sorted(range(count), key=keys.__getitem__)


def pack_first_fit(lengths: Sequence[int], order: Sequence[int], budget: int) -> list[list[int]]:
    """Bins of at most ``budget`` tokens, each document in the first that still has room, in ``order``.

    Closed bins (less room than the shortest document) are no longer looked at, so this stays near linear.
    """
    shortest = min(lengths)
    bins: list[list[int]] = []
    room: list[int] = []
    open_bins: list[int] = []
    for index in order:
        place = next((number for number in open_bins if room[number] >= lengths[index]), None)
        if place is None:
            place = len(bins)
            bins.append([])
            room.append(budget)
            open_bins.append(place)
        bins[place].append(index)
        room[place] -= lengths[index]
        if room[place] < shortest:
            open_bins.remove(place)
    return bins


class BatchPlan:
    """Step number -> examples of its microbatches.

    An epoch is cut into microbatches, ``accumulation`` of them make a step; the last step of an epoch may
    have fewer, and its last microbatch fewer examples, so that every example is seen once an epoch.
    """

    def __init__(
        self,
        examples: Sequence[Example],
        *,
        seed: int,
        accumulation: int,
        batch_size: int,
        batch_tokens: int | None = None,
        pad_id: int = 0,
    ) -> None:
        """``batch_tokens`` turns packing on; ``batch_size`` then has no meaning."""
        self._examples = examples
        self._lengths = [example.num_tokens for example in examples]
        self._seed = seed
        self._accumulation = accumulation
        self._batch_size = batch_size
        self._batch_tokens = batch_tokens
        self._pad_id = pad_id
        self._epoch = lru_cache(maxsize=2)(self._make_epoch)
        self._starts = [0]

    @property
    def steps_per_epoch(self) -> int:
        """Steps of the first epoch (with packing, later ones can differ by a few)."""
        return len(self._epoch(0))

    def num_steps(self, epochs: float) -> int:
        """Steps in so many epochs."""
        return max(1, math.ceil(round(epochs * self.steps_per_epoch, 6)))

    def microbatches(self, step: int) -> list[list[Example]]:
        """The examples of step ``step`` (1 is the first), microbatch by microbatch."""
        epoch = self._epoch_of(step)
        chosen = self._epoch(epoch)[step - 1 - self._starts[epoch]]
        return [[self._examples[index] for index in micro] for micro in chosen]

    def batches(self, step: int) -> list[Batch]:
        """The tensors of step ``step``."""
        return [self.tensors(examples) for examples in self.microbatches(step)]

    def tensors(self, examples: Sequence[Example]) -> Batch:
        """The tensors of one microbatch of ``examples``."""
        return pack(examples) if self._batch_tokens is not None else pad(examples, self._pad_id)

    def fingerprint(self, num_steps: int) -> str:
        """SHA-256 over the ids of every microbatch of the first ``num_steps`` steps."""
        digest = hashlib.sha256()
        for step in range(1, num_steps + 1):
            ids = [[example.id for example in micro] for micro in self.microbatches(step)]
            digest.update(repr(ids).encode())
        return digest.hexdigest()

    def _epoch_of(self, step: int) -> int:
        """Epoch ``e`` holds the steps after ``_starts[e]`` up to ``_starts[e + 1]``."""
        while self._starts[-1] < step:
            self._starts.append(self._starts[-1] + len(self._epoch(len(self._starts) - 1)))
        return bisect_left(self._starts, step) - 1

    def _make_epoch(self, epoch: int) -> list[list[list[int]]]:
        order = epoch_order(len(self._examples), self._seed, epoch)
        if self._batch_tokens is not None:
            micro = pack_first_fit(self._lengths, order, self._batch_tokens)
        else:
            micro = [order[at : at + self._batch_size] for at in range(0, len(order), self._batch_size)]
        return [micro[at : at + self._accumulation] for at in range(0, len(micro), self._accumulation)]
