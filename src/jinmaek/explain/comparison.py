"""From a comparison to sentences. The runs are called A, B, C …; every difference is the other minus A."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from string import ascii_uppercase
from typing import Any

from jinmaek.core.comparison import (
    Basis,
    ComparedRun,
    Comparison,
    Equivalence,
    Fact,
    LrCause,
    Outcome,
    Pair,
)
from jinmaek.core.text import Lang, say
from jinmaek.explain.comparison_split import tell_split
from jinmaek.explain.comparison_words import differs, fact_name, interval_words, is_recorded, size
from jinmaek.explain.limits import ToldLimits, tell_limits
from jinmaek.explain.telling import title
from jinmaek.explain.verdict_words import listed, number, printable

_BASES: Mapping[Basis, str] = {"held_out": "compare.basis_held_out", "train": "compare.basis_train"}
_EQUIVALENCES: Mapping[Equivalence, str] = {
    "equivalent": "compare.equivalent",
    "different": "compare.different",
    "not_enough": "compare.not_enough",
}
_LR_CAUSES: Mapping[LrCause, str] = {
    "schedule_steps": "compare.lr_schedule_steps",
    "peak_lr": "compare.lr_peak_lr",
    "schedule": "compare.lr_schedule",
}
_RELATED = 0.5  # correlation worth a word


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldPair:
    """One run held against the first.

    Attributes:
        other: its letter.
        outcome: the pair's, and
        equivalence: the answer to --equivalent, if it was asked.
        headline: the answer in a sentence, and
        check: that of --equivalent.
        same: what both have in common, in a line; empty where nothing is known.
        differs: a line for each difference.
        unknown: what could not be compared, in a line.
        parting: where the trajectories part and why.
        losses: how far the losses lie apart.
        caution: what the answer does not cover.
    """

    other: str
    outcome: Outcome
    equivalence: Equivalence | None
    headline: str
    check: str | None
    same: str
    differs: tuple[str, ...]
    unknown: str
    parting: tuple[str, ...]
    losses: tuple[str, ...]
    caution: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldComparison:
    """What the reports print.

    ``runs``: a line each; ``limits``: for each run why it does not improve, with its letter; ``notes``: what holds for
    all pairs.
    """

    lang: Lang
    runs: tuple[str, ...]
    pairs: tuple[ToldPair, ...]
    notes: tuple[str, ...]
    limits: tuple[tuple[str, ToldLimits], ...]


def tell_comparison(comparison: Comparison, lang: Lang) -> ToldComparison:
    """``comparison`` in ``lang``."""
    limits = [(letter(place), run.limits) for place, run in enumerate(comparison.runs)]
    return ToldComparison(
        lang=lang,
        runs=tuple(_run(place, run, lang) for place, run in enumerate(comparison.runs)),
        pairs=tuple(_pair(pair, comparison, lang) for pair in comparison.pairs),
        notes=tuple(_notes(comparison, lang)),
        limits=tuple((name, tell_limits(each, lang)) for name, each in limits if each is not None),
    )


def letter(place: int) -> str:
    """What the run at ``place`` is called: A … Z, then A1 …"""
    round_number, at = divmod(place, len(ascii_uppercase))
    return ascii_uppercase[at] + (str(round_number) if round_number else "")


def _run(place: int, run: ComparedRun, lang: Lang) -> str:
    titles = [title(cause, lang) for cause in run.causes]
    if run.verdict == "faulty" and run.confidence == "possible":
        health = say("compare.perhaps", lang, titles=say("told.or", lang).join(titles))
    else:
        health = {
            "healthy": say("compare.healthy", lang),
            "faulty": say("compare.faulty", lang, titles=listed(titles)),
            "undetermined": say("compare.undetermined", lang),
        }[run.verdict]
    return say(
        "compare.run",
        lang,
        letter=letter(place),
        name=printable(run.source),
        format=run.format,
        first_step=run.first_step,
        last_step=run.last_step,
        health=health,
    )


def _pair(pair: Pair, comparison: Comparison, lang: Lang) -> ToldPair:
    names = {"first": letter(0), "other": letter(pair.other)}
    paths = {
        "first_path": printable(comparison.runs[0].source),
        "other_path": printable(comparison.runs[pair.other].source),
    }
    alone = comparison.floor is None and pair.outcome == "separated"
    recorded = comparison.runs[pair.other].format == "jinmaek"
    margin = number(comparison.margin) if comparison.margin is not None else ""
    return ToldPair(
        other=names["other"],
        outcome=pair.outcome,
        equivalence=pair.equivalence,
        headline=_headline(pair, comparison, names, lang),
        check=say(_EQUIVALENCES[pair.equivalence], lang, margin=margin) if pair.equivalence is not None else None,
        same=", ".join(_same(pair, lang)),
        differs=tuple(_differs(pair, names, lang)),
        unknown=_unknown(pair, lang),
        parting=tuple(tell_split(pair, names, paths, lang)),
        losses=tuple(_losses(pair, lang)),
        caution=say("compare.one_seed", lang) if alone and recorded else None,
    )


def _headline(pair: Pair, comparison: Comparison, names: Mapping[str, str], lang: Lang) -> str:
    if pair.outcome == "identical":
        return say("compare.identical", lang, num=number(pair.num_common), **names)
    if pair.decided is None or pair.basis is None:
        return say("compare.no_interval", lang, num=number(pair.num_common), **names)
    words = {**names, **interval_words(pair.decided), "what": say(_BASES[pair.basis], lang)}
    if pair.outcome == "within_seeds" and comparison.floor is not None:
        return say("compare.within_seeds", lang, **words, reach=size(comparison.floor.reach))
    if pair.outcome == "not_separated":
        return say("compare.not_separated", lang, **words)
    return say("compare.lower" if pair.decided.value < 0 else "compare.higher", lang, **words)


def _same(pair: Pair, lang: Lang) -> Iterator[str]:
    if pair.order_differs_at is None and is_recorded(pair, "order") and not differs(pair, "data"):
        yield say("compare.fact_examples", lang)
    if pair.lr is None and pair.lr_recorded:
        yield say("compare.fact_lr", lang)
    yield from (fact_name(fact.name, lang) for fact in pair.facts if fact.state == "same" and fact.name != "order")


def _differs(pair: Pair, names: Mapping[str, str], lang: Lang) -> Iterator[str]:
    if pair.lr is not None:
        lr = pair.lr
        steps = {"first_step": lr.first_step, "last_step": lr.last_step}
        sentences = [say("compare.lr", lang, **steps, ratio=size(lr.last_ratio), **names)]
        if lr.cause is not None:
            values = {"first_value": _value(lr.first_value), "other_value": _value(lr.other_value)}
            sentences.append(say(_LR_CAUSES[lr.cause], lang, **{**names, **values}))
        yield " ".join(sentences)
    if pair.order_differs_at is not None:
        yield say("compare.order_from", lang, step=pair.order_differs_at)
    # Fingerprints of a longer order, and of what the settings above it change, say nothing new.
    hidden = {"order"} if pair.order_differs_at is not None or is_recorded(pair, "order") else set()
    if pair.lr is not None and pair.lr.cause is not None:
        hidden.add(pair.lr.cause)  # said above
    for fact in pair.facts:
        if fact.state == "differs" and fact.name not in hidden:
            yield _difference(fact, lang)


def _difference(fact: Fact, lang: Lang) -> str:
    absent = say("proof.absent", lang)
    first, other = (absent if value in (None, "", "None") else printable(value) for value in (fact.first, fact.other))
    return f"{fact_name(fact.name, lang)}: {first} → {other}"


def _value(value: Any) -> str:
    return number(value) if isinstance(value, int | float) else printable(value)


def _unknown(pair: Pair, lang: Lang) -> str:
    names = [fact_name(fact.name, lang) for fact in pair.facts if fact.state == "unknown"]
    return say("compare.not_recorded", lang, names=", ".join(names)) if names else ""


def _losses(pair: Pair, lang: Lang) -> Iterator[str]:
    if pair.largest is not None:
        key = "compare.common_steps" if pair.window_steps == 1 else "compare.common"
        yield say(
            "compare.common_records" if pair.by_record else key,
            lang,
            num=number(pair.num_common),
            width=pair.window_steps,
            first_step=pair.first_step,
            last_step=pair.last_step,
            largest=size(pair.largest),
            largest_step=pair.largest_step,
        )
    if pair.mean is not None:
        yield say("compare.mean", lang, **interval_words(pair.mean))
    if pair.late is not None:
        yield say("compare.late", lang, **interval_words(pair.late))
    if pair.correlation is not None and pair.correlation >= _RELATED and pair.largest:
        yield say("compare.correlation", lang, correlation=size(min(pair.correlation, 0.99)))
    held_out = pair.held_out
    if held_out is None:
        return
    losses = {"first_loss": number(held_out.first_loss), "other_loss": number(held_out.other_loss)}
    steps = {"first_step": held_out.first_step, "other_step": held_out.other_step}
    if not (isfinite(held_out.first_loss) and isfinite(held_out.other_loss)):
        yield say("compare.held_out_not_finite", lang, **losses, **steps)
    elif held_out.difference is None:
        yield say("compare.held_out_unpaired", lang, **losses, **steps)
    else:
        yield say("compare.held_out", lang, **losses, **steps, **interval_words(held_out.difference))


def _notes(comparison: Comparison, lang: Lang) -> Iterator[str]:
    floor = comparison.floor
    if floor is not None:
        yield say(
            "compare.floor",
            lang,
            what=say(_BASES[floor.basis], lang),
            deviation=size(floor.deviation),
            freedom=floor.freedom,
            reach=size(floor.reach),
        )
    if len(comparison.pairs) > 1 and comparison.pairs[0].decided is not None:
        level = f"{comparison.pairs[0].decided.level * 100:.4g}%"
        yield say("compare.many", lang, count=len(comparison.pairs), level=level)
