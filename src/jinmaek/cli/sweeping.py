"""Run a sweep from the command line: plan, trials, table."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import typer
from rich.console import Console

from jinmaek.cli.interruption import ctrl_c_saves
from jinmaek.cli.sweep_plan import print_plan
from jinmaek.cli.sweep_view import SweepView
from jinmaek.core.codec import plain
from jinmaek.core.errors import RecipeError, RunError
from jinmaek.core.text import Lang, say
from jinmaek.lab.comparison import compare_arms
from jinmaek.lab.design import Design, Kind, design_from_plan, make_design, parse_factor
from jinmaek.lab.outcome import Outcome
from jinmaek.lab.processes import Engine, LocalEngine
from jinmaek.lab.run_trials import End, SweepRun
from jinmaek.lab.sweep_directory import SWEEPS, SweepDirectory, describe
from jinmaek.lab.table import arm_table, as_dict, failures, sentences
from jinmaek.report.overlay import draw_overlay, mean_curve
from jinmaek.store import read_steps

NOT_ALL, INTERRUPTED = 3, 130
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepOptions:
    """What the command line says beside the design."""

    out: Path | None = None
    budget: str | None = None
    jobs: int = 1
    engine: str = "local"
    dry_run: bool = False
    as_json: bool = False


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line asks to be varied or found; ``None`` and empty: not given."""

    recipe: str | None
    settings: tuple[str, ...]
    vary: tuple[str, ...]
    seeds: int | None
    kind: str | None
    controlled: bool
    find: str | None
    between: str | None
    steps: int | None


def run_sweep(asked: Asked, resumed: Path | None, options: SweepOptions, lang: Lang) -> int:
    """Plan and run what is asked; returns the exit code.

    Raises:
        JinmaekError: the command line, the recipe or the folder does not allow it.
    """
    if resumed is not None:
        if asked != Asked(None, (), (), None, None, False, None, None, None) or options.out is not None:
            raise RunError("lab.resume_alone")
        return resume_sweep(resumed, options, lang)
    if asked.recipe is None:
        raise RecipeError("lab.recipe_missing")
    if asked.find is None and (asked.between is not None or asked.steps is not None):
        raise RunError("lab.only_find_lr")
    if asked.find is not None:
        if asked.vary or asked.kind is not None or asked.controlled:
            raise RunError("lab.find_alone")
        from jinmaek.cli.finding import find

        return find(asked, options, lang)
    return sweep(planned(asked), options, lang)


def budget_seconds(text: str | None) -> float | None:
    """``2h``, ``90m``, ``1h30m``, ``45s``; a bare number is minutes.

    Raises:
        RunError: it is none of these.
    """
    if text is None:
        return None
    cleaned = text.strip().lower()
    parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", cleaned)
    if re.fullmatch(r"\d+(\.\d+)?", cleaned):
        parts = [(cleaned, "m")]
    elif "".join(number + unit for number, unit in parts) != cleaned:
        parts = []
    seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
    if seconds <= 0:
        raise RunError("lab.bad_budget", value=text)
    return seconds


def planned(asked: Asked) -> Design:
    """The design that the command line asks for.

    Raises:
        RecipeError, RunError: it cannot be one.
    """
    assert asked.recipe is not None
    if not asked.vary:
        raise RunError("lab.nothing_varied")
    if asked.kind not in (None, "grid", "one-factor"):
        raise RunError("lab.bad_design", value=asked.kind)
    kind: Kind = "one-factor" if asked.kind == "one-factor" else "grid"
    factors = [parse_factor(text) for text in asked.vary]
    seeds = asked.seeds or 1
    return make_design(asked.recipe, asked.settings, factors, seeds=seeds, kind=kind, controlled=asked.controlled)


def default_folder(design: Design, suffix: str | None = None) -> Path:
    """``runs/sweeps/RECIPE-KEYS``."""
    keys = suffix or "-".join(factor.key.partition(".")[2] for factor in design.factors)
    return SWEEPS / f"{design.recipe.name}-{keys}"


def sweep(design: Design, options: SweepOptions, lang: Lang) -> int:
    """Print the plan, run the trials, print the table; returns the exit code."""
    directory = SweepDirectory(options.out or default_folder(design))
    console = Console(stderr=True, highlight=False)
    directory.check(design, "compare")
    print_plan(design, directory, console, lang)
    limit = budget_seconds(options.budget)
    if options.dry_run:
        return only_planned(design, "compare", options)
    with closing(make_engine(options)) as engine:
        directory.create_or_check(design, "compare")
        end, outcomes = run_design(design, directory, engine, limit, console, lang)
    return finish(design, directory, end, outcomes, options, lang)


