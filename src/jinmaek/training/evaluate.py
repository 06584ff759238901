"""Held-out loss, as it is: no filter, weighted by tokens, and of each example, so that runs can be paired."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from jinmaek.core.record import EvaluationRecord
from jinmaek.training.batches import IGNORED, Batch, pad
from jinmaek.training.examples import Example
from jinmaek.training.fusing import row_of
from jinmaek.training.step import Training, cross_entropy

_DIGITS = 6  # significant ones that are kept of an example's loss


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Mean negative log-likelihood per loss token over the held-out examples, in nats.

    ``example_losses``: the same of each example, in the given order; ``prompt_loss``: of the tokens of their prompts,
    learnt or not, and ``answer_loss`` of the others; ``None`` where the examples have no prompt.
    """

    loss: float
    num_loss_tokens: int
    num_examples: int
    example_losses: tuple[float, ...]
    prompt_loss: float | None
    answer_loss: float | None

    def record(self, step: int) -> EvaluationRecord:
        """It as the held-out loss after ``step`` steps."""
        return EvaluationRecord(
            step=step,
            loss=self.loss,
            example_losses=self.example_losses,
            prompt_loss=self.prompt_loss,
            answer_loss=self.answer_loss,
        )


def evaluate(
    training: Training,
    examples: Sequence[Example],
    *,
    max_tokens: int,
    pad_id: int,
    advance: Callable[[int, int], None] = lambda done, total: None,
) -> Evaluation:
    """The loss on ``examples`` without dropout, in batches of at most ``max_tokens`` padded tokens.

    ``advance(done, total)`` is called after each batch. One forward pass gives the loss of every token, also of those
    that are not learnt; the host waits for the device once, at the end.
    """
    groups = _groups(examples, max_tokens)
    found: list[torch.Tensor] = []
    training.model.eval()
    try:
        with torch.no_grad():
            for number, group in enumerate(groups, 1):
                whole = [_all_learnt(examples[place]) for place in group]
                found.append(token_losses(training, pad(whole, pad_id)))
                advance(number, len(groups))
    finally:
        training.model.train()
    order = [place for group in groups for place in group]
    return _summed(examples, order, torch.cat(found).double().cpu().numpy())


def token_losses(training: Training, batch: Batch) -> torch.Tensor:
    """Negative log-likelihood of each loss token of the batch, in order, fp32 [loss tokens], in nats, as evaluated."""
    if training.fused is not None:
        return training.fused.token_losses(row_of(batch, training.fused))
    places = torch.from_numpy(np.flatnonzero(batch.targets.numpy() != IGNORED))
    return cross_entropy(training, batch, "none")[places.to(training.device)]


def _all_learnt(example: Example) -> Example:
    return replace(example, learn=np.ones(example.num_tokens, bool))


def _summed(examples: Sequence[Example], order: Sequence[int], losses: npt.NDArray[np.float64]) -> Evaluation:
    """``losses``: float64 [tokens less the first of each example], the examples being in ``order``."""
    ends = np.cumsum([examples[place].num_tokens - 1 for place in order])
    means = np.zeros(len(examples))
    total = prompt = answer = 0.0
    num_prompt = num_answer = 0
    for place, own in zip(order, np.split(losses, ends[:-1]), strict=True):
        example = examples[place]
        learnt = float(own[example.learn[1:]].sum())
        means[place] = learnt / example.num_loss_tokens
        answers = (example.learn if example.answer is None else example.answer)[1:]
        total += learnt
        answer += float(own[answers].sum())
        prompt += float(own[~answers].sum())
        num_answer += int(answers.sum())
        num_prompt += int((~answers).sum())
    num_loss_tokens = sum(example.num_loss_tokens for example in examples)
    return Evaluation(
        loss=total / num_loss_tokens,
        num_loss_tokens=num_loss_tokens,
        num_examples=len(examples),
        example_losses=tuple(float(f"{mean:.{_DIGITS}g}") for mean in means),
        prompt_loss=prompt / num_prompt if num_prompt and num_answer else None,
        answer_loss=answer / num_answer if num_prompt and num_answer else None,
    )


def _groups(examples: Sequence[Example], max_tokens: int) -> list[list[int]]:
    """Places of examples of like length together, so that little padding is computed."""
    groups: list[list[int]] = []
    for place in sorted(range(len(examples)), key=lambda place: examples[place].num_tokens):
        # Sorted: the newest example is the longest of its group and sets the width.
        if groups and (len(groups[-1]) + 1) * examples[place].num_tokens <= max_tokens:
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups
