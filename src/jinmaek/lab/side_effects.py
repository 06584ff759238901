"""What else changes with a varied setting, and the settings that hold it still."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from jinmaek.config import Recipe
from jinmaek.config.recipe import OptimSection
from jinmaek.core.errors import Problem

STEPS, EPOCHS, SCHEDULE_STEPS = "train.max_steps", "train.epochs", "optim.schedule_steps"
BATCH = ("train.batch_size", "train.batch_tokens", "train.accumulation")
RANK, LR = "adapter.rank", "optim.lr"
_HELD_BY = {STEPS: SCHEDULE_STEPS, **dict.fromkeys(BATCH, STEPS), RANK: "adapter.alpha", LR: "optim.weight_decay"}
_NO_EFFECT = ("train.log_every", "train.checkpoint_every", "train.keep_checkpoints", "train.eval_every")
_ROUNDING = ("model.attention", "model.activation_checkpointing", "train.deterministic")
_SAMPLING = ("data.source", "data.subset", "data.split", "data.limit", "data.held_out")


@dataclass(frozen=True, slots=True)
class Effect:
    """What else changes with ``key``, and what ``--controlled`` does about it (``None``: it does nothing)."""

    key: str
    what: Problem
    control: Problem | None = None


def side_effects(keys: Sequence[str], recipe: Recipe, arms: Sequence[Recipe]) -> list[Effect]:
    """One effect for each varied key, in their order.

    Args:
        keys: the varied settings.
        recipe: the recipe as it stands.
        arms: the recipes of all arms, before anything is held still.
    """
    given = {text.partition("=")[0] for arm in arms for text in control_settings(keys, recipe, arm, arms)}
    effects = [_effect(key, recipe, arms) for key in keys]
    return [effect if _HELD_BY.get(effect.key) in given else replace(effect, control=None) for effect in effects]


def _effect(key: str, recipe: Recipe, arms: Sequence[Recipe]) -> Effect:
    section = key.partition(".")[0]
    found = _COMPUTED.get(key)
    if found is not None:
        return found(key, recipe, arms)
    if changes_held_out([key], recipe):
        return Effect(key, Problem("lab.effect_held_out"))
    if key in _FIXED:
        return Effect(key, _FIXED[key])
    if key in _ROUNDING or section == "kernels":
        return Effect(key, Problem("lab.effect_rounding"))
    if key in _NO_EFFECT or section in ("capture", "samples", "about"):
        return Effect(key, Problem("lab.effect_none"))
    return Effect(key, Problem("lab.effect_model") if section == "model" else Problem("lab.effect_alone"))


_FIXED = {
    "train.seed": Problem("lab.effect_seed"),
    "train.precision": Problem("lab.effect_precision"),
    "optim.schedule": Problem("lab.effect_schedule_kind"),
    "optim.schedule_steps": Problem("lab.effect_schedule_kind"),
    "optim.warmup_steps": Problem("lab.effect_schedule_kind"),
    "adapter.targets": Problem("lab.effect_targets"),
    "data.packing": Problem("lab.effect_packing"),
    "data.limit": Problem("lab.effect_train_data"),
    "data.source": Problem("lab.effect_train_data"),
    "data.subset": Problem("lab.effect_train_data"),
    "data.split": Problem("lab.effect_train_data"),
}


def changes_held_out(keys: Sequence[str], recipe: Recipe) -> bool:
    """Whether arms of these varied settings measure the held-out loss on other tokens: then it cannot be compared."""
    own = recipe.data.held_out_source is not None
    harmless = {"data.packing", *(_SAMPLING if own else ())}
    return any(key == "model.name" or (key.startswith("data.") and key not in harmless) for key in keys)


def _length(key: str, recipe: Recipe, arms: Sequence[Recipe]) -> Effect:
    steps = sorted({arm.train.max_steps for arm in arms if arm.train.max_steps is not None})
    if recipe.optim.schedule == "constant" or recipe.optim.schedule_steps is not None or len(steps) < 2:
        return Effect(key, Problem("lab.effect_length"))
    at = steps[0]
    shown = ", ".join(f"{total} → {lr_at(recipe.optim, at, total):.2e}" for total in steps)
    params = {"schedule": recipe.optim.schedule, "step": at, "lrs": shown}
    return Effect(key, Problem("lab.effect_schedule", params), Problem("lab.control_schedule", {"steps": steps[-1]}))


def lr_at(section: OptimSection, step: int, total: int) -> float:
    """The lr that step ``step`` (1 is the first) uses where every step has an update (transformers' formulas)."""
    done, warmup = step - 1, section.warmup_steps
    if done < warmup:
        return section.lr * done / max(1, warmup)
    if section.schedule == "constant":
        return section.lr
    share = (done - warmup) / max(1, total - warmup)
    return section.lr * max(0.0, 1 - share if section.schedule == "linear" else (1 + math.cos(math.pi * share)) / 2)


def _epochs(key: str, recipe: Recipe, arms: Sequence[Recipe]) -> Effect:
    fixed = recipe.optim.schedule == "constant" or recipe.optim.schedule_steps is not None
    return Effect(key, Problem("lab.effect_length") if fixed else Problem("lab.effect_epochs"))


def _batch(key: str, recipe: Recipe, arms: Sequence[Recipe]) -> Effect:
    sizes = ", ".join(f"{size:,}" for size in sorted({_step_size(arm) for arm in arms}))
    unit = Problem("lab.effect_batch_tokens" if recipe.data.packing else "lab.effect_batch", {"sizes": sizes})
    if recipe.train.max_steps is None:
        return Effect(key, Problem("lab.effect_batch_epochs", {"sizes": sizes}))
    return Effect(
        key, unit, Problem("lab.control_batch", {"steps": recipe.train.max_steps, "size": _step_size(recipe)})
    )


def _step_size(recipe: Recipe) -> int:
    """Examples (with packing: tokens) in a step."""
    train = recipe.train
    return (train.batch_tokens if recipe.data.packing else train.batch_size) * train.accumulation


def _rank(key: str, recipe: Recipe, arms: Sequence[Recipe]) -> Effect:
    scales = sorted({(arm.adapter.rank, _scale(arm)) for arm in arms})
    shown = ", ".join(f"{rank} → {scale:.3g}" for rank, scale in scales)
    return Effect(
        key, Problem("lab.effect_rank", {"scales": shown}), Problem("lab.control_rank", {"scale": _scale(recipe)})
    )


def _scale(recipe: Recipe) -> float:
    """What the low-rank update is multiplied by."""
    adapter = recipe.adapter
    return adapter.alpha / (math.sqrt(adapter.rank) if adapter.rslora else adapter.rank)


def _lr(key: str, recipe: Recipe, arms: Sequence[Recipe]) -> Effect:
    if recipe.optim.weight_decay == 0:
        return Effect(key, Problem("lab.effect_alone"))
    product = recipe.optim.lr * recipe.optim.weight_decay
    return Effect(key, Problem("lab.effect_decay"), Problem("lab.control_decay", {"product": product}))


_COMPUTED: dict[str, Callable[[str, Recipe, Sequence[Recipe]], Effect]] = {
    STEPS: _length,
    EPOCHS: _epochs,
    RANK: _rank,
    LR: _lr,
    **dict.fromkeys(BATCH, _batch),
}


def control_settings(keys: Sequence[str], recipe: Recipe, arm: Recipe, arms: Sequence[Recipe]) -> Iterator[str]:
    """The settings that hold still in ``arm`` what its varied ``keys`` would move, as ``section.key=value``."""
    steps = [other.train.max_steps for other in arms if other.train.max_steps is not None]
    fixed = recipe.optim.schedule == "constant" or recipe.optim.schedule_steps is not None
    if STEPS in keys and not fixed and not {SCHEDULE_STEPS, "optim.schedule", *BATCH} & set(keys):
        yield f"{SCHEDULE_STEPS}={max(steps)}"
    if set(BATCH) & set(keys) and STEPS not in keys and recipe.train.max_steps is not None:
        yield from _same_examples(recipe, arm)
    if RANK in keys and "adapter.alpha" not in keys:
        adapter = arm.adapter
        yield f"adapter.alpha={_scale(recipe) * (math.sqrt(adapter.rank) if adapter.rslora else adapter.rank)!r}"
    if LR in keys and recipe.optim.weight_decay > 0 and "optim.weight_decay" not in keys:
        yield f"optim.weight_decay={recipe.optim.weight_decay * recipe.optim.lr / arm.optim.lr!r}"


def _same_examples(recipe: Recipe, arm: Recipe) -> Iterator[str]:
    """As many examples in all, in warm-up and in the schedule as the recipe has, in more or fewer steps."""
    ratio = _step_size(recipe) / _step_size(arm)
    assert recipe.train.max_steps is not None
    yield f"{STEPS}={max(1, round(recipe.train.max_steps * ratio))}"
    if arm.optim.warmup_steps:
        yield f"optim.warmup_steps={max(1, round(arm.optim.warmup_steps * ratio))}"
    if arm.optim.schedule_steps is not None:
        yield f"{SCHEDULE_STEPS}={max(1, round(arm.optim.schedule_steps * ratio))}"
