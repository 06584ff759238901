"""The diagnosis on a terminal: short enough to read at 2 a.m.; all of it on request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

from jinmaek.core.text import Lang, say
from jinmaek.explain.limits import MOST_NUMBERS, ToldLimits
from jinmaek.explain.told import Measure, ToldDiagnosis, ToldFinding, ToldRule
from jinmaek.report.curve import draw_curve

MOST_LINES = 12  # of one cause, when told shortly
NARROW, MOST_LINES_NARROW = 100, 16  # below this width the same words take more lines
FEWEST_DETAILS = 2  # that a short telling keeps: without numbers nobody believes it
INDENT = 2
WIDEST = 110  # longer lines are hard to read
COLOURS = {"error": "red", "warning": "yellow", "note": "cyan", "healthy": "green", "faulty": "red"}
SIGNS = {"error": "✗", "warning": "!", "note": "·", "healthy": "✓", "faulty": "✗"}

Row = tuple[str | None, Text]
"""A label and what it labels; without a label (``None``) the text takes the whole width."""


def print_diagnosis(
    told: ToldDiagnosis, console: Console, series: Sequence[tuple[int, float | None]] = (), *, whole: bool = False
) -> None:
    """Print ``told``; ``series`` is the loss, thinned out; ``whole`` tells every number and every rule."""
    width = min(console.width, WIDEST)
    _print_head(told, console, width)
    for line in draw_curve(series, told.onset, width - 2):
        console.print(Text("  " + line, style="dim"), soft_wrap=True)
    for finding in told.causes:
        console.print()
        _print_finding(finding, console, told.lang, width, whole)
    for finding in told.notes:
        console.print()
        _print_finding(finding, console, told.lang, width, whole, note=True)
    if told.limits is not None:
        print_limits(told.limits, console, width, whole=whole)
    console.print()
    if whole:
        _print_rules(told.rules, console, told.lang, width)
        if told.gaps is not None:
            _print_lines(Text(told.gaps, style="dim").wrap(console, width), console)
    measures = any(finding.measures for finding in told.causes)
    more = say("report.legend" if measures else "report.more", told.lang)
    coverage = told.coverage if whole else f"{told.coverage} {more}"
    _print_lines(Text(coverage, style="dim").wrap(console, width), console)


def print_limits(told: ToldLimits, console: Console, width: int, *, whole: bool = False, name: str = "") -> None:
    """Print why the run does not improve; nothing where there is nothing to say of it."""
    if (told.limiting == "too_short" and not whole) or (told.limiting == "broken" and not told.numbers):
        return
    console.print()
    label = f"{name} · {told.label}" if name else told.label
    head = Text.assemble((label, "bold cyan"), " ", told.headline)
    _print_lines(_laid_out([(SIGNS["note"], head)], console, width, "cyan"), console)
    numbers = told.numbers if whole else told.numbers[:MOST_NUMBERS]
    rows = _listed(say("report.seen", told.lang), numbers)
    rows += [(say("report.do", told.lang), Text(told.advice))] if told.advice else []
    rows += [(say("limits.more", told.lang), Text(told.missing))] if told.missing else []
    _print_lines(_laid_out(rows, console, width, "dim", INDENT), console)


def _print_head(told: ToldDiagnosis, console: Console, width: int) -> None:
    colour, sign = COLOURS.get(told.verdict, "yellow"), SIGNS.get(told.verdict, "?")
    console.print(Text(told.source, style="dim"), soft_wrap=True)
    rows: list[Row] = [(sign, Text(told.headline, style=f"bold {colour}"))]
    rows += [("", Text(line)) for line in (told.weights_line, told.last_healthy) if line is not None]
    _print_lines(_laid_out(rows, console, width, colour), console)


def _print_finding(
    finding: ToldFinding, console: Console, lang: Lang, width: int, whole: bool, *, note: bool = False
) -> None:
    colour = COLOURS[finding.severity]
    head = Text.assemble((finding.title, f"bold {colour}"), (f"  {finding.span} · {finding.sureness}", "dim"))
    _print_lines(_laid_out([(SIGNS[finding.severity], head)], console, width, colour), console)
    if whole:
        rows: list[Row] = [*_rows(finding, lang, len(finding.details), tags=True), *_whole_rows(finding, lang)]
    elif note:
        rows = [(None, Text(text)) for text in (finding.what, *finding.details[:1])]
    else:
        rows = _short(finding, console, lang, width)
    _print_lines(_laid_out(rows, console, width, "dim", INDENT), console)


def _short(finding: ToldFinding, console: Console, lang: Lang, width: int) -> list[Row]:
    """The rows that fit: fewer numbers first, then no consequences, then no mechanism; what to do always stays."""
    few = min(FEWEST_DETAILS, len(finding.details))
    shapes = [(count, True, True) for count in range(len(finding.details), few - 1, -1)]
    shapes += [(few, True, False), (few, False, False)]
    most = MOST_LINES if width >= NARROW else MOST_LINES_NARROW
    rows: list[Row] = []
    for count, mechanism, consequences in shapes:
        rows = list(_rows(finding, lang, count, mechanism=mechanism))
        if consequences and finding.consequences:
            rows.append((say("report.consequences", lang), Text(" ".join(finding.consequences))))
        if len(_laid_out(rows, console, width, "dim", INDENT)) < most:
            break
    return rows


def _rows(finding: ToldFinding, lang: Lang, count: int, *, mechanism: bool = True, tags: bool = False) -> Iterator[Row]:
    yield None, Text(finding.what)
    if mechanism:
        yield say("report.why", lang), Text(finding.why)
    yield from _listed(say("report.seen", lang), finding.details[:count])
    for number, measure in enumerate(finding.measures, 1):
        yield say("report.do", lang) if number == 1 else "", _measure(number, measure, lang, tags)
    yield say("report.sure", lang), Text(finding.sure)


def _whole_rows(finding: ToldFinding, lang: Lang) -> Iterator[Row]:
    yield from _listed(say("report.consequences", lang), finding.consequences)
    excluded = [f"{lookalike.name}: {lookalike.why}" for lookalike in finding.ruled_out]
    yield from _listed(say("report.ruled_out", lang), excluded)
    if finding.undecided:
        yield say("report.undecided", lang), Text(", ".join(finding.undecided))
    yield say("report.id", lang), Text(f"{finding.id} (jinmaek rules {finding.rule})")


def _listed(label: str, sentences: Sequence[str]) -> list[Row]:
    return [(label if number == 0 else "", Text(sentence)) for number, sentence in enumerate(sentences)]


def _measure(number: int, measure: Measure, lang: Lang, tags: bool) -> Text:
    """Marked by a sign, whose meaning the last line tells, or where there is room by words."""
    style = "green" if measure.safe else "yellow"
    if not tags:
        return Text.assemble(f"{number}. ", ("+" if measure.safe else "!", style), f" {measure.text}")
    tag = say("report.safe" if measure.safe else "report.changes", lang)
    return Text.assemble(f"{number}. {measure.text} ", (f"[{tag}]", style))


def _laid_out(rows: Iterable[Row], console: Console, width: int, label_style: str, indent: int = 0) -> list[Text]:
    """Lines with the labels in a column of their own; no line ends with blanks, so that a paste stays clean."""
    rows = list(rows)
    column = max((cell_len(label) + 1 for label, _ in rows if label is not None), default=0)
    lines = []
    for label, text in rows:
        margin = 0 if label is None else column
        for number, line in enumerate(text.wrap(console, max(width - indent - margin, 20))):
            line.rstrip()
            shown = label or "" if number == 0 else ""
            lines.append(Text(" " * indent) + Text(set_cell_size(shown, margin), style=label_style) + line)
    return lines


def _print_lines(lines: Iterable[Text], console: Console) -> None:
    for line in lines:
        line.rstrip()
        console.print(line, soft_wrap=True)


def _print_rules(rules: Sequence[ToldRule], console: Console, lang: Lang, width: int) -> None:
    styles = {"found": "bold red", "clear": "green", "not_checkable": "dim"}
    names = max((len(rule.rule) for rule in rules), default=0)
    rows: list[Row] = []
    for rule in rules:
        told = say("report.needs", lang, needs="; ".join(rule.needs)) if rule.needs else rule.about
        outcome = say(f"outcome.{rule.outcome}", lang)
        rows.append((rule.rule.ljust(names), Text.assemble((outcome, styles[rule.outcome]), f"  {told}")))
    if rows:
        _print_lines(_laid_out(rows, console, width, ""), console)
        console.print()
