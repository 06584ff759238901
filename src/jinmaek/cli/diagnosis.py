"""Diagnose logs from the command line: one run after the other, and a path that cannot be read stops no other."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from io import TextIOWrapper
from pathlib import Path
from threading import Timer
from typing import Any, Literal

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from jinmaek.core.codec import dump_line
from jinmaek.core.errors import JinmaekError, RunError
from jinmaek.core.text import Lang, say
from jinmaek.detect import Diagnosed, diagnose
from jinmaek.explain import explain, verdict_line
from jinmaek.explain.pages import render_page, rule_pages
from jinmaek.explain.telling import about
from jinmaek.ingest import find_logs
from jinmaek.report import as_json, as_markdown, print_diagnosis
from jinmaek.store import RunDirectory

Style = Literal["terminal", "json", "markdown"]

FOUND, UNREADABLE = 1, 2
PATIENCE_SECONDS = 2.0  # before a terminal is told that reading takes its time


def diagnose_paths(paths: Sequence[str], style: Style, lang: Lang, *, whole: bool = False) -> int:
    """Print a diagnosis for each run in ``paths``; returns the exit code."""
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without our signs still shows the words
    errors = Console(stderr=True, highlight=False)
    done: list[Diagnosed] = []
    failed = False
    for path in paths:
        try:
            for source in find_logs(path):
                with patience(errors, source.name, lang) as progress:
                    one = diagnose(source, tuple(done), progress)
                _print(one, style, lang, whole=whole, first=not done)
                done.append(one)
        except (JinmaekError, OSError) as error:
            failed = True
            message = error.render(lang) if isinstance(error, JinmaekError) else f"{path}: {error}"
            typer.echo(say("cli.error", lang, message=message), err=True)
    if failed:
        return UNREADABLE
    return FOUND if any(one.diagnosis.causes for one in done) else 0


def _print(one: Diagnosed, style: Style, lang: Lang, *, whole: bool, first: bool) -> None:
    verdicts = _verdicts(one)
    if style == "json":
        proved = {"verdicts": verdicts} if verdicts else {}
        typer.echo(dump_line({**as_json(one.diagnosis, lang), **proved}))
        return
    told = explain(one.diagnosis, lang)
    if not first:
        typer.echo()
    if style == "markdown":
        typer.echo(as_markdown(told), nl=False)
    else:
        print_diagnosis(told, Console(highlight=False), one.series, whole=whole)
    lines = [verdict_line(event, lang) for event in verdicts]
    if not lines and one.diagnosis.format == "jinmaek" and one.diagnosis.causes:
        lines = [say("cli.prove_it", lang, path=one.diagnosis.source)]
    if lines:
        typer.echo("\n" + "\n".join(lines))


def _verdicts(one: Diagnosed) -> list[dict[str, Any]]:
    """What `jinmaek prove` found out about the run; of one step the last verdict."""
    path = Path(one.diagnosis.source)
    if one.diagnosis.format != "jinmaek" or not (path / "run.json").is_file():
        return []
    return list({event["step"]: event for event in RunDirectory(path).read_events("verdict")}.values())


@contextmanager
def patience(console: Console, name: str, lang: Lang) -> Iterator[Callable[[int], None]]:
    """Yields what is to be told the number of items read; a terminal sees it once it has waited a while."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TextColumn("{task.completed:,}"), TimeElapsedColumn())
    bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = bar.add_task(say("report.reading", lang, name=Path(name).name), total=None)
    late = Timer(PATIENCE_SECONDS, bar.start)
    late.daemon = True
    if console.is_terminal:
        late.start()
    try:
        yield lambda count: bar.update(task, completed=count)
    finally:
        late.cancel()
        if console.is_terminal:
            late.join()  # a bar that is just starting must not outlive us
            bar.stop()


def print_rules(name: str | None, lang: Lang) -> None:
    """The list of rules, or the page of one.

    Raises:
        RunError: there is no rule of that name.
    """
    pages = rule_pages()
    if name is None:
        width = max(map(len, pages))
        typer.echo(say("cli.rules_head", lang))
        for rule in pages:
            typer.echo(f"  {rule:<{width}}  {about(rule, lang)}")
        return
    if name not in pages:
        by_pathology = [rule for rule, page in pages.items() if name in page.ids]
        close = by_pathology or get_close_matches(name, pages, n=1, cutoff=0.0)
        raise RunError("cli.no_rule", name=name, close=close[0])
    typer.echo(render_page(name, lang), nl=False)
