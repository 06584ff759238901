"""The trials of a verdict as a small table that fits any terminal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby, zip_longest

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from jinmaek.core.text import Lang, say
from jinmaek.explain import ToldTrial

STYLES = {"fails": "red", "heals": "green", "matches": "yellow", "differs": "dim"}
NONE = "–"  # where there is no number
MOST_ALIKE, FIRST_ALIKE = 5, 3  # rows of one arm and outcome: more than so many are cut to the first
GAP, INDENT = 2, 2
ENOUGH, LEAST = 26, 10  # cells for what was changed: columns of numbers go until it has enough


def without_repetition(trials: Sequence[ToldTrial], lang: Lang) -> list[ToldTrial]:
    """The rows to show: of a long row of trials of one arm with one outcome the first, and how many more."""
    rows: list[ToldTrial] = []
    for _, group in groupby(trials, key=lambda trial: (trial.arm, trial.outcome)):
        alike = list(group)
        if len(alike) <= MOST_ALIKE:
            rows += alike
            continue
        change = say("proof.alike", lang, count=len(alike) - FIRST_ALIKE)
        rows += [*alike[:FIRST_ALIKE], replace(alike[-1], change=change, loss="", grad_norm="", seconds="")]
    return rows


def draw_trials(trials: Sequence[ToldTrial], lang: Lang, console: Console, width: int) -> list[Text]:
    """A line or more each, below a head; numbers on the right, those that do not fit left out."""
    numbers = [
        (say("proof_label.loss", lang), [trial.loss or NONE for trial in trials]),
        (say("proof_label.grad_norm", lang), [trial.grad_norm or NONE for trial in trials]),
        (say("proof_label.seconds", lang), [trial.seconds or NONE for trial in trials]),
    ]
    outcome = say("report.outcome", lang)
    outcomes = max(cell_len(text) for text in (outcome, *(trial.said for trial in trials)))
    longest = max(cell_len(text) for text in (say("proof_label.changed", lang), *(one.change for one in trials)))
    room = width - INDENT - GAP - outcomes
    while numbers and room - _taken(numbers) < min(longest, ENOUGH):
        numbers.pop()
    first = max(LEAST, min(longest, room - _taken(numbers)))
    heads = [_right(head, _widest(head, cells)) for head, cells in numbers]
    names = Text(_left(say("proof_label.changed", lang), first) + " " * GAP + _left(outcome, outcomes) + "".join(heads))
    names.stylize("dim")
    lines = [Text(" " * INDENT) + names]
    for index, trial in enumerate(trials):
        shown = [_right(cells[index], _widest(head, cells)) for head, cells in numbers]
        row = Text.assemble((_left(trial.said, outcomes), STYLES.get(trial.outcome or "", "")), "".join(shown))
        lines += _row(trial, row, first, console)
    return lines


def _row(trial: ToldTrial, row: Text, first: int, console: Console) -> list[Text]:
    """What was changed, on as many lines as it needs, and the rest beside the first of them."""
    wrapped = Text(trial.change).wrap(console, first)
    lines = []
    for part, rest in zip_longest(wrapped, [row]):
        part.rstrip()
        margin = "" if rest is None else " " * (first - cell_len(part.plain) + GAP)
        lines.append(Text(" " * INDENT) + part + Text(margin) + (rest or Text()))
    return lines


def _widest(head: str, cells: Sequence[str]) -> int:
    return max(cell_len(text) for text in (head, *cells))


def _taken(numbers: Sequence[tuple[str, Sequence[str]]]) -> int:
    return sum(GAP + _widest(head, cells) for head, cells in numbers)


def _left(text: str, cells: int) -> str:
    return text + " " * (cells - cell_len(text))


def _right(text: str, cells: int) -> str:
    return " " * (GAP + cells - cell_len(text)) + text


def not_run(trials: Sequence[ToldTrial]) -> str:
    """The trials that were not run, by reason: ``not enough memory: fp32, fp16; no time left: …``."""
    by_reason: dict[str, list[str]] = {}
    for trial in trials:
        if trial.outcome == "not_run":
            by_reason.setdefault(trial.reason or "", []).append(trial.change)
    return "; ".join(
        f"{reason}: {', '.join(names)}" if reason else ", ".join(names) for reason, names in by_reason.items()
    )
