"""``jinmaek report`` on a terminal: how the reading goes, and where the page lies."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import typer
from rich.console import Console

from jinmaek.cli.diagnosis import patience
from jinmaek.core.text import Lang, say
from jinmaek.report.page import write_report


def report_runs(paths: Sequence[str], out: Path | None, lang: Lang) -> None:
    """Write the page and print its path.

    Raises:
        JinmaekError: as :func:`jinmaek.report.page.write_report`.
    """
    started = time.perf_counter()
    console = Console(stderr=True, highlight=False)
    target = write_report(paths, out, lang=lang, watching=lambda name: patience(console, name, lang))
    size = f"{target.stat().st_size / 1e6:.1f} MB"
    typer.echo(say("html.wrote", lang, path=target, size=size, seconds=time.perf_counter() - started))
