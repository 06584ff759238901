"""Ask the model being trained: the recipe's own prompt, greedy, until it says it is done."""

from __future__ import annotations

from typing import Any

import torch

from jinmaek.config.recipe import DataSection
from jinmaek.training.conversations import prompt_segments
from jinmaek.training.model import autocast


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
    chat = section.template == "chat"
    prompt = _chat_prompt(tokenizer, section, question) if chat else prompt_segments(section.template, question)[0]
    encoded = tokenizer(prompt, add_special_tokens=not chat, return_tensors="pt")
    # Only these two: GPT-NeoX's generate refuses token_type_ids.
    inputs = {name: encoded[name].to(device) for name in ("input_ids", "attention_mask")}
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), autocast(device, dtype):
            ids = model.generate(
                **inputs,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                eos_token_id=end_tokens(model, tokenizer),
                pad_token_id=tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id,
                use_cache=True,
            )
    finally:
        model.train(was_training)
    said: str = tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    return said.strip()


def end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end an answer: the tokenizer's (polyglot-ko's config names another) and the model's own."""
    own = getattr(model.generation_config, "eos_token_id", None)
    listed = own if isinstance(own, list) else [] if own is None else [own]
    return sorted({tokenizer.eos_token_id, *listed})


def _chat_prompt(tokenizer: Any, section: DataSection, question: str) -> str:
    messages = [{"role": "user", "content": question}]
    if section.system:
        messages.insert(0, {"role": "system", "content": section.system})
    prompt: str = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return prompt
