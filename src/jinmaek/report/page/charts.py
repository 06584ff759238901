"""The charts of a report: what each one shows, and which fields it needs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jinmaek.report.page.columns import Columns
from jinmaek.report.page.words import Words, both


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """One chart.

    Attributes:
        id: its name, also for ``--chart``.
        needs: what must have been observed; of names divided by ``|`` one is enough.
        title: key of its heading, and
        about: key of the line below it.
        log: whether its axis is logarithmic at first.
        smooth: whether a smoothed line is drawn over the raw one.
    """

    id: str
    needs: tuple[str, ...]
    title: str
    about: str
    log: bool = False
    smooth: bool = False


CHARTS: tuple[Chart, ...] = (
    Chart(id="loss", needs=("loss|loss_reported",), title="chart.loss", about="chart.loss_about", smooth=True),
    Chart(id="held_out", needs=("evaluations",), title="chart.held_out", about="chart.held_out_about"),
    Chart(
        id="grad_norm", needs=("grad_norm",), title="chart.grad_norm", about="chart.grad_norm_about", log=True,
        smooth=True,
    ),
    Chart(id="lr", needs=("lr",), title="chart.lr", about="chart.lr_about"),
    Chart(
        id="loss_scale", needs=("loss_scale|skipped",), title="chart.loss_scale", about="chart.loss_scale_about",
        log=True,
    ),
    Chart(
        id="update_ratio", needs=("update_ratio",), title="chart.update_ratio", about="chart.update_ratio_about",
        log=True,
    ),
    Chart(
        id="speed", needs=("num_tokens", "seconds"), title="chart.speed", about="chart.speed_about", smooth=True,
    ),
    Chart(id="memory_bytes", needs=("memory_bytes",), title="chart.memory", about="chart.memory_about"),
    Chart(
        id="token_accuracy", needs=("token_accuracy",), title="chart.token_accuracy",
        about="chart.token_accuracy_about",
    ),
)  # fmt: skip
"""In the order of the page."""

_MISSING = {
    "loss|loss_reported": "chart.needs_loss",
    "evaluations": "chart.needs_evaluations",
    "grad_norm": "chart.needs_grad_norm",
    "lr": "chart.needs_lr",
    "loss_scale|skipped": "chart.needs_loss_scale",
    "update_ratio": "chart.needs_update_ratio",
    "num_tokens": "chart.needs_num_tokens",
    "seconds": "chart.needs_seconds",
    "token_accuracy": "chart.needs_token_accuracy",
    "memory_bytes": "chart.needs_memory",
}


def observed(columns: Columns) -> set[str]:
    """Names of what the run has."""
    seen = set(columns.series)
    seen |= {"evaluations"} if columns.evaluations else set()
    return seen | ({"skipped"} if len(columns.skipped) else set())


def missing(chart: Chart, seen: set[str]) -> tuple[str, ...]:
    """The needs of ``chart`` that are not met."""
    return tuple(need for need in chart.needs if seen.isdisjoint(need.split("|")))


def missing_words(needs: Sequence[str]) -> Words:
    """The needs in words."""
    named = [both(_MISSING[need]) for need in needs]
    return {"en": "; ".join(one["en"] for one in named), "ko": "; ".join(one["ko"] for one in named)}


def plan(runs: Sequence[Columns]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The charts that some run can fill, each with the runs that cannot, and those that none can, with why."""
    seen = [observed(run) for run in runs]
    drawn, left_out = [], []
    for chart in CHARTS:
        gaps = [missing(chart, each) for each in seen]
        facts = {"id": chart.id, "title": both(chart.title), "about": both(chart.about)}
        if all(gaps):
            # What is missing everywhere is the reason; where the runs lack different things, all of them are.
            common = [need for need in chart.needs if all(need in gap for gap in gaps)]
            needs = common or list(dict.fromkeys(need for gap in gaps for need in gap))
            left_out.append({**facts, "missing": missing_words(needs)})
            continue
        without = [{"run": number, "missing": missing_words(gap)} for number, gap in enumerate(gaps) if gap]
        drawn.append({**facts, "log": chart.log, "smooth": chart.smooth, "without": without})
    return drawn, left_out
