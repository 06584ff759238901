"""The verdict of a replay on a terminal, as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from jinmaek.core.codec import plain
from jinmaek.core.text import Lang, say
from jinmaek.core.verdict import Verdict
from jinmaek.core.version import VERSION
from jinmaek.explain import ToldCause, ToldTrial, ToldVerdict, tell
from jinmaek.explain.verdict_told import ToldHeadroom, ToldShare
from jinmaek.report.markdown import _inline, _items
from jinmaek.report.terminal import INDENT, WIDEST, Row, _laid_out, _listed, _measure, _print_lines
from jinmaek.report.trials import draw_trials, not_run, without_repetition

SIGNS = {
    "CONFIRMED": ("✗", "red"),
    "REFUTED": ("✓", "green"),
    "INCONCLUSIVE": ("?", "yellow"),
    "NOT_REPRODUCED": ("?", "yellow"),
}
NOTE = ("·", "cyan")
CAUSE_SIGNS = {"confirmed": ("✗", "red"), "refuted": ("–", "dim"), "undecided": ("?", "yellow")}
LONGEST_BAR, SHORTEST_BAR = 30, 8
HARMLESS = ("hard_example",)  # causes that are no fault
NEAR = 0.9  # of the limit: what is drawn in red


def print_verdict(told: ToldVerdict, console: Console) -> None:
    """Print ``told``: the answer, how far it can be trusted, why, what to do, and every trial."""
    width, lang = min(console.width, WIDEST), told.lang
    sign, colour = _sign(told)
    console.print(Text(say("proof_label.run", lang, run=told.run, step=told.step), style="dim"), soft_wrap=True)
    rows: list[Row] = [(sign, Text(told.headline, style=f"bold {colour}"))]
    rows += [("", Text(told.summary))] if told.summary else []
    _print_lines(_laid_out(rows, console, width, colour), console)
    _print_lines(_laid_out(_ground(told, width), console, width, "dim", INDENT), console)
    for cause in told.causes:
        if cause.status == "confirmed":
            console.print()
            _print_cause(cause, console, lang, width)
    weighed = [_short(cause) for cause in told.causes if cause.status != "confirmed"]
    if weighed:
        console.print()
        _print_lines(_laid_out(weighed, console, width, "dim"), console)
    _print_trials(told, console, width)
    measures = any(cause.measures for cause in told.causes)
    closing = " · ".join(part for part in (told.effort, say("proof_label.legend", lang) if measures else "") if part)
    if closing:
        console.print()
        _print_lines(Text(closing, style="dim").wrap(console, width), console)


def _sign(told: ToldVerdict) -> tuple[str, str]:
    shown = [cause.id for cause in told.causes if cause.status == "confirmed"]
    if shown and all(cause in HARMLESS for cause in shown):
        return NOTE
    return SIGNS[told.outcome]


def _ground(told: ToldVerdict, width: int) -> list[Row]:
    """What the answer stands on: the control, what differs, where it broke, how near it had come before."""
    lang = told.lang
    rows: list[Row] = [(say("proof_label.control", lang), Text(told.control))]
    rows += _listed(say("proof_label.differences", lang), told.differences)
    for number, text in enumerate(told.where):
        rows.append((say("proof_label.where", lang) if number == 0 else "", Text(text, style="dim" if number else "")))
    if told.headroom is not None:
        label = say("proof_label.headroom", lang)
        rows.append((label, Text(told.headroom.sentence)))
        margin = INDENT + max(cell_len(label or "") for label, _ in rows) + 1
        rows += [("", bar) for bar in _bars(told.headroom, lang, width - margin)]
    return rows


def _bars(headroom: ToldHeadroom, lang: Lang, width: int) -> Iterator[Text]:
    labels = [say("proof_label.step", lang, step=share.step) for share in headroom.shares]
    column = max(map(cell_len, labels))
    numbers = max(len(share.text) for share in headroom.shares)
    cells = max(SHORTEST_BAR, min(LONGEST_BAR, width - column - numbers - 2))
    for label, share in zip(labels, headroom.shares, strict=True):
        filled, style = _filled(share, cells), "red" if share.share >= NEAR else "cyan"
        yield Text.assemble(
            " " * (column - cell_len(label)) + label + " ",
            ("█" * filled, style),
            ("░" * (cells - filled), "dim"),
            f" {share.text:>{numbers}}",
        )


def _filled(share: ToldShare, cells: int) -> int:
    """Cells of the bar; only what has reached the limit fills it."""
    if not share.share < 1:
        return cells
    return min(cells - 1, max(0, round(share.share * cells)))


def _print_cause(cause: ToldCause, console: Console, lang: Lang, width: int) -> None:
    sign, colour = NOTE if cause.id in HARMLESS else CAUSE_SIGNS[cause.status]
    head = Text.assemble((cause.title, f"bold {colour}"), (f"  {cause.sureness}", "dim"))
    _print_lines(_laid_out([(sign, head)], console, width, colour), console)
    rows: list[Row] = [(None, Text(" ".join((cause.sentence, *cause.details))))]
    if cause.rests_on:
        rows.append((say("proof_label.trials", lang), Text(" · ".join(cause.rests_on))))
    for number, measure in enumerate(cause.measures, 1):
        rows.append((say("report.do", lang) if number == 1 else "", _measure(number, measure, lang, tags=False)))
    _print_lines(_laid_out(rows, console, width, "dim", INDENT), console)


def _short(cause: ToldCause) -> Row:
    """A cause that was not shown, in a line or two."""
    sign, _ = CAUSE_SIGNS[cause.status]
    said = " ".join((cause.sentence, *cause.details))
    rests = f" ({' · '.join(cause.rests_on)})" if cause.rests_on else ""
    return sign, Text.assemble((cause.title, "bold"), (f"  {cause.sureness}: ", "dim"), said, (rests, "dim"))


def _print_trials(told: ToldVerdict, console: Console, width: int) -> None:
    run = [trial for trial in told.trials if trial.outcome != "not_run"]
    if run:
        console.print()
        recorded = () if told.recorded is None else (told.recorded,)
        _print_lines(draw_trials((*recorded, *without_repetition(run, told.lang)), told.lang, console, width), console)
    reasons = not_run(told.trials)
    if reasons:
        row: Row = (f"{say('proof_label.not_run', told.lang)}:", Text(reasons))
        _print_lines(_laid_out([row], console, width, "dim", INDENT), console)


def verdict_json(verdict: Verdict, lang: Lang) -> dict[str, Any]:
    """The verdict for programs, and under ``told`` what a user reads in ``lang``."""
    told: dict[str, Any] = plain(asdict(tell(verdict, lang)))
    return {"jinmaek": VERSION, **verdict.as_dict(), "told": told}


def verdict_markdown(told: ToldVerdict) -> str:
    """All of it as Markdown, for an issue or a notebook."""
    return "\n".join(_lines(told)) + "\n"


def _lines(told: ToldVerdict) -> Iterator[str]:
    lang = told.lang
    yield f"# {_inline(say('proof_label.run', lang, run=told.run, step=told.step))}"
    yield ""
    yield f"**{told.headline}**"
    if told.summary:
        yield ""
        yield _inline(told.summary)
    for label, texts in _grounds(told):
        yield from _items(say(label, lang), [_inline(text) for text in texts])
    if told.causes:
        yield ""
        yield f"## {say('proof_label.causes', lang)}"
    for cause in told.causes:
        yield from _cause(cause, lang)
    if told.trials:
        yield ""
        yield f"## {say('proof_label.trials', lang).capitalize()}"
        yield ""
        yield from _table(told)
    if told.effort:
        yield ""
        yield _inline(told.effort)


def _grounds(told: ToldVerdict) -> Iterator[tuple[str, Sequence[str]]]:
    yield "proof_label.control", (told.control,)
    yield "proof_label.differences", told.differences
    yield "proof_label.where", told.where
    if told.headroom is not None:
        shares = (f"{say('proof_label.step', told.lang, step=one.step)}: {one.text}" for one in told.headroom.shares)
        yield "proof_label.headroom", (told.headroom.sentence, *shares)


def _cause(cause: ToldCause, lang: Lang) -> Iterator[str]:
    yield ""
    yield f"### {_inline(cause.title)} (`{cause.id}`): {cause.sureness}"
    yield ""
    yield _inline(" ".join((cause.sentence, *cause.details)))
    yield from _items(say("proof_label.trials", lang), [_inline(text) for text in cause.rests_on])
    if cause.measures:
        yield ""
        yield f"**{say('report.do', lang)}**"
        yield ""
    for number, measure in enumerate(cause.measures, 1):
        tag = say("report.safe" if measure.safe else "report.changes", lang)
        yield f"{number}. {_inline(measure.text)} *({tag})*"


def _table(told: ToldVerdict) -> Iterator[str]:
    names = (
        "proof_label.changed",
        "report.outcome",
        "proof_label.loss",
        "proof_label.grad_norm",
        "proof_label.seconds",
    )
    yield _markdown_row(say(name, told.lang) for name in names)
    yield "| --- | --- | ---: | ---: | ---: |"
    for trial in (*(() if told.recorded is None else (told.recorded,)), *told.trials):
        yield _markdown_row(map(_inline, _cells(trial)))


def _cells(trial: ToldTrial) -> tuple[str, ...]:
    said = trial.said if trial.reason is None else f"{trial.said} ({trial.reason})"
    return trial.change, said, trial.loss, trial.grad_norm, trial.seconds


def _markdown_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"
