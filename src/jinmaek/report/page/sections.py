"""What stands in the page beside the charts: heads, findings, verdicts, ledger, recipes, samples."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from jinmaek.core.finding import Finding
from jinmaek.core.verdict import Trial, Verdict
from jinmaek.explain import explain, tell
from jinmaek.explain.verdict_words import number as amount
from jinmaek.report.page.gather import RunView
from jinmaek.report.page.ledger import Entry, flat, ledger, shown
from jinmaek.report.page.secrets import without_secrets
from jinmaek.report.page.words import Words, both, paired

_ENDS = {
    "completed": "html.end_completed",
    "interrupted": "html.end_interrupted",
    "skipped_steps": "html.end_skipped_steps",
    "no_updates": "html.end_no_updates",
}


def labels(names: Sequence[str]) -> list[str]:
    """The shortest ends of the paths that tell them apart; two of one name keep it and get a number."""
    parts = [PurePath(name).parts or (name,) for name in names]
    found = []
    for number, own in enumerate(parts):
        for length in range(1, len(own) + 1):
            tail = own[-length:]
            if all(other[-length:] != tail for place, other in enumerate(parts) if place != number):
                break
        found.append("/".join(tail) if tail[0] != "/" else names[number])
    return [
        name if found.count(name) == 1 else f"{name} ({found[: number + 1].count(name)})"
        for number, name in enumerate(found)
    ]


def head(run: RunView, label: str) -> dict[str, Any]:
    """The answer first: the verdict of the rules, and the figures of the run."""
    diagnosis = run.diagnosed.diagnosis
    told = paired(explain(diagnosis, "en"), explain(diagnosis, "ko"))
    for rule in told["rules"]:
        rule["said"] = both(f"outcome.{rule['outcome']}")
    ended = None
    if run.end is not None:
        ended = both(_ENDS.get(str(run.end.get("end")), "html.running"))
    elif run.manifest:
        ended = both("html.running")
    return {
        "label": label,
        "name": run.name,
        "health": diagnosis.verdict,
        "told": told,
        "ended": ended,
        "figures": {name: value for name, value in _figures(run)},
    }


FIGURES = {
    "steps": "html.x_step",
    "applied": "html.applied",
    "held_out": "html.held_out",
    "tokens": "html.tokens",
    "time": "html.time",
    "speed": "html.tokens_per_second",
}
"""Headings of the figures of a run; a run that lacks one does not show it."""


def _figures(run: RunView) -> Iterator[tuple[str, Words | str]]:
    columns = run.columns
    yield "steps", _extent(run)
    if columns.num_judged:
        applied = len(columns.steps) - len(columns.skipped)
        yield "applied", f"{applied:,} / {len(columns.steps):,}"
    losses = [loss for _, loss in columns.evaluations]
    if losses:
        yield "held_out", " → ".join(dict.fromkeys((amount(losses[0]), amount(losses[-1]))))
    num_tokens, seconds = _sum(run, "num_tokens"), _sum(run, "seconds")
    if num_tokens:
        yield "tokens", f"{num_tokens:,.0f}"
    if seconds:
        yield "time", _duration(seconds)
    if num_tokens and seconds:
        yield "speed", amount(num_tokens / seconds)


def _extent(run: RunView) -> Words | str:
    columns, facts = run.columns, run.facts
    last = f"{int(columns.steps[-1]):,}" if columns.steps else "0"
    if facts.steps_known and facts.max_steps:
        return f"{last} / {facts.max_steps:,}"
    if facts.steps_known or run.diagnosed.diagnosis.steps_inferred:
        return last
    return both("html.records", records=f"{len(columns.steps):,}")


def _sum(run: RunView, name: str) -> float:
    series = run.columns.series.get(name)
    return 0.0 if series is None else math.fsum(value for value in series.values if math.isfinite(value))


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


def findings(runs: Sequence[RunView], names: Sequence[str]) -> list[dict[str, Any]]:
    """Every finding, told; faults are numbered over all runs, notes have the number 0."""
    cards: list[dict[str, Any]] = []
    for number, (run, label) in enumerate(zip(runs, names, strict=True)):
        diagnosis = run.diagnosed.diagnosis
        english, korean = explain(diagnosis, "en"), explain(diagnosis, "ko")
        for kind in ("causes", "notes"):
            seen: Sequence[Finding] = getattr(diagnosis, kind)
            for finding, *told in zip(seen, getattr(english, kind), getattr(korean, kind), strict=True):
                place = sum(1 for card in cards if card["number"]) + 1 if kind == "causes" else 0
                span = {"first": finding.first_step, "last": finding.last_step}
                cards.append({**paired(*told), **span, "number": place, "run": number, "run_label": label})
    return cards


def left_out_remarks(runs: Sequence[RunView], names: Sequence[str]) -> list[Words]:
    """What the charts do not show, or show otherwise than one would think."""
    remarks = []
    for run, label in zip(runs, names, strict=True):
        if run.columns.num_replaced:
            remarks.append(both("html.replaced", run=label, count=run.columns.num_replaced))
        if run.diagnosed.diagnosis.steps_inferred:
            remarks.append(both("html.steps_read_off", run=label))
        elif not run.facts.steps_known:
            remarks.append(both("html.counted", run=label))
    return remarks


def verdict_cards(runs: Sequence[RunView], names: Sequence[str]) -> list[dict[str, Any]]:
    """Every verdict, told, its trials with the place where each of them breaks."""
    return [
        {**_verdict_card(verdict), "label": label, "run_number": number}
        for number, (run, label) in enumerate(zip(runs, names, strict=True))
        for verdict in run.verdicts
    ]


def _verdict_card(verdict: Verdict) -> dict[str, Any]:
    told = dict(paired(tell(verdict, "en"), tell(verdict, "ko")))
    rows = [{**row, "places": places(trial)} for row, trial in zip(told["trials"], verdict.trials, strict=True)]
    recorded = [] if told["recorded"] is None else [{**told["recorded"], "places": _recorded_places(verdict)}]
    told["trials"] = [*recorded, *rows]
    if told["headroom"] is not None:
        for share in told["headroom"]["shares"]:
            finite = math.isfinite(share["share"])
            share["over"] = not share["share"] < 1
            share["percent"] = min(100.0, max(0.0, 100 * share["share"])) if finite else 100.0
    return told


def places(trial: Trial) -> tuple[str, str, str]:
    """``whole``, ``broken`` or ``not_reached`` for the loss, the gradient and the step as a whole of one trial."""
    if trial.outcome == "not_run":
        return ("not_reached", "not_reached", "not_reached")
    fails = trial.outcome in ("fails", "differs")
    return (*_numbers(trial.loss, trial.grad_norm), "broken" if fails else "whole")


def _numbers(loss: float | None, grad_norm: float | None) -> tuple[str, str]:
    first, second = (
        "not_reached" if value is None else "whole" if math.isfinite(value) else "broken" for value in (loss, grad_norm)
    )
    return first, second


def _recorded_places(verdict: Verdict) -> tuple[str, str, str]:
    numbers = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
    loss, grad_norm = (numbers.get(str(each), each) for each in map(verdict.recorded.get, ("loss", "grad_norm")))
    return (*_numbers(loss, grad_norm), "whole" if verdict.symptom == "none" else "broken")


def ledger_parts(runs: Sequence[RunView], names: Sequence[str]) -> list[dict[str, Any]]:
    """Of several runs: what differs, open; what only some say, and what is the same, to be opened."""
    if len(runs) < 2:
        return []
    entries = ledger(runs)
    differing = [entry for entry in entries if entry.differs]
    partial = [entry for entry in entries if entry.is_partial]
    same = [entry for entry in entries if not entry.differs and not entry.is_partial]
    return [
        _part(both("html.ledger_differs", count=len(differing)), names, differing, opened=True),
        _part(both("html.ledger_partial", count=len(partial)), names, partial),
        _part(both("html.ledger_same", count=len(same)), [both("html.runs")], same),
    ]


def _part(title: Words, heads: Sequence[Any], entries: Sequence[Entry], *, opened: bool = False) -> dict[str, Any]:
    rows = [{"name": entry.name, "shown": entry.values[: len(heads)]} for entry in entries]
    return {"title": title, "heads": heads, "entries": rows, "open": opened}


def recipe_parts(run: RunView) -> list[dict[str, Any]]:
    """The settings that were stated, and everything else that is known of how the run was made."""
    if not run.manifest:
        rows = [*flat("", {each.name: each.values[0] for each in ledger([run])})]
        return [{"title": both("html.recipe_log"), "rows": _unprefixed(rows), "open": True}]
    recipe: Any = run.manifest.get("recipe") or {}
    stated = [(name, value) for name, value in flat("settings", recipe) if not name.startswith("about.")]
    known = {name for name, _ in stated}
    rest = [(name, value) for name, value in _everything(run.manifest) if name not in known]
    return [
        {"title": both("html.recipe_stated"), "rows": stated, "open": True},
        {"title": both("html.recipe_all"), "rows": rest, "open": False},
    ]


def _everything(manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in manifest.items():
        if name == "command" and isinstance(value, list):
            yield name, without_secrets(name, " ".join(map(shown, value)))
        elif name != "recipe":
            yield from flat(name, value)


def _unprefixed(rows: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(name.removeprefix("."), value) for name, value in rows]


def sample_groups(runs: Sequence[RunView], names: Sequence[str]) -> list[dict[str, Any]]:
    """What the models said, run by run."""
    return [
        {"label": label, "number": number, "rows": run.samples}
        for number, (run, label) in enumerate(zip(runs, names, strict=True))
        if run.samples
    ]


def size_text(num_bytes: int) -> str:
    """``5.2 MB``."""
    return f"{num_bytes / 1e6:.1f} MB"
