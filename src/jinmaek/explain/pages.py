"""A page for each rule: what it looks for, why that is bad, an example, look-alikes, what to do, what it needs.

The words come from the catalogue of messages, so that a page and a diagnosis never disagree; the examples, the
sources and the fixtures are in ``pages.toml``. ``python -m jinmaek.explain.pages`` writes ``docs/rules/``, and a
test keeps it current.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinmaek.core.text import Lang, catalogue, say
from jinmaek.detect.panel import RULES
from jinmaek.explain.evidence import own_details
from jinmaek.explain.telling import about, lookalike_name, measures, need, title

DOCS = "docs/rules"


@dataclass(frozen=True, slots=True, kw_only=True)
class RulePage:
    """What a page tells beside the catalogue's texts.

    Attributes:
        name: the rule.
        family: numerics, schedule, dynamics, updates or data.
        needs: fields without which it cannot be checked.
        ids: pathologies that it can name.
        example: some lines of a log that it finds something in.
        sources: where the pathologies were seen.
        triggers: fixtures in which it must find something.
        silent: fixtures in which it must not.
    """

    name: str
    family: str
    needs: tuple[str, ...]
    ids: tuple[str, ...]
    example: str
    sources: tuple[str, ...]
    triggers: tuple[str, ...]
    silent: tuple[str, ...]


@cache
def rule_pages() -> Mapping[str, RulePage]:
    """Every rule's page by its name, family by family."""
    written = tomllib.loads(files("jinmaek.explain").joinpath("pages.toml").read_text(encoding="utf-8"))
    rules = {rule.name: (rule.family, rule.needs, rule.ids, rule.min_records) for rule in RULES}
    return {name: _page(name, rules.get(name), written[name]) for name in written}


def _page(
    name: str, rule: tuple[str, tuple[str, ...], tuple[str, ...], int] | None, written: Mapping[str, Any]
) -> RulePage:
    # The rule that compares two runs is no member of the panel; the file says all about it.
    family, needs, ids, least = rule or (written["family"], tuple(written["needs"]), tuple(written["ids"]), 1)
    return RulePage(
        name=name,
        family=family,
        needs=needs if least == 1 else (*needs, f"more_records:{least}"),
        ids=ids,
        example=written["example"].strip("\n"),
        sources=tuple(written["sources"]),
        triggers=tuple(written["triggers"]),
        silent=tuple(written["silent"]),
    )


def render_page(name: str, lang: Lang = "en") -> str:
    """The page of the rule ``name``, in Markdown.

    Raises:
        KeyError: there is no such rule.
    """
    return "\n".join(_lines(rule_pages()[name], lang)) + "\n"


def _lines(page: RulePage, lang: Lang) -> Iterator[str]:
    yield f"# {page.name}"
    yield ""
    yield say("page.family", lang, family=page.family)
    yield from _section("page.does", lang)
    yield say("page.looks_for", lang, about=about(page.name, lang))
    yield from _section("page.example", lang)
    yield "```text"
    yield page.example
    yield "```"
    yield from _section("page.names", lang)
    yield from (f"- [`{one}`](#{one}): {title(one, lang)}" for one in page.ids)
    for one in page.ids:
        yield from _pathology(one, lang)
    yield from _section("page.needs", lang)
    yield from (f"- {_need(one, lang)}" for one in page.needs or ("nothing",))
    yield from _section("page.fixtures", lang)
    yield say("page.triggers", lang, names=", ".join(page.triggers) or "—")
    yield ""
    yield say("page.silent", lang, names=", ".join(page.silent) or "—")
    yield from _section("page.sources", lang)
    yield from (f"- {source}" for source in page.sources)


def _section(key: str, lang: Lang) -> Iterator[str]:
    yield ""
    yield f"## {say(key, lang)}"
    yield ""


def _pathology(pathology: str, lang: Lang) -> Iterator[str]:
    steps = {"first_step": "N", "last_step": "M"}
    yield ""
    yield f"## {pathology}"
    yield ""
    for heading, part in (("page.happened", "what"), ("page.why", "why")):
        yield f"**{say(heading, lang)}** " + say(f"{pathology}.{part}", lang, **steps)
        yield ""
    yield f"**{say('page.remedy', lang)}**"
    yield ""
    for number, measure in enumerate(measures(f"{pathology}.remedy", lang, steps), 1):
        yield f"{number}. {measure.text} *({say('report.safe' if measure.safe else 'report.changes', lang)})*"
    yield ""
    yield f"**{say('page.sure', lang)}** " + say(f"{pathology}.sure", lang, **steps)
    told = own_details(pathology)
    if told:
        yield ""
        yield f"**{say('page.numbers', lang)}** " + ", ".join(f"`{name}`" for name in told)
    separated = list(_lookalikes(pathology, steps, lang))
    if separated:
        yield ""
        yield f"**{say('page.lookalikes', lang)}**"
        yield ""
        yield from separated


def _lookalikes(pathology: str, steps: Mapping[str, str], lang: Lang) -> Iterator[str]:
    prefix = f"{pathology}.not_"
    for key in catalogue():
        if key.startswith(prefix):
            yield f"- {lookalike_name(key.removeprefix(prefix), lang)}: {say(key, lang, **steps)}"


def _need(name: str, lang: Lang) -> str:
    if name.startswith("more_records:"):
        return say("page.least", lang, count=name.partition(":")[2])
    return say("page.any_log", lang) if name == "nothing" else need(name, lang)


def write_pages(folder: Path) -> None:
    """Write every page, and the index, into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in rule_pages():
        (folder / f"{name}.md").write_text(render_page(name), encoding="utf-8")
    (folder / "README.md").write_text(index(), encoding="utf-8")


def index() -> str:
    """The list of all rules, in Markdown."""
    rows = [
        f"| [{page.name}]({page.name}.md) | {page.family} | {about(page.name, 'en')} |"
        for page in rule_pages().values()
    ]
    head = ["# Rules", "", say("page.index", "en"), "", "| rule | family | looks for |", "| --- | --- | --- |"]
    return "\n".join([*head, *rows]) + "\n"


if __name__ == "__main__":
    write_pages(Path(sys.argv[1] if len(sys.argv) > 1 else DOCS))
