"""What other trainers call the numbers that jinmaek knows: the one table of aliases."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from jinmaek.ingest.numbers import to_number

Row = dict[str, float]
"""What one line says, by jinmaek's names: fields of StepRecord and the names in ``_ALIASES``."""

# Our name <- theirs, lower case with single underscores. ``weak_step`` counts something that is the step only
# where nothing better is said; ``num_tokens_seen`` is cumulative; ``summary`` marks the line after the last step.
_ALIASES: dict[str, tuple[str, ...]] = {
    "step": ("step", "global_step", "current_steps", "iteration", "trainer/global_step", "steps", "current_step",
             "total_iterations", "step_num", "optimizer_step"),
    "weak_step": ("_step", "iter", "it", "update", "num_updates", "iter_num", "x"),
    "loss": ("loss", "lm_loss", "train_loss", "training_loss", "loss_train", "loss/train", "train_lm_loss",
             "train_loss_step", "ce_loss", "lm_loss_value", "total_loss"),
    "eval_loss": ("eval_loss", "val_loss", "valid_loss", "validation_loss", "loss/val", "loss/eval",
                  "loss/validation", "loss_val", "dev_loss", "lm_loss_validation", "valid_nll_loss"),
    "lr": ("lr", "learning_rate", "learningrate", "lr-adamw", "lr-adam", "lr-sgd", "lr-adamw/pg1", "lr_0", "base_lr",
           "lr/group_0"),
    "grad_norm": ("grad_norm", "gradient_norm", "gnorm", "global_grad_norm", "grad_norm_total", "gradnorm",
                  "total_grad_norm", "norm"),
    "epoch": ("epoch",),
    "token_accuracy": ("mean_token_accuracy", "token_acc", "token_accuracy"),
    "num_tokens_seen": ("num_tokens", "num_input_tokens_seen", "tokens_seen", "trained_tokens"),
    "loss_scale": ("loss_scale", "fp16_grad_scale", "grad_scale", "gradscale", "loss_scaling"),
    "max_steps": ("total_steps", "max_steps"),
    "skipped": ("number_of_skipped_iterations",),
    "summary": ("train_runtime",),
    "preference": ("rewards/chosen", "rewards/margins", "logps/chosen", "rewards/rejected"),
    "rl": ("reward", "kl", "completion_length", "completions/mean_length", "objective/kl", "reward_std",
           "policy/approxkl_avg", "rewards/format_reward", "rewards/accuracy_reward"),
}  # fmt: skip
_BY_ALIAS = {alias: name for name, aliases in _ALIASES.items() for alias in aliases}
_TRAIN_PREFIX = re.compile(r"(?:train(?:ing)?)[/_. ]")
_EVAL_PREFIX = re.compile(r"(?:eval(?:uation)?|val(?:id(?:ation)?)?|dev)[/_. ]")
_UNKNOWN = ""
_EXACT = 2**53
_MOST_NAMES = 10_000  # a log of random names must not fill the memory


def our_name(alias: str) -> str:
    """jinmaek's name for ``alias``; empty if it knows none."""
    name = re.sub(r"[\s_]+", "_", alias.strip().lower())
    if name in _BY_ALIAS:
        return _BY_ALIAS[name]
    eval_prefix = _EVAL_PREFIX.match(name)
    if eval_prefix:
        return "eval_loss" if _BY_ALIAS.get(name[eval_prefix.end() :]) == "loss" else _UNKNOWN
    train_prefix = _TRAIN_PREFIX.match(name)
    # "train/train_loss" is the mean of the whole run, told once at its end.
    rest = name[train_prefix.end() :] if train_prefix else _UNKNOWN
    return _UNKNOWN if rest.startswith("train") and rest != "train_runtime" else _BY_ALIAS.get(rest, _UNKNOWN)


class Names(dict[str, str]):
    """jinmaek's name by foreign name, worked out once for each.

    Args:
        loss: where a loss goes: ``loss``, or ``loss_reported`` if the trainer may have filtered it.
    """

    def __init__(self, loss: str) -> None:
        self._loss = loss
        super().__init__()

    def __missing__(self, alias: str) -> str:
        name = our_name(alias)
        name = self._loss if name == "loss" else name
        if len(self) < _MOST_NAMES:
            self[alias] = name
        return name


PLAIN = Names("loss")
REPORTED = Names("loss_reported")


def to_row(entry: Mapping[str, Any], names: Names) -> Row:
    """The numbers of ``entry`` that jinmaek knows; what is null or no number was not observed."""
    row: Row = {}
    for alias, value in entry.items():
        name = names[alias]
        if name and name not in row:
            kind = type(value)
            number = (
                value
                if kind is float
                else float(value)
                if kind is int and -_EXACT < value < _EXACT
                else to_number(value)
            )
            if number is not None:
                row[name] = number
    if "global_step/max_steps" in entry:
        row |= _progress(entry["global_step/max_steps"])
    if "weak_step" in row:
        row.setdefault("step", row.pop("weak_step"))
    # W&B counts calls of its own; the trainer's step is the other one.
    if "train/global_step" in entry:
        row["step"] = to_number(entry["train/global_step"]) or row.get("step", 0.0)
    return row


def _progress(text: object) -> Row:
    """ms-swift's ``4/294``."""
    step, _, total = str(text).partition("/")
    found = {"step": to_number(step), "max_steps": to_number(total)}
    return {name: number for name, number in found.items() if number is not None}


def is_transformers(aliases: Iterable[str]) -> bool:
    """Whether the names of a line are those of transformers' Trainer, whose filter hides non-finite losses."""
    names = set(aliases)
    told = {"current_steps", "global_step/max_steps", "train/global_step", "train/epoch", "train/grad_norm",
            "train_runtime", "total_flos", "Training Loss", "train/learning_rate"}  # fmt: skip
    return bool(names & told) or {"learning_rate", "epoch"} <= names
