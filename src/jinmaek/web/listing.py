"""The list of runs as a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined

from jinmaek.core.codec import number
from jinmaek.core.text import Lang, catalogue
from jinmaek.core.version import VERSION
from jinmaek.explain import verdict_line
from jinmaek.explain.telling import title
from jinmaek.explain.verdict_words import number as amount
from jinmaek.report.page.embed import script_json
from jinmaek.report.page.render import page_file, policy
from jinmaek.report.page.words import Words, both
from jinmaek.web.folder import RunLine

_STATES = {
    "open": "web.open",
    "completed": "html.end_completed",
    "interrupted": "html.end_interrupted",
    "skipped_steps": "html.end_skipped_steps",
    "no_updates": "html.end_no_updates",
}
_WORDS = {
    "theme": "html.theme", "runs": "html.runs", "run": "web.run", "state": "web.state", "steps": "html.x_step",
    "held_out": "html.held_out", "found": "html.findings", "captures": "web.captures", "verdicts": "web.verdicts",
    "written": "web.written", "compare": "web.compare", "choose": "web.choose", "prove": "web.prove",
    "proving": "web.proving", "proved": "web.proved", "proof_failed": "web.proof_failed", "busy": "web.busy",
    "no_runs": "web.none", "failed": "web.failed",
}  # fmt: skip


def render_list(lines: Sequence[RunLine], name: str, lang: Lang) -> str:
    """The page with a row for each run."""
    script = files("jinmaek.web").joinpath("list.js").read_text("utf-8")
    text: str = _template().render(
        lang=lang,
        name=name,
        version=VERSION,
        policy=policy([script], connects=True),
        css=page_file("style.css"),
        script=script,
        data=script_json({"words": {key: dict(catalogue()[value]) for key, value in _WORDS.items()}}),
        w={key: catalogue()[value] for key, value in _WORDS.items()},
        runs=[_row(line) for line in lines],
    )
    return text


def _row(line: RunLine) -> dict[str, Any]:
    steps = "–" if line.step is None else f"{line.step:,}" + (f" / {line.max_steps:,}" if line.max_steps else "")
    return {
        "id": line.id,
        "link": "/report?" + urlencode({"run": line.id}),
        "state": line.state,
        "said": both(_STATES.get(line.state, "watch.ended")),
        "steps": steps,
        "held_out": _loss(line.held_out),
        "findings": [_titled(each) for each in line.findings],
        "captures": line.captures,
        "verdicts": [_verdict(each) for each in line.verdicts],
        "written": line.written,
    }


def _loss(value: Any) -> str:
    try:
        loss = number(value)
    except (KeyError, TypeError, ValueError):
        return "–"
    return "–" if loss is None else amount(loss)


def _titled(pathology: str) -> Words:
    """A name for what was found; one that this version does not know keeps its id."""
    known = f"{pathology}.title" in catalogue()
    return {"en": title(pathology, "en"), "ko": title(pathology, "ko")} if known else {"en": pathology, "ko": pathology}


def _verdict(event: Mapping[str, Any]) -> Words | str:
    try:
        return {"en": verdict_line(event, "en"), "ko": verdict_line(event, "ko")}
    except (KeyError, TypeError):
        return str(event.get("outcome"))


@cache
def _template() -> Any:
    loader = PackageLoader("jinmaek.web", ".")
    return Environment(autoescape=True, undefined=StrictUndefined, loader=loader, trim_blocks=True).get_template(
        "list.html"
    )
