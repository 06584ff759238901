"""``jinmaek report``: read the runs, write the page."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import typer
from rich.console import Console

from jinmaek.cli.diagnosis import patience
from jinmaek.core.errors import Problem, RunError, StorageError
from jinmaek.core.text import Lang, say
from jinmaek.ingest import LogError, LogSource, find_logs
from jinmaek.report.page import RunView, folder_of, gather, render

MOST_RUNS = 30
DEFAULT_NAME = "report.html"


def write_report(paths: Sequence[str], out: Path | None, lang: Lang) -> Path:
    """Write the page of all runs in ``paths``; says where it lies. Returns its path.

    Raises:
        LogError: a path cannot be read; all that cannot are named.
        RunError: there are more runs than a page holds.
        StorageError: the page cannot be written.
    """
    started = time.perf_counter()
    runs = gather_runs(paths, lang)
    target = out or _default_path(paths, runs)
    text = render(runs, lang)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.draft")
        draft.write_text(text, encoding="utf-8", newline="\n")
        draft.replace(target)
    except OSError as error:
        raise StorageError("html.not_written", path=target, error=error.strerror or error) from error
    size = f"{target.stat().st_size / 1e6:.1f} MB"
    typer.echo(say("html.wrote", lang, path=target, size=size, seconds=time.perf_counter() - started))
    return target


def gather_runs(paths: Sequence[str], lang: Lang) -> list[RunView]:
    """Read every run in ``paths``.

    Raises:
        LogError: a path cannot be read; all that cannot are named.
        RunError: there are more runs than a page holds.
    """
    found: list[tuple[LogSource, Path]] = []
    problems: list[Problem] = []
    for path in paths:
        try:
            found += [(source, Path(path)) for source in find_logs(path)]
        except LogError as error:
            if (Path(path) / "run.json").is_file():  # a run that has not begun is no mistake
                found.append((LogSource(path, "jinmaek", lambda log: iter(())), Path(path)))
                continue
            problems += [Problem(problem.key, problem.params) for problem in error.problems]
    if problems:
        raise LogError.of(problems)
    if len(found) > MOST_RUNS:
        example = found[0][1] if len(paths) > 1 else Path(paths[0]) / found[0][0].name
        raise RunError("html.too_many_runs", count=len(found), most=MOST_RUNS, example=example)
    console = Console(stderr=True, highlight=False)
    runs: list[RunView] = []
    for source, root in found:
        with patience(console, source.name, lang) as progress:
            runs.append(gather(source, folder_of(source, root), runs, progress))
    return runs


def _default_path(paths: Sequence[str], runs: Sequence[RunView]) -> Path:
    """A run's own directory for its own page; else here."""
    if len(runs) == 1 and runs[0].manifest and len(paths) == 1 and (Path(paths[0]) / "run.json").is_file():
        return Path(paths[0]) / DEFAULT_NAME
    return Path(DEFAULT_NAME)
