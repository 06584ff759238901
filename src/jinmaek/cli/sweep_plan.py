"""The plan of a sweep, printed before it starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console

from jinmaek.core.text import Lang, duration, say
from jinmaek.lab.design import Design
from jinmaek.lab.estimate import Estimate
from jinmaek.lab.outcome import Outcome
from jinmaek.lab.side_effects import side_effects
from jinmaek.lab.sweep_directory import SweepDirectory


def print_plan(
    design: Design, directory: SweepDirectory, console: Console, lang: Lang, *, mark_base: bool = True
) -> None:
    """Trials, time where it can be known, and what else changes with the varied settings."""

    def line(key: str, **params: object) -> None:
        console.print(say(key, lang, **params), markup=False, soft_wrap=True)

    outcomes = directory.outcomes(len(design.trials))
    counts = {"trials": len(design.trials), "arms": len(design.arms), "seeds": len(design.seeds)}
    line("lab.plan", path=directory.path, **counts)
    for number, arm in enumerate(design.arms):
        marks = [say("lab.plan_base", lang)] if mark_base and number == design.base else []
        marks += [say("lab.plan_held", lang, settings=" ".join(arm.controls))] if arm.controls else []
        marks += [say("lab.plan_refused", lang, why=arm.refusal[lang])] if arm.refusal is not None else []
        console.print(f"  {arm.name}  {'  '.join(marks)}".rstrip(), markup=False, soft_wrap=True)
    keys = [factor.key for factor in design.factors]
    _print_effects(design, keys, console, lang)
    done = sum(outcome.is_final for outcome in outcomes.values())
    if done:
        line("lab.plan_done", done=done, total=len(design.trials))
    _print_time(design, outcomes, console, lang)
    if len(design.seeds) == 1 and not design.varies_seed:
        line("lab.plan_one_seed")
    data = design.recipe.data
    if data.held_out_source is None and data.held_out == 0 and "data.held_out" not in keys:
        line("lab.plan_nothing_held_out")


def _print_effects(design: Design, keys: Sequence[str], console: Console, lang: Lang) -> None:
    recipes = [arm.recipe for arm in design.arms if arm.recipe is not None]
    for effect in side_effects(keys, design.recipe, recipes):
        lines = [say("lab.changes", lang, key=effect.key, what=effect.what.render(lang))]
        if effect.control is not None and design.controlled:
            lines = [say("lab.held", lang, key=effect.key, what=effect.control.render(lang))]
        elif effect.control is not None:
            lines.append(say("lab.offer", lang, what=effect.control.render(lang)))
        for text in lines:
            console.print(text, markup=False, soft_wrap=True)


def _print_time(design: Design, outcomes: Mapping[int, Outcome], console: Console, lang: Lang) -> None:
    estimate = Estimate(design, outcomes)
    left = [trial for trial in design.trials if not (trial.number in outcomes and outcomes[trial.number].is_final)]
    steps = [estimate.steps(trial) for trial in left]
    seconds = [estimate.seconds(trial) for trial in left]
    if not left:
        return
    total = sum(count for count in steps if count is not None)
    if all(value is not None for value in seconds):
        time = duration(sum(value for value in seconds if value is not None))
        text = say("lab.plan_time", lang, steps=f"{total:,}", time=time)
    elif None in steps:
        text = say("lab.plan_steps_unknown", lang)
    else:
        text = say("lab.plan_time_unknown", lang, steps=f"{total:,}")
    console.print(text, markup=False, soft_wrap=True)
