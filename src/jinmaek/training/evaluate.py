"""Held-out loss, as it is: no filter, weighted by tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from jinmaek.training.batches import Batch, pad
from jinmaek.training.examples import Example
from jinmaek.training.step import Training, summed_loss


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Mean negative log-likelihood per loss token over the held-out examples, in nats."""

    loss: float
    num_loss_tokens: int
    num_examples: int


def evaluate(
    training: Training,
    examples: Sequence[Example],
    *,
    max_tokens: int,
    pad_id: int,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """The loss on ``examples`` without dropout, in batches of at most ``max_tokens`` padded tokens.

    ``advance(done, total)`` is called after each batch.
    """
    batches = list(_batches(examples, max_tokens, pad_id))
    total = torch.zeros((), dtype=torch.float64, device=training.device)
    training.model.eval()
    try:
        with torch.no_grad():
            for number, batch in enumerate(batches, 1):
                total += summed_loss(training, batch).double()
                advance(number, len(batches))
    finally:
        training.model.train()
    num_loss_tokens = sum(example.num_loss_tokens for example in examples)
    return Evaluation(float(total) / num_loss_tokens, num_loss_tokens, len(examples))


def _batches(examples: Sequence[Example], max_tokens: int, pad_id: int) -> list[Batch]:
    """Examples of like length together, so that little padding is computed."""
    groups: list[list[Example]] = []
    for example in sorted(examples, key=lambda example: example.num_tokens):
        # Sorted: the newest example is the longest of its group and sets the width.
        if groups and (len(groups[-1]) + 1) * example.num_tokens <= max_tokens:
            groups[-1].append(example)
        else:
            groups.append([example])
    return [pad(group, pad_id) for group in groups]
