"""Runs held against each other, on a terminal and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from rich.console import Console
from rich.text import Text

from jinmaek.core.codec import plain
from jinmaek.core.comparison import Comparison, Equivalence, Outcome
from jinmaek.core.text import Lang, say
from jinmaek.core.version import VERSION
from jinmaek.explain.comparison import ToldComparison, ToldPair, letter, tell_comparison
from jinmaek.report.curve import draw_curves
from jinmaek.report.terminal import INDENT, WIDEST, Row, _laid_out, _listed, _print_lines, print_limits

SIGNS: Mapping[Outcome, tuple[str, str]] = {
    "identical": ("=", "green"),
    "separated": ("≠", "red"),
    "within_seeds": ("≈", "yellow"),
    "not_separated": ("?", "yellow"),
    "no_interval": ("?", "yellow"),
}
CHECKS: Mapping[Equivalence, tuple[str, str]] = {
    "equivalent": ("✓", "green"),
    "different": ("✗", "red"),
    "not_enough": ("?", "yellow"),
}


def print_comparison(comparison: Comparison, lang: Lang, console: Console) -> None:
    """Print the runs, the answer for each pair with its reasons, and why each run does not improve."""
    told, width = tell_comparison(comparison, lang), min(console.width, WIDEST)
    for line in told.runs:
        console.print(Text(line, style="dim"), soft_wrap=True)
    curves = [(letter(place), run.series) for place, run in enumerate(comparison.runs)]
    for line in draw_curves(curves, width - INDENT):
        console.print(Text("  " + line, style="dim"), soft_wrap=True)
    for pair in told.pairs:
        console.print()
        _print_pair(pair, lang, console, width)
    if told.notes:
        console.print()
    for note in told.notes:
        _print_lines(Text(note).wrap(console, width), console)
    _print_limits(told, console, width)


def _print_pair(pair: ToldPair, lang: Lang, console: Console, width: int) -> None:
    sign, colour = SIGNS[pair.outcome]
    rows: list[Row] = [(sign, Text(pair.headline, style=f"bold {colour}"))]
    if pair.check is not None and pair.equivalence is not None:
        sign, colour = CHECKS[pair.equivalence]
        rows.append((sign, Text(pair.check, style=f"bold {colour}")))
    rows += [("", Text(pair.caution))] if pair.caution else []
    _print_lines(_laid_out(rows, console, width, colour), console)
    rows = _listed(say("compare.label_same", lang), (pair.same,) if pair.same else ())
    rows += _listed(say("compare.label_differs", lang), pair.differs)
    rows += _listed(say("compare.label_unknown", lang), (pair.unknown,) if pair.unknown else ())
    rows += _listed(say("compare.label_parting", lang), pair.parting)
    rows += _listed(say("compare.label_loss", lang), pair.losses)
    _print_lines(_laid_out(rows, console, width, "dim", INDENT), console)


def _print_limits(told: ToldComparison, console: Console, width: int) -> None:
    many = len(told.limits) > 2  # then the answer is enough: `jinmaek diagnose` gives the numbers of one
    for name, limits in told.limits:
        print_limits(replace(limits, numbers=(), missing=None) if many else limits, console, width, name=name)


def comparison_json(comparison: Comparison, lang: Lang) -> dict[str, Any]:
    """The comparison for programs, and under ``told`` what a user reads in ``lang``."""
    told: dict[str, Any] = plain(asdict(tell_comparison(comparison, lang)))
    return {"jinmaek": VERSION, **comparison.as_dict(), "told": told}
