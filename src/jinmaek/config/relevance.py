"""Settings that contradict each other, and settings that a recipe would silently ignore.

Works on flat ``section.key`` values, so that these problems are told together with misspelt keys and bad
values, in one message. A rule is left out when a key it reads is itself in error.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinmaek.config.recipe import BUILTIN_PREFIX, DATA_ENDINGS
from jinmaek.core.errors import Problem

Values = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Ignored:
    """``key`` has no effect when ``reader`` holds one of the values that ``when`` accepts."""

    key: str
    reader: str
    when: Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class Conflict:
    """A combination that cannot be meant; ``message`` is filled with the values of ``reads``, dots as ``_``."""

    message: str
    reads: tuple[str, ...]
    when: Callable[..., bool]


def is_local(source: str) -> bool:
    """Whether a name means a file or folder of this machine (or the embedded one) and not the hub.

    A dot alone says nothing: beomi/KoAlpaca-v1.1a lies on the hub.
    """
    return source.startswith((BUILTIN_PREFIX, ".", "/", "~")) or is_data_file(source) or Path(source).exists()


def is_data_file(source: str) -> bool:
    """Whether a name ends as the files do that are read."""
    return Path(source).suffix.lower() in DATA_ENDINGS


def _is(*values: Any) -> Callable[[Any], bool]:
    return lambda value: value in values


def _is_not(*values: Any) -> Callable[[Any], bool]:
    return lambda value: value not in values


def _is_set(value: Any) -> bool:
    return value is not None


_PAIR_KEYS = ("question_column", "answer_column", "context_column")

IGNORED: tuple[Ignored, ...] = (
    Ignored("model.double_quant", "model.quantization", _is_not("nf4", "fp4")),
    Ignored("model.keep_quantized", "model.quantization", _is_not("nf4", "fp4")),
    Ignored("model.compute_dtype", "model.quantization", _is_not("nf4", "fp4")),
    Ignored("model.revision", "model.name", lambda name: name.startswith(BUILTIN_PREFIX) or Path(name).is_dir()),
    Ignored("data.subset", "data.source", is_local),
    Ignored("data.split", "data.source", is_local),
    *(Ignored(f"data.{key}", "data.format", _is("text", "messages")) for key in _PAIR_KEYS),
    Ignored("data.text_column", "data.format", _is("pairs", "messages")),
    Ignored("data.messages_column", "data.format", _is("pairs", "text")),
    Ignored("data.template", "data.format", _is("text")),
    Ignored("data.system", "data.template", _is_not("chat")),
    Ignored("data.held_out", "data.held_out_source", _is_set),
    Ignored("train.batch_size", "data.packing", _is(True)),
    Ignored("train.batch_tokens", "data.packing", _is(False)),
    Ignored("train.epochs", "train.max_steps", _is_set),
    *(
        Ignored(f"train.loss_scale_{key}", "train.precision", _is_not("fp16"))
        for key in ("init", "min", "growth_steps")
    ),
    Ignored("train.keep_checkpoints", "train.checkpoint_every", _is(0)),
    *(Ignored(f"kernels.{key}", "kernels.fused", _is(False)) for key in ("memory_gib", "cache_weights", "fp8")),
    Ignored("optim.schedule_steps", "optim.schedule", _is("constant")),
    *(Ignored(f"capture.{key}", "capture.every", _is(0)) for key in ("keep", "keep_found")),
    Ignored("samples.max_new_tokens", "samples.questions", lambda questions: not questions),
)

CONFLICTS: tuple[Conflict, ...] = (
    Conflict(
        "recipe.length_missing",
        ("train.max_steps", "train.epochs"),
        lambda steps, epochs: steps is None and epochs is None,
    ),
    Conflict(
        "recipe.steps_past_schedule",
        ("train.max_steps", "optim.schedule_steps", "optim.schedule"),
        lambda steps, length, kind: None not in (steps, length) and kind != "constant" and steps > length,
    ),
    Conflict(
        "recipe.warmup_too_long",
        ("optim.warmup_steps", "optim.schedule_steps", "train.max_steps"),
        lambda warmup, length, steps: (length or steps) is not None and warmup >= (length or steps) and warmup > 0,
    ),
    Conflict(
        "recipe.max_length_over_budget",
        ("data.packing", "data.max_length", "train.batch_tokens"),
        lambda packing, length, tokens: packing and length > tokens,
    ),
    Conflict(
        "recipe.answer_loss_of_text",
        ("data.format", "data.loss"),
        lambda form, loss: form == "text" and loss == "answer",
    ),
    Conflict(
        "recipe.template_without_answer",
        ("data.template",),
        lambda template: template not in ("koalpaca", "chat") and "{answer}" not in template,
    ),
    Conflict(
        "recipe.messages_need_chat",
        ("data.format", "data.template"),
        lambda form, template: form == "messages" and template != "chat",
    ),
    Conflict(
        "recipe.loss_scale_bounds",
        ("train.loss_scale_min", "train.loss_scale_init"),
        lambda low, start: low > start,
    ),
    Conflict(
        "recipe.eval_without_held_out",
        ("train.eval_every", "data.held_out", "data.held_out_source"),
        lambda every, share, source: every > 0 and share == 0 and source is None,
    ),
    Conflict(
        "recipe.flash_not_repeatable",
        ("model.attention", "train.deterministic"),
        lambda attention, deterministic: attention == "flash_attention_2" and deterministic,
    ),
)


def ignored_problems(given: Values, values: Values, wrong: frozenset[str]) -> list[Problem]:
    """One problem for each key of ``given`` that ``values`` makes idle."""
    return [
        Problem("recipe.ignored", {"key": rule.key, "reader": rule.reader, "value": _shown(values[rule.reader])})
        for rule in IGNORED
        if rule.key in given and rule.reader not in wrong and rule.when(values[rule.reader])
    ]


def conflict_problems(values: Values, wrong: frozenset[str]) -> list[Problem]:
    """One problem for each combination of ``values`` that cannot be meant."""
    return [
        Problem(rule.message, {key.replace(".", "_"): _shown(values[key]) for key in rule.reads})
        for rule in CONFLICTS
        if not wrong.intersection(rule.reads) and rule.when(*(values[key] for key in rule.reads))
    ]


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)
