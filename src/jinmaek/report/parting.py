"""Where two runs part, on a terminal and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.text import Text

from jinmaek.core.codec import plain
from jinmaek.core.parting import ExplanationOutcome, Parting, PartingOutcome
from jinmaek.core.text import Lang, say
from jinmaek.core.version import VERSION
from jinmaek.explain import ToldParting, tell_parting
from jinmaek.report.terminal import INDENT, WIDEST, Row, _laid_out, _listed, _print_lines

SIGNS: Mapping[PartingOutcome, tuple[str, str]] = {
    "ALIKE": ("✓", "green"),
    "EXPLAINED": ("✗", "red"),
    "PARTED": ("?", "yellow"),
    "NOT_REPRODUCED": ("?", "yellow"),
}
STYLES: Mapping[ExplanationOutcome, str] = {"explains": "bold red", "does_not": "", "not_tested": "dim"}


def print_parting(told: ToldParting, console: Console) -> None:
    """Print ``told``: the answer, the first tensor that differs, what differs, and what became of each."""
    width, lang = min(console.width, WIDEST), told.lang
    sign, colour = SIGNS[told.outcome]
    console.print(Text(say("parting.head", lang, run=told.run, against=told.against), style="dim"), soft_wrap=True)
    rows: list[Row] = [(sign, Text(told.headline, style=f"bold {colour}"))]
    rows += [("", Text(told.summary))] if told.summary else []
    _print_lines(_laid_out(rows, console, width, colour), console)
    rows = _listed(say("parting.label_where", lang), told.where)
    rows += _listed(say("parting.label_replay", lang), told.replays)
    rows += _listed(say("parting.label_differences", lang), told.differences)
    label = say("parting.label_tried", lang)
    for number, each in enumerate(told.tried):
        text = Text.assemble((each.name, STYLES[each.outcome]), f": {each.sentence}")
        rows.append((label if number == 0 else "", text))
    _print_lines(_laid_out(rows, console, width, "dim", INDENT), console)
    if told.effort:
        console.print()
        _print_lines(Text(told.effort, style="dim").wrap(console, width), console)


def parting_json(parting: Parting, lang: Lang) -> dict[str, Any]:
    """The parting for programs, and under ``told`` what a user reads in ``lang``."""
    told: dict[str, Any] = plain(asdict(tell_parting(parting, lang)))
    return {"jinmaek": VERSION, **parting.as_dict(), "told": told}
