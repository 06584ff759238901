"""From gathered runs to one HTML file: every text in both languages, every number packed, every script in it."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from jinmaek.core.text import Lang, catalogue
from jinmaek.core.version import VERSION
from jinmaek.report.page.charts import plan
from jinmaek.report.page.embed import pack, script_json, squeezed
from jinmaek.report.page.gather import RunView
from jinmaek.report.page.sections import (
    FIGURES,
    findings,
    head,
    labels,
    ledger_parts,
    left_out_remarks,
    recipe_parts,
    sample_groups,
    verdict_cards,
)
from jinmaek.report.page.words import Words, both

SCRIPTS = ("numbers.js", "plots.js", "controls.js")
MOST_CARDS = 3  # runs that get a card each; more of them are the rows of a table
_NAMED = 3  # runs named in the title
_WORDS = {
    "runs": "html.runs", "theme": "html.theme", "keys": "html.keys", "earlier": "html.earlier", "later": "html.later",
    "zoom_in": "html.zoom_in", "zoom_out": "html.zoom_out", "save_png": "html.save_png", "save_svg": "html.save_svg",
    "x_step": "html.x_step", "x_tokens": "html.x_tokens", "x_time": "html.x_time", "x_missing": "html.x_missing",
    "missing_tokens": "chart.needs_num_tokens", "missing_time": "chart.needs_seconds",
    "smoothing_none": "html.smoothing_none", "control": "proof_label.control", "where": "proof_label.where",
    "differs": "proof_label.differences", "headroom": "proof_label.headroom", "changed": "proof_label.changed",
    "loss": "proof_label.loss", "grad_norm": "proof_label.grad_norm", "seconds": "proof_label.seconds",
    "trials": "proof_label.trials", "outcome": "report.outcome", "do": "report.do", "why": "report.why",
    "seen": "report.seen", "sure": "report.sure", "ruled_out": "report.ruled_out", "undecided": "report.undecided",
    "consequences": "report.consequences", "safe": "report.safe", "changes": "report.changes",
    "skip_to_charts": "html.skip_to_charts", "charts": "html.charts", "findings": "html.findings",
    "no_findings": "html.no_findings", "notes": "html.notes", "show_at": "html.show_at", "more": "html.more",
    "verdicts": "html.verdicts", "trial_input": "html.trial_input", "trial_gradient": "html.trial_gradient",
    "trial_update": "html.trial_update", "trials_about": "html.trials_about", "broken": "html.broken",
    "whole": "html.whole", "not_reached": "html.not_reached", "rules": "html.rules", "ledger": "html.ledger",
    "not_said": "html.not_said", "recipe": "html.recipe", "samples": "html.samples", "question": "html.question",
    "before": "html.before", "after": "html.after", "not_asked": "html.not_asked", "no_answer": "html.no_answer",
    "left_out": "html.left_out", "x_axis": "html.x_axis", "smoothing": "html.smoothing",
    "whole_range": "html.whole_range", "log_axis": "html.log_axis", "log_axis_about": "html.log_axis_about",
    "full_height": "html.full_height", "full_height_about": "html.full_height_about", "marks": "html.marks",
    "no_script": "html.no_script", "old_browser": "html.old_browser", "empty": "html.empty",
    "undetermined": "verdict.undetermined",
}  # fmt: skip
_UNITS = {"en": {"s": "s", "min": "min", "h": "h"}, "ko": {"s": "초", "min": "분", "h": "시간"}}


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """What a page needs that is served and grows: see ``jinmaek.web``.

    Attributes:
        ids: names by which the server knows the runs.
        script: joined to the page's own.
        words: its texts, by name.
    """

    ids: tuple[str, ...]
    script: str
    words: Mapping[str, Words]


def render(runs: Sequence[RunView], lang: Lang, live: Live | None = None) -> str:
    """The page of ``runs``, first shown in ``lang``; with ``live`` one that follows them."""
    names = labels([run.name for run in runs])
    charts, left_out = plan([run.columns for run in runs])
    told = findings(runs, names)
    packed = [pack(run.columns) for run in runs]
    title = _title(names)
    parts = [page_file(name) for name in SCRIPTS]
    script = "\n".join([*parts[:-1], *([] if live is None else [live.script]), parts[-1]])
    data = _data(runs, names, charts, told, [layout for layout, _ in packed], title)
    if live is not None:
        data |= {"live": live.ids, "words": {**data["words"], **live.words}}
    for chart in charts:
        chart["gaps"] = [
            both("chart.without", run=names[gap["run"]], missing=gap["missing"]) for gap in chart["without"]
        ]
    text: str = _template().render(
        lang=lang,
        title=title,
        policy=policy([script, _plotly()] if charts else [script], connects=live is not None),
        css=page_file("style.css"),
        script=script,
        plotly=squeezed(_plotly().encode()) if charts else "",
        data=script_json(data),
        blocks=[block for _, block in packed],
        w={name: catalogue()[key] for name, key in _WORDS.items()},
        figures={name: both(key) for name, key in FIGURES.items()},
        tabled=len(runs) > MOST_CARDS,
        made=both("html.made", version=VERSION) if live is None else f"jinmaek {VERSION}",
        several=len(runs) > 1,
        runs=[{**head(run, name), "recipe": recipe_parts(run)} for run, name in zip(runs, names, strict=True)],
        all_healthy=all(run.diagnosed.diagnosis.verdict == "healthy" for run in runs),
        kinds=_kinds(runs),
        charts=charts,
        left_out=left_out,
        remarks=left_out_remarks(runs, names),
        causes=[one for one in told if one["number"]],
        notes=[one for one in told if not one["number"]],
        verdicts=verdict_cards(runs, names),
        unread_verdicts=[both("html.unread_verdicts", names=", ".join(run.unread)) for run in runs if run.unread],
        ledger=ledger_parts(runs, names),
        samples=sample_groups(runs, names),
    )
    return text


def _title(names: Sequence[str]) -> Words:
    shown = ", ".join(names[:_NAMED])
    more = len(names) - _NAMED
    return both("html.title", names=shown if more <= 0 else both("html.and_more", names=shown, count=more))


def _data(
    runs: Sequence[RunView],
    names: Sequence[str],
    charts: Sequence[Mapping[str, Any]],
    told: Sequence[Mapping[str, Any]],
    layouts: Sequence[Mapping[str, Any]],
    title: Words,
) -> dict[str, Any]:
    """What the scripts read."""
    return {
        "title": title,
        "runs": [{"label": name, "layout": layout} for name, layout in zip(names, layouts, strict=True)],
        "charts": [{name: chart[name] for name in ("id", "title", "log", "smooth")} for chart in charts],
        "findings": [
            {name: one[name] for name in ("number", "run", "first", "last", "severity")}
            for one in told
            if one["number"]
        ],
        "words": {name: dict(catalogue()[_WORDS[name]]) for name in _IN_SCRIPTS},
        "units": _UNITS,
    }


_IN_SCRIPTS = (
    "runs", "theme", "keys", "earlier", "later", "zoom_in", "zoom_out", "save_png", "save_svg", "x_step", "x_tokens",
    "x_time", "x_missing", "missing_tokens", "missing_time", "smoothing_none",
)  # fmt: skip


def _kinds(runs: Sequence[RunView]) -> list[str]:
    """The x axes that some run has."""
    kinds = {"tokens": "num_tokens", "time": "seconds"}
    return ["step", *(kind for kind, field in kinds.items() if any(field in run.columns.series for run in runs))]


def policy(scripts: Sequence[str], *, connects: bool = False) -> str:
    """A Content-Security-Policy: only our own scripts run, known by their hashes.

    Text from a log that slipped through would not. ``connects``: they may ask the server that the page came from.
    """
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{each}'" for each in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; "
        + ("connect-src 'self'; form-action 'self'; " if connects else "form-action 'none'; ")
        + "base-uri 'none'"
    )


@cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    script: str = get_plotlyjs()
    return script


@cache
def page_file(name: str) -> str:
    """A script or style sheet of the page."""
    return files("jinmaek.report.page").joinpath(name).read_text("utf-8")


@cache
def _template() -> Any:
    # Everything that is not marked safe is escaped; what is marked is made here and holds no text of a log.
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, loader=PackageLoader("jinmaek.report.page", "."), trim_blocks=True
    )
    return environment.get_template("template.html")
