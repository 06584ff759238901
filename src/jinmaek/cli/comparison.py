"""Compare runs from the command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from io import TextIOWrapper
from math import isfinite

import typer
from rich.console import Console

from jinmaek.cli.diagnosis import patience
from jinmaek.comparison import MARGIN, compare_paths
from jinmaek.core.codec import dump_line
from jinmaek.core.errors import RunError
from jinmaek.core.text import Lang
from jinmaek.report import comparison_json, print_comparison

EXIT_CODES = {None: 0, "equivalent": 0, "different": 1, "not_enough": 3}


def compare_runs(
    paths: Sequence[str], lang: Lang, *, equivalent: bool, margin: float | None, as_json: bool = False
) -> int:
    """Print what holding the runs against the first comes to; returns the exit code.

    Raises:
        RunError: the margin is no size, or belongs to no question.
        LogError: as :func:`jinmaek.comparison.compare_paths`.
    """
    if margin is not None and not equivalent:
        raise RunError("compare.margin_alone")
    if margin is not None and not (isfinite(margin) and margin > 0):
        raise RunError("compare.bad_margin", margin=margin)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without our signs still shows the words
    asked = (MARGIN if margin is None else margin) if equivalent else None
    with patience(Console(stderr=True, highlight=False), ", ".join(paths), lang) as progress:
        comparison = compare_paths(paths, margin=asked, progress=lambda name, count: progress(count))
    if as_json:
        typer.echo(dump_line(comparison_json(comparison, lang)))
    else:
        print_comparison(comparison, lang, Console(highlight=False))
    return EXIT_CODES[comparison.equivalence]
