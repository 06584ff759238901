"""``jinmaek sweep RECIPE --find lr|batch`` from the command line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace

import typer
from rich.console import Console

from jinmaek.cli.sweep_plan import print_plan
from jinmaek.cli.sweeping import (
    Asked,
    SweepOptions,
    budget_seconds,
    default_folder,
    exit_code,
    make_engine,
    only_planned,
    run_design,
    tell_end,
)
from jinmaek.core.codec import plain
from jinmaek.core.errors import RunError
from jinmaek.core.text import Lang, say
from jinmaek.lab.comparison import Comparison, compare_arms
from jinmaek.lab.design import Design
from jinmaek.lab.find_lr import PURPOSE, SEEDS, STEPS, LrRange, is_ruined, judge, lr_design, lrs_of
from jinmaek.lab.outcome import Outcome
from jinmaek.lab.sweep_directory import SweepDirectory
from jinmaek.lab.table import as_dict, failures
from jinmaek.report.dots import Dot, draw_dots

_SENTENCES = {
    "range": "lab.lr_range",
    "still_falling_up": "lab.lr_still_falling_up",
    "still_falling_down": "lab.lr_still_falling_down",
    "flat": "lab.lr_flat",
    "nothing_learnt": "lab.lr_nothing_learnt",
    "nothing_ran": "lab.lr_nothing_ran",
    "one_seed": "lab.lr_one_seed",
    "unfinished": "lab.lr_unfinished",
}


def find(asked: Asked, options: SweepOptions, lang: Lang) -> int:
    """Find what ``asked.find`` names; returns the exit code.

    Raises:
        JinmaekError: the command line, the recipe or the folder does not allow it.
    """
    assert asked.recipe is not None
    if asked.find == "batch":
        from jinmaek.cli.finding_batch import find_batch

        return find_batch(asked, options, lang)
    if asked.find != "lr":
        raise RunError("lab.bad_find", value=asked.find)
    design = lr_design(
        asked.recipe, asked.settings, asked.between, asked.steps or STEPS, SEEDS if asked.seeds is None else asked.seeds
    )
    directory = SweepDirectory(options.out or default_folder(design, "find-lr"))
    return find_lr(design, directory, options, lang)


def find_lr(design: Design, directory: SweepDirectory, options: SweepOptions, lang: Lang) -> int:
    """Run the short runs that are left and say which lrs work; returns the exit code."""
    console = Console(stderr=True, highlight=False)
    directory.check(design, PURPOSE)
    print_plan(design, directory, console, lang, mark_base=False)
    limit = budget_seconds(options.budget)
    if options.dry_run:
        return only_planned(design, PURPOSE, options)
    with closing(make_engine(options)) as engine:
        directory.create_or_check(design, PURPOSE)
        end, outcomes = run_design(design, directory, engine, limit, console, lang)
    comparison = compare_arms(design, outcomes)
    found = judge(design, comparison, outcomes)
    if options.as_json:
        facts = {"sweep": str(directory.path), "end": end, **as_dict(design, comparison, outcomes)}
        facts["lr"] = {name: getattr(found, name) for name in found.__dataclass_fields__}
        typer.echo(json.dumps(plain(facts), ensure_ascii=False, indent=2))
    else:
        _print(design, comparison, outcomes, found, lang)
    return tell_end(directory, end, exit_code(design, outcomes), lang)


def _print(design: Design, comparison: Comparison, outcomes: Mapping[int, Outcome], found: LrRange, lang: Lang) -> None:
    console = Console(highlight=False)
    before = [outcome.held_out_before for outcome in outcomes.values() if outcome.held_out_before is not None]
    dots = [_dot(design, comparison, outcomes, found, index, lang) for index in range(len(design.arms))]
    console.print()
    for text in draw_dots(dots, max(20, min(console.width, 100) - 48), max(before, default=None)):
        console.print(text, markup=False, soft_wrap=True)
    console.print()
    for text in failures(design, outcomes, lang):
        console.print(text, markup=False, soft_wrap=True)
    shown = {name: getattr(found, name) for name in ("best", "low", "high", "too_high")}
    lrs = {name: "–" if value is None else f"{value:g}" for name, value in shown.items()}
    grid = lrs_of(design)
    lrs["factor"] = f"{(grid[-1] / grid[0]) ** (1 / max(1, len(grid) - 1)):.2g}"
    console.print(say(_SENTENCES[found.found], lang, seeds=comparison.num_seeds, **lrs), markup=False, soft_wrap=True)
    if found.too_high is not None:
        console.print(say("lab.lr_too_high", lang, lr=lrs["too_high"]), markup=False, soft_wrap=True)
    if found.found in ("range", "one_seed"):
        console.print(say("lab.lr_short_runs", lang), markup=False, soft_wrap=True)


def _dot(
    design: Design, comparison: Comparison, outcomes: Mapping[int, Outcome], found: LrRange, index: int, lang: Lang
) -> Dot:
    arm, lr = comparison.arms[index], lrs_of(design)[index]
    if arm.mean is None:
        note = say("lab.lr_failed" if arm.num_failed else "lab.lr_not_run", lang)
    else:
        note = f"{arm.mean:.3f}" + ("" if arm.half_width is None else f" ± {arm.half_width:.3f}")
        note += f"  ({arm.num_failed} ✗)" if arm.num_failed else ""
    if found.found != "unfinished" and comparison.num_seeds > 1 and index == comparison.lowest:
        note += "  " + say("lab.lr_lowest", lang)
    elif arm.mean is not None and is_ruined(design, index, outcomes):
        note += "  " + say("lab.lr_ruined", lang)
    elif comparison.num_seeds > 1 and index in comparison.contenders:
        note += "  " + say("lab.lr_contender", lang)
    return Dot(f"{lr:g}", arm.mean, arm.half_width, note)


def go_on_finding_lr(design: Design, directory: SweepDirectory, options: SweepOptions, lang: Lang) -> int:
    """Go on with a range test."""
    return find_lr(design, directory, replace(options, out=directory.path), lang)
