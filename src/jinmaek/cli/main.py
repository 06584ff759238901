"""``jinmaek``: the commands and their exit codes.

Exit codes: 0 done; 1 a fault of jinmaek itself; 2 bad input (recipe, data, model, run, disk); 3 the run was
stopped, or learnt nothing; 130 interrupted by Ctrl-C (saved). ``diagnose``: 0 nothing wrong found, 1 found.
``prove``: 0 the step is healthy (the runs are alike), 1 a cause is shown, 3 undecided or not reproduced.
``sweep``: 0 every trial succeeded, 3 some did not or were not run.
``compare --equivalent``: 0 equivalent, 1 different, 3 not enough evidence; ``compare`` alone: 0.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from jinmaek.core.errors import JinmaekError, RecipeError, RunError
from jinmaek.core.text import Lang, default_lang, is_lang, say
from jinmaek.store import RunDirectory

EXIT_CODES = {"completed": 0, "no_updates": 3, "skipped_steps": 3, "interrupted": 130}
BAD_INPUT = 2


def _early_lang() -> Lang:
    """The language of help texts, which are made before the command line is parsed."""
    for option, value in zip(sys.argv, [*sys.argv[1:], ""], strict=True):
        chosen = value if option == "--lang" else option.removeprefix("--lang=")
        if option.startswith("--lang") and is_lang(chosen):
            return "ko" if chosen == "ko" else "en"
    return default_lang()


_LANG = _early_lang()


def _help(name: str) -> str:
    return say(f"help.{name}", _LANG)


app = typer.Typer(help=_help("app"), no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
recipes_app = typer.Typer(help=_help("recipes"), add_completion=False)
app.add_typer(recipes_app, name="recipes")

LangOption = Annotated[str, typer.Option("--lang", help=_help("lang"))]
JsonOption = Annotated[bool, typer.Option("--json", help=_help("json"))]


@app.command(help=_help("train"))
def train(
    recipe: Annotated[str | None, typer.Argument(help=_help("recipe"), show_default=False)] = None,
    settings: Annotated[list[str] | None, typer.Argument(help=_help("settings"), show_default=False)] = None,
    resume: Annotated[Path | None, typer.Option("--resume", help=_help("resume"))] = None,
    run_dir: Annotated[Path | None, typer.Option("--run-dir", help=_help("run_dir"))] = None,
    lang: LangOption = _LANG,
    as_json: JsonOption = False,
) -> None:
    """Fine-tune, or go on with a run."""
    spoken = checked_lang(lang)
    if resume is not None and (recipe is not None or settings or run_dir is not None):
        raise RunError("run.resume_takes_no_recipe")
    if resume is None and recipe is None:
        raise RecipeError("run.recipe_missing")
    from jinmaek.config import load_recipe

    # A misspelt recipe is told at once, before torch is loaded.
    chosen = None if recipe is None else load_recipe(recipe, settings or ())
    typer.echo(say("cli.starting", spoken), err=True)  # importing torch takes seconds
    from jinmaek.cli.training import run_training

    result = run_training(chosen, resume, run_dir, spoken)
    if as_json:
        typer.echo(json.dumps(result.as_dict(), ensure_ascii=False, indent=2))
    raise typer.Exit(EXIT_CODES[result.end])


@app.command(help=_help("ask"))
def ask(
    run: Annotated[Path, typer.Argument(help=_help("ask_run"))],
    question: Annotated[str, typer.Argument(help=_help("question"))],
    base: Annotated[bool, typer.Option("--base", help=_help("base"))] = False,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help=_help("max_new_tokens"))] = 128,
    lang: LangOption = _LANG,
    as_json: JsonOption = False,
) -> None:
    """Ask a fine-tuned model."""
    spoken = checked_lang(lang)
    from jinmaek.cli.training import quiet_libraries
    from jinmaek.talk import ask as ask_run

    quiet_libraries()
    said = ask_run(run, question, base=base, max_new_tokens=max_new_tokens)
    if as_json:
        typer.echo(json.dumps({"question": question, "before": said.base, "after": said.tuned}, ensure_ascii=False))
        return
    if said.base is not None:
        typer.echo(say("cli.before", spoken, answer=said.base))
        typer.echo(say("cli.after", spoken, answer=said.tuned))
    else:
        typer.echo(said.tuned)


@app.command(help=_help("diagnose"))
def diagnose(
    paths: Annotated[list[str], typer.Argument(help=_help("diagnose_paths"), metavar="PATH")],
    as_json: Annotated[bool, typer.Option("--json", help=_help("diagnose_json"))] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help=_help("markdown"))] = False,
    whole: Annotated[bool, typer.Option("--all", help=_help("all"))] = False,
    lang: LangOption = _LANG,
) -> None:
    """Say what went wrong in a run."""
    spoken = checked_lang(lang)
    if as_json and as_markdown:
        raise RunError("cli.one_output")
    from jinmaek.cli.diagnosis import diagnose_paths

    style: Literal["terminal", "json", "markdown"] = "json" if as_json else "markdown" if as_markdown else "terminal"
    raise typer.Exit(diagnose_paths(paths, style, spoken, whole=whole))


@app.command(help=_help("prove"))
def prove(
    run: Annotated[Path, typer.Argument(help=_help("prove_run"))],
    step: Annotated[int | None, typer.Option("--step", min=1, help=_help("prove_step"))] = None,
    against: Annotated[Path | None, typer.Option("--against", help=_help("prove_against"))] = None,
    as_json: Annotated[bool, typer.Option("--json", help=_help("json"))] = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help=_help("markdown"))] = False,
    lang: LangOption = _LANG,
) -> None:
    """Find out by replay why a step failed, or where two runs part."""
    spoken = checked_lang(lang)
    if as_json and as_markdown:
        raise RunError("cli.one_output")
    if against is not None and (step is not None or as_markdown):
        raise RunError("cli.against_alone")
    for path in (run, *([against] if against is not None else [])):
        RunDirectory.open(path)  # a misspelt run is told at once, before torch is loaded
    typer.echo(say("cli.starting", spoken), err=True)
    from jinmaek.cli.proof import prove_run, prove_two

    style: Literal["terminal", "json", "markdown"] = "json" if as_json else "markdown" if as_markdown else "terminal"
    code = prove_run(run, step, style, spoken) if against is None else prove_two(run, against, style, spoken)
    raise typer.Exit(code)


@app.command(help=_help("sweep"))
def sweep(  # noqa: PLR0913, PLR0917 (typer reads the options from the parameters)
    recipe: Annotated[str | None, typer.Argument(help=_help("recipe"), show_default=False)] = None,
    settings: Annotated[list[str] | None, typer.Argument(help=_help("settings"), show_default=False)] = None,
    vary: Annotated[list[str] | None, typer.Option("--vary", help=_help("vary"), show_default=False)] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", min=1, help=_help("seeds"), show_default=False)] = None,
    design: Annotated[str | None, typer.Option("--design", help=_help("design"), show_default=False)] = None,
    controlled: Annotated[bool, typer.Option("--controlled", help=_help("controlled"))] = False,
    find: Annotated[str | None, typer.Option("--find", help=_help("find"), show_default=False)] = None,
    between: Annotated[str | None, typer.Option("--range", help=_help("find_range"), show_default=False)] = None,
    steps: Annotated[int | None, typer.Option("--steps", min=5, help=_help("find_steps"), show_default=False)] = None,
    out: Annotated[Path | None, typer.Option("--out", help=_help("sweep_out"), show_default=False)] = None,
    resume: Annotated[Path | None, typer.Option("--resume", help=_help("sweep_resume"), show_default=False)] = None,
    budget: Annotated[str | None, typer.Option("--budget", help=_help("budget"), show_default=False)] = None,
    jobs: Annotated[int, typer.Option("--jobs", min=1, help=_help("jobs"))] = 1,
    engine: Annotated[str, typer.Option("--engine", help=_help("engine"))] = "local",
    dry_run: Annotated[bool, typer.Option("--dry-run", help=_help("dry_run"))] = False,
    lang: LangOption = _LANG,
    as_json: JsonOption = False,
) -> None:
    """Vary settings over paired seeds and compare."""
    from jinmaek.cli.sweeping import Asked, SweepOptions, run_sweep

    options = SweepOptions(out=out, budget=budget, jobs=jobs, engine=engine, dry_run=dry_run, as_json=as_json)
    asked = Asked(recipe, tuple(settings or ()), tuple(vary or ()), seeds, design, controlled, find, between, steps)
    raise typer.Exit(run_sweep(asked, resume, options, checked_lang(lang)))


@app.command(help=_help("compare"))
def compare(
    paths: Annotated[list[str], typer.Argument(help=_help("compare_paths"), metavar="RUN")],
    equivalent: Annotated[bool, typer.Option("--equivalent", help=_help("equivalent"))] = False,
    margin: Annotated[float | None, typer.Option("--margin", help=_help("margin"))] = None,
    as_json: Annotated[bool, typer.Option("--json", help=_help("json"))] = False,
    lang: LangOption = _LANG,
) -> None:
    """Hold runs against each other."""
    spoken = checked_lang(lang)
    from jinmaek.cli.comparison import compare_runs

    raise typer.Exit(compare_runs(paths, spoken, equivalent=equivalent, margin=margin, as_json=as_json))


@app.command(help=_help("rules"))
def rules(
    name: Annotated[str | None, typer.Argument(help=_help("rule"), show_default=False)] = None,
    lang: LangOption = _LANG,
) -> None:
    """List the rules, or explain one."""
    spoken = checked_lang(lang)
    from jinmaek.cli.diagnosis import print_rules

    print_rules(name, spoken)


@app.command(help=_help("report"))
def report(
    runs: Annotated[list[str], typer.Argument(help=_help("report_runs"), metavar="RUN")],
    out: Annotated[Path | None, typer.Option("-o", "--out", help=_help("report_out"))] = None,
    *,
    png: Annotated[Path | None, typer.Option("--png", help=_help("report_png"))] = None,
    svg: Annotated[Path | None, typer.Option("--svg", help=_help("report_svg"))] = None,
    chart: Annotated[str | None, typer.Option("--chart", help=_help("report_chart"))] = None,
    lang: LangOption = _LANG,
    as_json: JsonOption = False,
) -> None:
    """Write the page of one run, or of several, or a chart of them."""
    spoken = checked_lang(lang)
    if chart is not None and png is None and svg is None:
        raise RunError("cli.chart_alone", chart=chart)
    from jinmaek.cli.reporting import report_runs

    report_runs(runs, out, spoken, png=png, svg=svg, chart=chart or "loss", as_json=as_json)


@app.command(help=_help("watch"))
def watch(
    run: Annotated[Path | None, typer.Argument(help=_help("watch_run"), show_default=False)] = None,
    once: Annotated[bool, typer.Option("--once", help=_help("watch_once"))] = False,
    lang: LangOption = _LANG,
    as_json: JsonOption = False,
) -> None:
    """Watch a run of another process."""
    spoken = checked_lang(lang)
    from jinmaek.cli.watching import watch_run

    raise typer.Exit(watch_run(run, spoken, once=once, as_json=as_json))


@app.command(help=_help("web"))
def web(
    folder: Annotated[Path, typer.Argument(help=_help("web_folder"), metavar="RUNS_DIR")] = Path("runs"),
    host: Annotated[str, typer.Option("--host", help=_help("web_host"))] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help=_help("web_port"))] = 8765,
    lang: LangOption = _LANG,
) -> None:
    """Serve a page of all runs."""
    spoken = checked_lang(lang)
    from jinmaek.cli.serving import serve

    serve(folder, host, port, spoken)


@recipes_app.callback(invoke_without_command=True)
def recipes(context: typer.Context, lang: LangOption = _LANG, as_json: JsonOption = False) -> None:
    """List the built-in recipes."""
    spoken = checked_lang(lang)
    if context.invoked_subcommand is not None:
        return
    from jinmaek.config import builtin_recipes, load_recipe

    about = {name: load_recipe(name).about for name in builtin_recipes()}
    if as_json:
        typer.echo(json.dumps({name: text.model_dump() for name, text in about.items()}, ensure_ascii=False))
        return
    width = max(map(len, about))
    typer.echo(say("cli.recipes_head", spoken))
    for name, text in about.items():
        typer.echo(f"  {name:<{width}}  {getattr(text, spoken)}")


@recipes_app.command("show", help=_help("recipes_show"))
def show(name: Annotated[str, typer.Argument(help=_help("recipe"))]) -> None:
    """Print a built-in recipe."""
    from jinmaek.config import builtin_recipes, load_recipe

    load_recipe(name)  # tells a misspelt name, with the nearest one
    typer.echo(builtin_recipes().get(name) or Path(name).read_text("utf-8"), nl=False)


def checked_lang(value: str) -> Lang:
    """The language asked for.

    Raises:
        RunError: it is not spoken here.
    """
    if not is_lang(value):
        raise RunError("cli.bad_lang", value=value)
    return "ko" if value == "ko" else "en"


def run() -> None:
    """Entry point: one clear message for what a user can mend, a traceback only for our own faults."""
    try:
        app()
    except JinmaekError as error:
        typer.echo(say("cli.error", _LANG, message=error.render(_LANG)), err=True)
        sys.exit(BAD_INPUT)
    except KeyboardInterrupt:
        sys.exit(130)
