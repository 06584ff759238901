"""Read runs, write their page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from jinmaek.core.errors import Problem, RunError, StorageError
from jinmaek.core.text import Lang, default_lang
from jinmaek.ingest import LogError, LogSource, find_logs
from jinmaek.report.page.gather import RunView, folder_of, gather
from jinmaek.report.page.render import render

MOST_RUNS = 30
DEFAULT_NAME = "report.html"

Watching = Callable[[str], AbstractContextManager[Callable[[int], None]]]
"""Entered with the name of a run for as long as it is read; yields what is told the number of items read."""


@contextmanager
def _unwatched(name: str) -> Iterator[Callable[[int], None]]:
    yield lambda count: None


def write_report(
    paths: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    lang: Lang | None = None,
    watching: Watching = _unwatched,
) -> Path:
    """Write one page about all runs in ``paths``: a self-contained HTML file in Korean and English.

    Args:
        paths: run directories, logs of any trainer, folders of them.
        out: the file; by default ``report.html`` in the run, if it is one of jinmaek's, else here.
        lang: the language shown first (default: the locale's).
        watching: told how the reading goes.

    Returns:
        where the page lies.

    Raises:
        LogError: a path cannot be read; all that cannot are named.
        RunError: there are more runs than a page holds.
        StorageError: the page cannot be written.
    """
    runs = gather_runs(paths, watching)
    target = Path(out) if out is not None else default_path(paths, runs)
    return write_page(target, render(runs, lang or default_lang()))


def write_page(target: Path, text: str) -> Path:
    """Write ``text`` in one piece, so that a browser never sees half a page; returns ``target``.

    Raises:
        StorageError: it cannot be written.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{target.name}.draft")
        draft.write_text(text, encoding="utf-8", newline="\n")
        draft.replace(target)
    except OSError as error:
        raise StorageError("html.not_written", path=target, error=error.strerror or error) from error
    return target


def gather_runs(paths: Sequence[str | Path], watching: Watching = _unwatched) -> list[RunView]:
    """Read every run in ``paths``.

    Raises:
        LogError: a path cannot be read; all that cannot are named.
        RunError: there are more runs than a page holds.
    """
    found: list[tuple[LogSource, Path]] = []
    problems: list[Problem] = []
    for path in map(Path, paths):
        try:
            found += [(source, path) for source in find_logs(str(path))]
        except LogError as error:
            if (path / "run.json").is_file():  # a run that has not begun is no mistake
                found.append((LogSource(str(path), "jinmaek", lambda log: iter(())), path))
                continue
            problems += [Problem(problem.key, problem.params) for problem in error.problems]
    if problems:
        raise LogError.of(problems)
    if len(found) > MOST_RUNS:
        example = found[0][1] if len(paths) > 1 else found[0][1] / found[0][0].name
        raise RunError("html.too_many_runs", count=len(found), most=MOST_RUNS, example=example)
    runs: list[RunView] = []
    for source, root in found:
        with watching(source.name) as progress:
            runs.append(gather(source, folder_of(source, root), runs, progress))
    return runs


def default_path(paths: Sequence[str | Path], runs: Sequence[RunView]) -> Path:
    """A run's own directory for its own page; else here."""
    if len(runs) == 1 and runs[0].manifest and len(paths) == 1 and (Path(paths[0]) / "run.json").is_file():
        return Path(paths[0]) / DEFAULT_NAME
    return Path(DEFAULT_NAME)