def only_planned(design: Design, purpose: str, options: SweepOptions) -> int:
    """With ``--json``, the plan on standard output; returns the exit code."""
    if options.as_json:
        typer.echo(json.dumps(describe(design, purpose), ensure_ascii=False, indent=2))
    return 0


def resume_sweep(path: Path, options: SweepOptions, lang: Lang) -> int:
    """Go on with the sweep in ``path``."""
    directory = SweepDirectory(path)
    plan = directory.read_plan()
    design = design_from_plan(plan)
    if plan["purpose"] == "find lr":
        from jinmaek.cli.finding import go_on_finding_lr

        return go_on_finding_lr(design, directory, options, lang)
    return sweep(design, replace(options, out=path), lang)


def make_engine(options: SweepOptions) -> Engine:
    """Where the trials run.

    Raises:
        RunError: an engine of that name does not exist, or Ray is not installed.
    """
    if options.engine == "ray":
        from jinmaek.lab.ray_engine import RayEngine

        return RayEngine(options.jobs if options.jobs > 1 else None)
    if options.engine != "local":
        raise RunError("lab.bad_engine", value=options.engine)
    # Processes that share the cores wait for each other many times longer than they compute.
    share = max(1, (os.cpu_count() or 1) // options.jobs)
    threads = share if options.jobs > 1 and "OMP_NUM_THREADS" not in os.environ else None
    return LocalEngine(options.jobs, threads)


def run_design(
    design: Design, directory: SweepDirectory, engine: Engine, limit: float | None, console: Console, lang: Lang
) -> tuple[End, dict[int, Outcome]]:
    """Run what is left of the design, showing how it goes."""
    local = isinstance(engine, LocalEngine)
    with directory.locked():
        done = sum(outcome.is_final for outcome in directory.outcomes(len(design.trials)).values())
        with ctrl_c_saves(console, lang) as interrupted, SweepView(console, design, done, lang) as view:
            run = SweepRun(
                directory,
                design,
                engine,
                view,
                interrupted,
                budget_seconds=limit,
                measure_first=local and engine.slots > 1,
            )
            return run.run()


def finish(
    design: Design,
    directory: SweepDirectory,
    end: End,
    outcomes: Mapping[int, Outcome],
    options: SweepOptions,
    lang: Lang,
) -> int:
    """Print the result; returns the exit code."""
    comparison = compare_arms(design, outcomes)
    if options.as_json:
        facts = {"sweep": str(directory.path), "end": end, **as_dict(design, comparison, outcomes)}
        typer.echo(json.dumps(plain(facts), ensure_ascii=False, indent=2))
    elif any(outcome.is_final or outcome.error for outcome in outcomes.values()):
        console = Console(highlight=False)
        console.print()
        for text in draw_overlay(curves(design, directory, outcomes), min(console.width, 100)):
            console.print(text, style="dim", markup=False, soft_wrap=True)
        console.print(arm_table(design, comparison, console.width, lang))
        console.print()
        for text in (*failures(design, outcomes, lang), *sentences(design, comparison, lang)):
            console.print(text, markup=False, soft_wrap=True)
    return tell_end(directory, end, exit_code(design, outcomes), lang)


def exit_code(design: Design, outcomes: Mapping[int, Outcome]) -> int:
    """0 where every trial succeeded."""
    ends = [outcomes.get(trial.number) for trial in design.trials]
    return 0 if all(outcome is not None and outcome.succeeded for outcome in ends) else NOT_ALL


def tell_end(directory: SweepDirectory, end: End, code: int, lang: Lang) -> int:
    """Say how to go on where it is not done; returns the exit code."""
    if end == "interrupted":
        typer.echo(say("lab.interrupted", lang, path=directory.path), err=True)
        return INTERRUPTED
    if end == "budget":
        typer.echo(say("lab.budget_spent", lang, path=directory.path), err=True)
    return code


def curves(
    design: Design, directory: SweepDirectory, outcomes: Mapping[int, Outcome]
) -> list[Sequence[tuple[int, float]]]:
    """The training loss of each arm, the mean over its seeds."""
    by_arm: list[list[Sequence[tuple[int, float]]]] = [[] for _ in design.arms]
    for trial in design.trials:
        if trial.number in outcomes and (directory.run_path(trial.number) / "steps.jsonl").exists():
            records = read_steps(directory.run_path(trial.number) / "steps.jsonl")
            by_arm[trial.arm].append([(record.step, record.loss) for record in records if record.loss is not None])
    return [mean_curve(series) for series in by_arm]
