"""What a fused model computes on: documents behind one another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from jinmaek.kernels.attention import Documents


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """Documents behind one another, on the device.

    ``ids``: int64 [tokens]; ``targets``: int64 [tokens], the next token, -1 where none is learnt; ``learnt``:
    int64 [n], ascending, the places of at least those that are.
    """

    ids: torch.Tensor
    targets: torch.Tensor
    learnt: torch.Tensor
    documents: Documents

    @classmethod
    def of(
        cls,
        ids: np.ndarray,
        targets: np.ndarray,
        lengths: Sequence[int],
        device: torch.device,
        *,
        all_learnt: bool = False,
    ) -> Row:
        """Sent to ``device`` in one copy that nobody waits for.

        Args:
            ids: int64 [tokens] of all documents.
            targets: int64 [tokens], the next token, negative where none is learnt.
            lengths: of the documents, in order; their sum is ``tokens``.
            device: where to.
            all_learnt: take every token into ``learnt``: its number is then the same in every row of one length.
        """
        tokens = len(ids)
        learnt = np.arange(tokens) if all_learnt else np.flatnonzero(targets >= 0)
        sizes = np.asarray(lengths)
        ends = np.repeat(np.cumsum(sizes), sizes)
        starts = ends - np.repeat(sizes, sizes)
        numbers = [ids, np.maximum(targets, -1), learnt, starts, ends, np.arange(tokens) - starts]
        sent = torch.from_numpy(np.concatenate(numbers))
        if device.type == "cuda":
            sent = sent.pin_memory().to(device, non_blocking=True)
        there = torch.split(sent, [tokens, tokens, len(learnt), 3 * tokens])
        return cls(there[0], there[1], there[2], Documents(*there[3].to(torch.int32).view(3, tokens)))


def filled_up(
    ids: np.ndarray, targets: np.ndarray, lengths: Sequence[int], tokens: int, longest: int
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """The same with documents that nobody learns behind it, each at most ``longest``, up to ``tokens`` in all."""
    missing = tokens - len(ids)
    more = [min(longest, missing - at) for at in range(0, missing, longest)]
    return np.pad(ids, (0, missing)), np.pad(targets, (0, missing), constant_values=-1), [*lengths, *more]
