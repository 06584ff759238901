"""Ask the model being trained: the recipe's own prompt, greedy, until it says it is done."""

from __future__ import annotations

from typing import Any

import torch

from jinmaek.config.recipe import DataSection
from jinmaek.training.conversations import Document, Segment, prompt_segments
from jinmaek.training.examples import prompt_ids
from jinmaek.training.model import autocast, pad_id


def answer(
    model: Any,
    tokenizer: Any,
    section: DataSection,
    question: str,
    *,
    device: torch.device,
    dtype: torch.dtype | None,
    max_new_tokens: int,
) -> str:
    """The model's greedy answer to ``question``, asked as its training examples were.

    ``dtype`` is autocast's, ``None`` for none. The model is left in the mode it was in.
    """
    ids = torch.tensor([prompt_ids(tokenizer, prompt_document(tokenizer, section, question))], device=device)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), autocast(device, dtype):
            said = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                eos_token_id=end_tokens(model, tokenizer),
                pad_token_id=pad_id(tokenizer),
                use_cache=True,
            )
    finally:
        model.train(was_training)
    text: str = tokenizer.decode(said[0, ids.shape[1] :], skip_special_tokens=True)
    # An answer cut at max_new_tokens may end within a letter.
    return text.rstrip("\ufffd").strip()


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end an answer: the tokenizer's (polyglot-ko's config names another) and the model's own."""
    own = getattr(model.generation_config, "eos_token_id", None)
    listed = own if isinstance(own, list) else [] if own is None else [own]
    return sorted({tokenizer.eos_token_id, *listed})


def prompt_document(tokenizer: Any, section: DataSection, question: str) -> Document:
    """The prompt of ``question``: what stands before the answer in a training example."""
    if section.template != "chat":
        return Document("", (Segment(prompt_segments(section.template, question)[0], False),))
    messages = [{"role": "user", "content": question}]
    if section.system:
        messages.insert(0, {"role": "system", "content": section.system})
    text: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return Document("", (Segment(text, False),), complete=True)
