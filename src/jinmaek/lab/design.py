"""From varied settings to arms and trials.

An *arm* is the recipe with one value of each varied setting; a *trial* is an arm with a seed. Every arm has the same
seeds, so that a difference between two arms is taken within a seed: same data order, same held-out examples, same fresh
adapter (where the setting leaves them alone).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from jinmaek.config import Recipe, load_recipe, recipe_from_dict
from jinmaek.config.load import toml_value
from jinmaek.core.errors import Problem, RecipeError
from jinmaek.core.text import Lang
from jinmaek.lab.side_effects import control_settings

Kind = Literal["grid", "one-factor"]
BASE = "recipe"  # the name of the arm that is the recipe as it stands
SEED = "train.seed"
_OPENING, _CLOSING, _QUOTES = "[{", "]}", "\"'"


@dataclass(frozen=True, slots=True)
class Factor:
    """A setting that is varied, and its values as TOML."""

    key: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Arm:
    """The recipe with ``settings`` (the varied ones) and ``controls`` (what holds the rest still) laid over it.

    ``recipe`` is ``None`` where the settings do not go together; ``refusal`` says why in each language, ``problems``
    the same while the design is made.
    """

    name: str
    settings: tuple[str, ...]
    controls: tuple[str, ...] = ()
    recipe: Recipe | None = None
    refusal: Mapping[Lang, str] | None = None
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Trial:
    """One run: ``number`` counts from 1, ``arm`` is an index."""

    number: int
    arm: int
    seed: int


@dataclass(frozen=True, slots=True)
class Design:
    """Arms × seeds. ``base`` is the index of the arm that the others are compared with."""

    recipe: Recipe
    factors: tuple[Factor, ...]
    kind: Kind
    controlled: bool
    seeds: tuple[int, ...]
    arms: tuple[Arm, ...]
    base: int

    @property
    def trials(self) -> tuple[Trial, ...]:
        """All arms with the first seed, base first, then with the next: where time runs out, there are pairs."""
        arms = [self.base, *(index for index in range(len(self.arms)) if index != self.base)]
        pairs = itertools.product(range(len(self.seeds)), arms)
        return tuple(
            Trial(number, arm, self._seed(arm, self.seeds[index])) for number, (index, arm) in enumerate(pairs, 1)
        )

    def _seed(self, arm: int, seed: int) -> int:
        recipe = self.arms[arm].recipe
        return recipe.train.seed if self.varies_seed and recipe is not None else seed

    @property
    def varies_seed(self) -> bool:
        """Whether the seed itself is a factor: then each arm has its own."""
        return any(factor.key == SEED for factor in self.factors)

    def recipe_of(self, trial: Trial) -> dict[str, Any] | None:
        """The trial's whole recipe as nested mappings; ``None`` where its arm was refused."""
        recipe = self.arms[trial.arm].recipe
        if recipe is None:
            return None
        values = recipe.model_dump(mode="json", exclude_unset=True)
        values["train"] = values.get("train", {}) | {"seed": trial.seed}
        return values


def parse_factor(text: str) -> Factor:
    """``KEY=V1,V2,…``: commas within brackets or quotes belong to the value.

    Raises:
        RecipeError: no key, fewer than two values, or one of them twice.
    """
    key, equals, rest = text.partition("=")
    values = tuple(value.strip() for value in _split(rest))
    section, dot, name = key.strip().partition(".")
    if not (equals and dot and section and name) or not all(values):
        raise RecipeError("lab.bad_vary", text=text)
    if len(values) < 2:
        raise RecipeError("lab.one_value", key=key.strip(), value=values[0])
    for first, second in itertools.combinations(values, 2):
        if toml_value(first) == toml_value(second) and type(toml_value(first)) is type(toml_value(second)):
            raise RecipeError("lab.value_twice", key=key.strip(), first=first, second=second)
    return Factor(key.strip(), values)


