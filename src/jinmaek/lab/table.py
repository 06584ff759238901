"""What a sweep showed, as a table and sentences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import stdev
from typing import Any

from rich.cells import cell_len
from rich.table import Table

from jinmaek.core.text import Lang, duration, say
from jinmaek.explain.telling import title
from jinmaek.lab.comparison import ArmResult, Comparison, Difference
from jinmaek.lab.design import Design
from jinmaek.lab.intervals import LEVEL, mean_interval
from jinmaek.lab.outcome import Outcome, encode_outcome
from jinmaek.report.overlay import LETTERS

_NONE = "–"
_VERDICTS = {
    "lower": "lab.verdict_lower",
    "higher": "lab.verdict_higher",
    "same": "lab.verdict_same",
    "rounding": "lab.verdict_rounding",
    "not_separated": "lab.verdict_not_separated",
    "one_seed": "lab.verdict_one_seed",
    "incomparable": "lab.verdict_incomparable",
    "missing": "lab.verdict_missing",
}


def arm_table(design: Design, comparison: Comparison, width: int, lang: Lang) -> Table:
    """A row for each arm; the base has no difference. Columns that say nothing, or for which there is no room, go."""
    arms = comparison.arms
    single = len(design.factors) == 1 and design.kind == "grid"
    names = [arm.name.partition("=")[2] if single else arm.name for arm in arms]
    loss = say("lab.head_held_out", lang) if comparison.held_out else say("lab.head_train_loss", lang)
    pairs = [_difference_cells(arm.difference, lang) for arm in arms]
    columns: list[tuple[str, list[str]]] = [
        (design.factors[0].key if single else say("lab.head_arm", lang), names),
        (loss, [_NONE if arm.mean is None else _with_interval(arm.mean, arm.half_width, "") for arm in arms]),
        (say("lab.head_difference", lang), [shown for shown, _ in pairs]),
        ("", [verdict for _, verdict in pairs]),
        (say("lab.head_seeds", lang), [f"{len(arm.losses)}/{arm.num_trials}" for arm in arms]),
    ]
    extra = [
        (say("lab.head_finding", lang), ["" if arm.cause is None else title(arm.cause, lang) for arm in arms]),
        (say("lab.head_skipped", lang), [f"{arm.skipped_steps:,}" if arm.skipped_steps else "" for arm in arms]),
        (say("lab.head_time", lang), [duration(arm.seconds) for arm in arms]),
        ("tok/s", [_NONE if arm.tokens_per_second is None else f"{arm.tokens_per_second:,.0f}" for arm in arms]),
    ]
    for column in extra:
        if any(column[1]) and _width([*columns, column]) <= width:
            columns.append(column)
    return _drawn(columns)


def _width(columns: Sequence[tuple[str, Sequence[str]]]) -> int:
    return 2 + sum(max(cell_len(text) for text in (head, *cells)) + 2 for head, cells in columns)


def _drawn(columns: Sequence[tuple[str, Sequence[str]]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("")
    for number, (head, _) in enumerate(columns):
        table.add_column(head, justify="right" if number in (1, 2, 4) else "left", no_wrap=number > 0, overflow="fold")
    rows = zip(*(cells for _, cells in columns), strict=True)
    for letter, row in zip(LETTERS.ljust(len(columns[0][1])), rows, strict=False):
        table.add_row(letter, *row)
    return table


def _difference_cells(difference: Difference | None, lang: Lang) -> tuple[str, str]:
    if difference is None:
        return "", say("lab.verdict_base", lang)
    shown = _NONE if difference.mean is None else _with_interval(difference.mean, difference.half_width, "+")
    return shown, say(_VERDICTS[difference.verdict], lang)


def _with_interval(mean: float, half_width: float | None, sign: str) -> str:
    return f"{mean:{sign}.4f}" if half_width is None else f"{mean:{sign}.4f} ± {half_width:.4f}"


def sentences(design: Design, comparison: Comparison, lang: Lang) -> Iterator[str]:
    """What the table means, the most important first."""
    if design.varies_seed:
        yield from _spread_of_seeds(comparison, lang)
    elif not comparison.comparable:
        yield say("lab.not_comparable", lang)
    elif comparison.lowest is not None:
        yield from _conclusion(comparison, lang)
    if not comparison.held_out and any(arm.losses for arm in comparison.arms):
        yield say("lab.by_train_loss", lang)
    if comparison.num_failed:
        yield say("lab.some_failed", lang, count=comparison.num_failed)
    if comparison.num_missing:
        yield say("lab.some_missing", lang, count=comparison.num_missing)
    pairs = len(comparison.arms) - 1
    if comparison.num_seeds > 1 and pairs == 1:
        yield say("lab.how_interval", lang)
    elif comparison.num_seeds > 1 and pairs > 1:
        yield say("lab.how_intervals", lang, count=pairs, level=f"{(1 - (1 - LEVEL) / pairs) * 100:.4g}")


def _conclusion(comparison: Comparison, lang: Lang) -> Iterator[str]:
    assert comparison.lowest is not None
    arms, lowest = comparison.arms, comparison.arms[comparison.lowest]
    if sum(arm.is_whole for arm in arms) < 2:
        yield say("lab.nothing_judged", lang)
        return
    if left_out := ", ".join(arm.name for arm in arms if not arm.is_whole):
        yield say("lab.not_judged", lang, arms=left_out)
    if comparison.num_seeds == 1:
        equal = sum(arm.is_whole and arm.mean == lowest.mean for arm in arms) > 1
        yield say("lab.one_seed_equal" if equal else "lab.one_seed", lang, arm=lowest.name)
    elif not comparison.contenders:
        yield say("lab.lowest_alone", lang, arm=lowest.name, seeds=comparison.num_seeds)
    else:
        names = ", ".join(arms[index].name for index in comparison.contenders)
        everyone = len(comparison.contenders) == sum(arm.is_whole for arm in arms) - 1
        key = "lab.none_separated" if everyone else "lab.lowest_not_alone"
        yield say(key, lang, arm=lowest.name, others=names, seeds=comparison.num_seeds)


def _spread_of_seeds(comparison: Comparison, lang: Lang) -> Iterator[str]:
    losses = [loss for arm in comparison.arms for loss in arm.losses.values()]
    if len(losses) > 1:
        mean, half_width = mean_interval(losses)
        yield say("lab.seed_spread", lang, count=len(losses), mean=mean, half=half_width, deviation=stdev(losses),
                  low=min(losses), high=max(losses))  # fmt: skip


def failures(design: Design, outcomes: Mapping[int, Outcome], lang: Lang) -> Iterator[str]:
    """A line for each trial that did not succeed."""
    for trial in design.trials:
        outcome = outcomes.get(trial.number)
        if outcome is not None and not outcome.succeeded and outcome.status != "interrupted":
            yield say("lab.failure", lang, number=trial.number, arm=design.arms[trial.arm].name, seed=trial.seed,
                      why=why_failed(outcome, lang))  # fmt: skip


def why_failed(outcome: Outcome, lang: Lang) -> str:
    """Why a trial did not succeed."""
    if outcome.error is not None:
        return outcome.error[lang]
    return say("lab.not_finite", lang, before=outcome.held_out_before, after=outcome.held_out_after)


def as_dict(design: Design, comparison: Comparison, outcomes: Mapping[int, Outcome]) -> dict[str, Any]:
    """The whole result, for ``--json``."""
    return {
        "base": comparison.base,
        "held_out": comparison.held_out,
        "comparable": comparison.comparable,
        "lowest": comparison.lowest,
        "not_separated_from_lowest": list(comparison.contenders),
        "not_judged": [index for index, arm in enumerate(comparison.arms) if not arm.is_whole],
        "arms": [_arm_dict(arm) for arm in comparison.arms],
        "trials": [
            {"number": trial.number, "arm": trial.arm, "seed": trial.seed,
             "outcome": encode_outcome(outcomes[trial.number]) if trial.number in outcomes else None}
            for trial in design.trials
        ],
    }  # fmt: skip


def _arm_dict(arm: ArmResult) -> dict[str, Any]:
    facts = {name: getattr(arm, name) for name in arm.__dataclass_fields__}
    difference = arm.difference
    facts["losses"] = {str(seed): loss for seed, loss in arm.losses.items()}
    facts["difference"] = (
        None if difference is None else {name: getattr(difference, name) for name in difference.__dataclass_fields__}
    )
    return facts
