"""Let a model answer questions and count the right answers."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import torch

from tiny_ko.instructions import Pair

PROMPT: Final = "### 질문: {question}\n\n### 답변:"
"""The instruction format that fine-tuning teaches."""

NEW_TOKENS: Final = 40
_BATCH: Final = 32


class Score(NamedTuple):
    """How many questions were answered rightly, out of how many."""

    right: int
    total: int


def answer(model: Any, tokenizer: Any, questions: Sequence[str], device: str) -> list[str]:
    """Answer each question greedily."""
    prompts = [PROMPT.format(question=question) for question in questions]
    return complete(model, tokenizer, prompts, device)


def complete(model: Any, tokenizer: Any, prompts: Sequence[str], device: str) -> list[str]:
    """Continue each prompt greedily."""
    texts: list[str] = []
    for start in range(0, len(prompts), _BATCH):
        texts += _complete_batch(model, tokenizer, list(prompts[start : start + _BATCH]), device)
    return texts


def scores(pairs: Sequence[Pair], texts: Sequence[str]) -> dict[str, Score]:
    """Count the right answers of each kind; rows without `expects` do not count."""
    counted: dict[str, Score] = {}
    for pair, text in zip(pairs, texts, strict=True):
        expected = pair.get("expects")
        if expected is None:
            continue
        right, total = counted.get(pair["kind"], Score(0, 0))
        counted[pair["kind"]] = Score(right + (expected in text), total + 1)
    return counted


def total_score(by_kind: dict[str, Score]) -> Score:
    """Add the kinds up."""
    return Score(
        sum(score.right for score in by_kind.values()),
        sum(score.total for score in by_kind.values()),
    )


def count_right(model: Any, tokenizer: Any, pairs: Sequence[Pair], device: str) -> Score:
    """Ask the model and return (right, total)."""
    asked = [pair for pair in pairs if pair.get("expects") is not None]
    texts = answer(model, tokenizer, [pair["question"] for pair in asked], device)
    return total_score(scores(asked, texts))


@torch.no_grad()
def _complete_batch(model: Any, tokenizer: Any, prompts: list[str], device: str) -> list[str]:
    # Rows end together only when the padding is on their left.
    inputs = tokenizer(prompts, padding=True, padding_side="left", return_tensors="pt").to(device)
    model.eval()
    written = model.generate(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        do_sample=False,
        max_new_tokens=NEW_TOKENS,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    fresh = written[:, inputs["input_ids"].shape[1] :]
    decoded = tokenizer.batch_decode(fresh, skip_special_tokens=True)
    return [text.strip() for text in decoded]