def _split(text: str) -> list[str]:
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in _QUOTES:
            quote = letter
        depth += (letter in _OPENING) - (letter in _CLOSING) if not quote else 0
        if letter == "," and depth == 0 and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def make_design(
    name: str,
    settings: Sequence[str],
    factors: Sequence[Factor],
    *,
    seeds: int = 1,
    kind: Kind = "grid",
    controlled: bool = False,
) -> Design:
    """The design that varies ``factors`` over the recipe ``name`` with ``settings`` laid over it.

    Args:
        name: built-in recipe or TOML file.
        settings: ``section.key=value`` for all arms.
        factors: what is varied; the grid of all values, or one at a time.
        seeds: how many, counted up from the recipe's own.
        kind: grid, or one factor at a time from the recipe as base.
        controlled: hold still what would change along with the varied settings.

    Raises:
        RecipeError: the recipe or a value is wrong; nothing could be run; a setting is varied twice, or two arms
            are the same.
    """
    recipe = load_recipe(name, settings)
    keys = [factor.key for factor in factors]
    problems = [Problem("lab.key_twice", {"key": key}) for key in sorted(set(keys)) if keys.count(key) > 1]
    if SEED in keys and (seeds > 1 or len(keys) > 1):
        problems.append(Problem("lab.seed_and_seeds"))
    if problems:
        raise RecipeError.of(problems)
    arms = [_arm(name, settings, chosen) for chosen in _chosen(factors, kind)]
    if kind == "one-factor":
        arms = [Arm(BASE, (), recipe=recipe), *(arm for arm in arms if not _same(arm.recipe, recipe))]
    base = next((index for index, arm in enumerate(arms) if _same(arm.recipe, recipe)), None)
    if controlled:
        arms = [_controlled(arm, arms, name, settings, recipe, keys) for arm in arms]
    _check(arms)
    chosen_seeds = tuple(recipe.train.seed + index for index in range(seeds))
    first = next(index for index, arm in enumerate(arms) if arm.recipe is not None)
    return Design(recipe, tuple(factors), kind, controlled, chosen_seeds, tuple(arms), first if base is None else base)


def _chosen(factors: Sequence[Factor], kind: Kind) -> Iterator[tuple[str, ...]]:
    pairs = [[f"{factor.key}={value}" for value in factor.values] for factor in factors]
    if kind == "grid":
        yield from itertools.product(*pairs)
    else:
        yield from ((setting,) for settings in pairs for setting in settings)


def _arm(name: str, settings: Sequence[str], chosen: tuple[str, ...], controls: tuple[str, ...] = ()) -> Arm:
    arm = Arm(" ".join(chosen), chosen, controls)
    try:
        return replace(arm, recipe=load_recipe(name, [*settings, *chosen, *controls]))
    except RecipeError as error:
        said: dict[Lang, str] = {"en": error.render("en"), "ko": error.render("ko")}
        return replace(arm, refusal=said, problems=error.problems)


def _controlled(
    arm: Arm, arms: Sequence[Arm], name: str, settings: Sequence[str], recipe: Recipe, keys: Sequence[str]
) -> Arm:
    if arm.recipe is None:
        return arm
    every = [other.recipe for other in arms if other.recipe is not None]
    controls = tuple(control_settings(keys, recipe, arm.recipe, every))
    return replace(_arm(name, settings, arm.settings, controls), name=arm.name) if controls else arm


def _check(arms: Sequence[Arm]) -> None:
    """Refuse a value that no arm can have, and two arms that are one; a combination that fails is left to the trials.

    Raises:
        RecipeError: naming each.
    """
    usable = {setting for arm in arms if arm.recipe is not None for setting in arm.settings}
    problems: list[Problem] = []
    for arm in arms:
        if not set(arm.settings) <= usable:
            problems += [problem for problem in arm.problems if problem not in problems]
    for first, second in itertools.combinations(arms, 2):
        if first.recipe is not None and _same(first.recipe, second.recipe):
            problems.append(Problem("lab.same_arms", {"first": first.name, "second": second.name}))
    if problems:
        raise RecipeError.of(problems)


def _same(one: Recipe | None, other: Recipe | None) -> bool:
    return one is not None and other is not None and one.model_dump() == other.model_dump()


def design_from_plan(plan: Mapping[str, Any]) -> Design:
    """The design that :func:`jinmaek.lab.sweep_directory.describe` wrote down.

    Raises:
        RecipeError: a recipe in it is no longer one (another version of jinmaek).
    """
    recipes = {trial["arm"]: trial["recipe"] for trial in reversed(plan["trials"])}
    arms = tuple(
        Arm(
            arm["name"],
            tuple(arm["settings"]),
            tuple(arm["controls"]),
            None if recipes[index] is None else recipe_from_dict(recipes[index]),
            arm["refused"],
        )
        for index, arm in enumerate(plan["arms"])
    )
    factors = tuple(Factor(factor["key"], tuple(factor["values"])) for factor in plan["factors"])
    return Design(
        recipe_from_dict(plan["recipe"]),
        factors,
        plan["kind"],
        plan["controlled"],
        tuple(plan["seeds"]),
        arms,
        plan["base"],
    )
