"""``jinmaek report`` on a terminal: how the reading goes, and where the page lies."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import typer
from rich.console import Console

from jinmaek.cli.diagnosis import patience
from jinmaek.core.codec import dump_line
from jinmaek.core.text import Lang, say
from jinmaek.report.page import default_path, gather_runs, render, write_page
from jinmaek.report.page.picture import draw_picture


def report_runs(
    paths: Sequence[str], out: Path | None, lang: Lang, *, png: Path | None, svg: Path | None, chart: str, as_json: bool
) -> None:
    """Write the page, or pictures of one chart, or both; print where they lie.

    Raises:
        JinmaekError: as :func:`jinmaek.report.page.write_report` and
            :func:`jinmaek.report.page.picture.draw_picture`.
    """
    started = time.perf_counter()
    console = Console(stderr=True, highlight=False)
    runs = gather_runs(paths, lambda name: patience(console, name, lang))
    written = [path for path in (png, svg) if path is not None]
    if png is not None:
        draw_picture(runs, chart, png, "png", lang)
    if svg is not None:
        draw_picture(runs, chart, svg, "svg", lang)
    if out is not None or not written:
        written.append(write_page(out or default_path(paths, runs), render(runs, lang)))
    if as_json:
        files = [{"path": str(path), "bytes": path.stat().st_size} for path in written]
        typer.echo(dump_line({"files": files, "runs": [run.name for run in runs]}))
        return
    for path in written:
        size = path.stat().st_size
        text = f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.0f} kB"
        typer.echo(say("html.wrote", lang, path=path, size=text, seconds=time.perf_counter() - started))
