"""Recipes from TOML: built-in by name, a file, or a mapping; with overrides; all problems in one message."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from jinmaek.config.recipe import Recipe
from jinmaek.config.relevance import conflict_problems, ignored_problems
from jinmaek.core.errors import Problem, RecipeError
from jinmaek.core.manifest import flat

_ABSENT = object()

# Two ways to say one thing: an override of the first takes the second out of the recipe.
_ALTERNATIVES = {
    "train.max_steps": "train.epochs",
    "train.epochs": "train.max_steps",
    "data.held_out_source": "data.held_out",
}

# What people who come from transformers and PEFT write first.
_FOREIGN_NAMES = {
    "learning_rate": "optim.lr",
    "lr_scheduler_type": "optim.schedule",
    "optimizer": "optim.name",
    "per_device_train_batch_size": "train.batch_size",
    "gradient_accumulation_steps": "train.accumulation",
    "gradient_checkpointing": "model.activation_checkpointing",
    "num_train_epochs": "train.epochs",
    "logging_steps": "train.log_every",
    "save_steps": "train.checkpoint_every",
    "save_total_limit": "train.keep_checkpoints",
    "eval_steps": "train.eval_every",
    "r": "adapter.rank",
    "lora_alpha": "adapter.alpha",
    "lora_dropout": "adapter.dropout",
    "target_modules": "adapter.targets",
    "load_in_4bit": "model.quantization",
    "bnb_4bit_use_double_quant": "model.double_quant",
}


def builtin_recipes() -> dict[str, str]:
    """TOML text of the built-in recipes by name, the quickstart first, then by name."""
    folder = files("jinmaek.config").joinpath("recipes")
    texts = {path.name.removesuffix(".toml"): path.read_text("utf-8") for path in folder.iterdir()}
    return dict(sorted(texts.items(), key=lambda item: (item[0] != "quickstart", item[0])))


def load_recipe(name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe ``name`` (built-in, or the path of a TOML file) with ``section.key=value`` overrides.

    An override's value is read as TOML; what is no TOML value is text. An empty value (``section.key=``)
    takes the key out of the recipe.

    Raises:
        RecipeError: with every problem found.
    """
    text = _recipe_text(str(name))
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError("recipe.not_toml", name=name, error=error) from error
    values.setdefault("name", Path(str(name)).name.removesuffix(".toml"))
    problems = apply_overrides(values, overrides)
    return _validated(values, problems)


def recipe_from_dict(values: Mapping[str, Any]) -> Recipe:
    """A recipe from nested mappings, checked as :func:`load_recipe` does.

    Raises:
        RecipeError: with every problem found.
    """
    return _validated(values, [])


def apply_overrides(values: dict[str, Any], overrides: Iterable[str]) -> list[Problem]:
    """Lay ``section.key=value`` overrides over ``values`` in place; returns those that are malformed."""
    problems: list[Problem] = []
    given: set[str] = set()
    for override in overrides:
        key, equals, text = override.partition("=")
        section, dot, name = key.strip().partition(".")
        if not (equals and dot and section and name):
            problems.append(Problem("recipe.bad_override", {"override": override}))
        elif not text.strip():
            _take_out(values, section, name)
        elif isinstance(values.setdefault(section, {}), dict):
            values[section][name] = toml_value(text.strip())
            given.add(f"{section}.{name}")
    for key in given:
        section, _, name = _ALTERNATIVES.get(key, "").partition(".")
        if name and f"{section}.{name}" not in given:
            _take_out(values, section, name)
    return problems


def _take_out(values: dict[str, Any], section: str, name: str) -> None:
    table = values.get(section)
    if isinstance(table, dict):
        table.pop(name, None)


def toml_value(text: str) -> Any:
    """The value as TOML reads it; what is no TOML value is text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _recipe_text(name: str) -> str:
    known = builtin_recipes()
    if name in known:
        return known[name]
    path = Path(name).expanduser()
    if path.is_file():
        try:
            return path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError("recipe.unreadable", name=name, error=error) from error
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    raise RecipeError("recipe.not_found", name=name, close=close[0] if close else "quickstart")


def _validated(values: Mapping[str, Any], problems: list[Problem]) -> Recipe:
    recipe = None
    found: list[ErrorDetails] = []
    try:
        recipe = Recipe.model_validate(values)
    except ValidationError as error:
        found = error.errors(include_url=False)
    wrong = {".".join(str(part) for part in detail["loc"][:2]) for detail in found}
    given = flat(values)
    every = defaults() | given
    wrong |= {key for key, value in every.items() if value is _ABSENT}
    problems = problems + _field_problems(found)
    problems += ignored_problems(given, every, frozenset(wrong))
    problems += conflict_problems(every, frozenset(wrong))
    if problems:
        raise RecipeError.of(problems)
    assert recipe is not None
    return recipe


def _field_problems(details: Sequence[ErrorDetails]) -> list[Problem]:
    """Pydantic's findings in our words; a union's findings on one key become one problem."""
    seen: dict[str, Problem] = {}
    for detail in details:
        loc = [str(part) for part in detail["loc"][:2]]
        key = ".".join(loc)
        if detail["type"] == "extra_forbidden":
            seen[key] = _unknown_key(loc)
        elif detail["type"] == "missing":
            seen[key] = Problem("recipe.missing", {"key": key})
        else:
            said = detail["msg"] if key not in seen else f"{seen[key].params['error']}; {detail['msg']}"
            seen[key] = Problem("recipe.bad_value", {"key": key, "value": repr(detail["input"]), "error": said})
    return list(seen.values())


def _unknown_key(loc: Sequence[str]) -> Problem:
    key = ".".join(loc)
    known = list(defaults()) if len(loc) > 1 else list(Recipe.model_fields)
    close = [_FOREIGN_NAMES[loc[-1]]] if loc[-1] in _FOREIGN_NAMES else []
    close = close or [name for name in known if len(loc) > 1 and name.split(".")[-1] == loc[-1]]
    close = close or difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if close:
        return Problem("recipe.unknown_key_close", {"key": key, "close": close[0]})
    siblings = [name for name in known if len(loc) == 1 or name.startswith(f"{loc[0]}.")]
    return Problem("recipe.unknown_key", {"key": key, "known": ", ".join(siblings or list(Recipe.model_fields))})


def defaults() -> dict[str, Any]:
    """``section.key`` -> default of every setting; a required one has a marker that no rule reads."""
    found: dict[str, Any] = {}
    for section, info in Recipe.model_fields.items():
        table = info.annotation
        if isinstance(table, type) and issubclass(table, BaseModel):
            for key, setting in table.model_fields.items():
                found[f"{section}.{key}"] = _ABSENT if setting.is_required() else setting.get_default()
    return found
