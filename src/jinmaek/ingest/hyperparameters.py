"""What transformers' arguments say of a run."""

from __future__ import annotations

from collections.abc import Mapping

from jinmaek.core.record import RunFacts
from jinmaek.ingest.numbers import to_count, to_number


def note_arguments(arguments: Mapping[str, object], facts: RunFacts) -> None:
    """Take over the arguments that have a place among the facts."""

    def number(name: str) -> float | None:
        return to_number(arguments.get(name))

    max_steps = number("max_steps")
    facts.max_steps = to_count(max_steps) or facts.max_steps  # -1: the epochs say it
    facts.logging_steps = to_count(number("logging_steps")) or facts.logging_steps
    facts.accumulation = to_count(number("gradient_accumulation_steps")) or facts.accumulation
    facts.warmup_steps = to_count(number("warmup_steps")) or facts.warmup_steps
    for field, argument in (("peak_lr", "learning_rate"), ("max_grad_norm", "max_grad_norm"),
                            ("weight_decay", "weight_decay")):  # fmt: skip
        value = number(argument)
        if value is not None:
            setattr(facts, field, value)
    for field, argument in (("schedule", "lr_scheduler_type"), ("optimizer", "optim")):
        word = arguments.get(argument)
        if isinstance(word, str):
            setattr(facts, field, word.rpartition(".")[2].lower())
    for argument, precision in (("bf16", "bf16"), ("fp16", "fp16")):
        if arguments.get(argument) is True:
            facts.precision = precision
    vocab_size = to_count(number("vocab_size"))
    facts.vocab_size = vocab_size or facts.vocab_size
