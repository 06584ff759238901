"""Ask the untuned model in the casual form that pre-training shows.

What it knows there is the most that fine-tuning can bring out: a low score
here asks for more pre-training, a high one with poor tuning for other tuning.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from tiny_ko.answers import Score, complete
from tiny_ko.facts import DATA_DIR, Template, load_domains
from tiny_ko.instructions import Pair
from tiny_ko.tokenizer import END

_PROMPT: Final = END + "가: {question}\n나:"


def count_known(model: Any, tokenizer: Any, pairs: Sequence[Pair], device: str, data: Path = DATA_DIR) -> Score:
    """Return how many of the pairs' facts the model tells, out of those asked."""
    prompts: list[str] = []
    expected: list[str] = []
    questions = _questions(data)
    for pair in pairs:
        found = questions.get(pair["id"])
        if found and (value := pair.get("expects")):
            prompts.append(_PROMPT.format(question=found))
            expected.append(value)
    texts = complete(model, tokenizer, prompts, device)
    # The reply is one line; what follows is the next exchange.
    replies = [text.split("\n", 1)[0] for text in texts]
    right = sum(value in reply for value, reply in zip(expected, replies, strict=True))
    return Score(right, len(prompts))


def _questions(data: Path) -> dict[str, str]:
    """Map each fact's id to a casual question that does not give it away."""
    questions: dict[str, str] = {}
    for domain in load_domains(data):
        for attribute in domain.attributes:
            fit = [asked for asked, _ in attribute.dialogue if _asks(asked, domain.key, attribute.name)]
            for row in domain.rows if fit else ():
                questions[f"{domain.name}/{row[domain.key]}/{attribute.name}"] = fit[0].render(row)
    return questions


def _asks(asked: Template, key: str, attribute: str) -> bool:
    return key in asked.columns and attribute not in asked.columns
