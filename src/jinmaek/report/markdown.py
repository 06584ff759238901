"""The diagnosis as Markdown, whole, for an issue or a notebook."""

from __future__ import annotations

from collections.abc import Iterator

from jinmaek.core.text import Lang, say
from jinmaek.explain.limits import ToldLimits
from jinmaek.explain.told import ToldDiagnosis, ToldFinding


def as_markdown(told: ToldDiagnosis) -> str:
    """All that was found, and every rule's outcome."""
    return "\n".join(_lines(told)) + "\n"


def _lines(told: ToldDiagnosis) -> Iterator[str]:
    lang = told.lang
    yield f"# {say('report.heading', lang, source=_inline(told.source))}"
    yield ""
    yield f"**{told.headline}**"
    for line in (told.weights_line, told.last_healthy):
        if line is not None:
            yield ""
            yield line
    for finding in told.causes:
        yield from _finding(finding, lang)
    if told.notes:
        yield ""
        yield f"## {say('report.notes', lang)}"
    for finding in told.notes:
        yield from _finding(finding, lang, level="###")
    if told.limits is not None:
        yield from limits_lines(told.limits)
    yield ""
    yield f"## {say('report.rules', lang)}"
    yield ""
    yield told.coverage
    yield ""
    yield f"| {say('report.rule', lang)} | {say('report.outcome', lang)} | {say('report.checks', lang)} |"
    yield "| --- | --- | --- |"
    for rule in told.rules:
        outcome = say(f"outcome.{rule.outcome}", lang)
        if rule.needs:
            outcome += " (" + say("report.needs", lang, needs="; ".join(rule.needs)) + ")"
        yield f"| `{rule.rule}` | {_cell(outcome)} | {_cell(rule.about)} |"


def limits_lines(told: ToldLimits) -> Iterator[str]:
    """Why the run does not improve, as a section."""
    yield ""
    yield f"## {told.label}"
    yield ""
    yield told.headline
    yield ""
    yield from (f"- {sentence}" for sentence in told.numbers)
    for label, text in ((say("report.do", told.lang), told.advice), (say("limits.more", told.lang), told.missing)):
        if text:
            yield ""
            yield f"**{label}** {text}"


def _finding(finding: ToldFinding, lang: Lang, level: str = "##") -> Iterator[str]:
    yield ""
    yield f"{level} {finding.title} (`{finding.id}`)"
    yield ""
    yield f"{finding.span} · {finding.sureness}"
    yield ""
    yield finding.what
    yield ""
    yield f"**{say('report.why', lang)}** {finding.why}"
    yield from _items(say("report.seen", lang), [_inline(text) for text in finding.details])
    yield from _items(say("report.consequences", lang), [_inline(text) for text in finding.consequences])
    yield from _items(say("report.ruled_out", lang), [f"{_inline(one.name)}: {one.why}" for one in finding.ruled_out])
    if finding.undecided:
        yield ""
        yield f"**{say('report.undecided', lang)}** {', '.join(finding.undecided)}"
    if finding.measures:
        yield ""
        yield f"**{say('report.do', lang)}**"
        yield ""
    for number, measure in enumerate(finding.measures, 1):
        tag = say("report.safe" if measure.safe else "report.changes", lang)
        yield f"{number}. {measure.text} *({tag})*"
    yield ""
    yield f"**{say('report.sure', lang)}** {finding.sure}"


def _items(heading: str, items: list[str]) -> Iterator[str]:
    if items:
        yield ""
        yield f"**{heading}**"
        yield ""
        yield from (f"- {item}" for item in items)


def _inline(text: str) -> str:
    """``text`` with what Markdown would take for formatting held back: paths and numbers come from the log."""
    for sign in "\\*_<>|[]":
        text = text.replace(sign, f"\\{sign}")
    return text.replace("\n", " ")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
