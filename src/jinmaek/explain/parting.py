"""From where two runs part to sentences. Nothing is claimed that the parting does not say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from jinmaek.core.parting import (
    Explanation,
    ExplanationOutcome,
    ExplanationReason,
    Parting,
    PartingOutcome,
    Place,
    PlaceKind,
    Replay,
)
from jinmaek.core.text import Lang, catalogue, say
from jinmaek.core.verdict import Difference
from jinmaek.explain.verdict_words import listed, module_name, number, printable

_ABSENT = ("", "None")  # what a difference calls a thing that is not there

_HEADLINES: Mapping[PartingOutcome, str] = {
    "ALIKE": "parting.alike",
    "EXPLAINED": "parting.explained",
    "PARTED": "parting.parted",
    "NOT_REPRODUCED": "parting.not_reproduced",
}
_KINDS: Mapping[PlaceKind, str] = {
    "input": "parting.what_input",
    "forward": "parting.what_forward",
    "loss": "parting.what_loss",
    "loss_scale": "parting.what_loss_scale",
    "gradient": "parting.what_gradient",
    "lr": "parting.what_lr",
    "update": "parting.what_update",
}
_REASONS: Mapping[ExplanationReason, str] = {
    "parts": "parting.reason_parts",
    "no_effect": "parting.reason_no_effect",
    "no_part_of_a_step": "parting.reason_no_part_of_a_step",
    "not_here": "parting.reason_not_here",
    "content": "parting.reason_content",
    "recipe": "parting.reason_recipe",
    "cannot_load": "parting.reason_cannot_load",
    "out_of_memory": "parting.reason_out_of_memory",
    "state_does_not_fit": "parting.reason_state_does_not_fit",
    "too_far": "parting.reason_too_far",
    "budget": "parting.reason_budget",
    "not_replayed": "parting.reason_not_replayed",
}
_WHY_NOT_RUN: Mapping[ExplanationReason, str] = {
    "cannot_load": "parting.cannot_load",
    "out_of_memory": "parting.out_of_memory",
    "too_far": "parting.too_far",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldExplanation:
    """One difference and what became of it: ``name`` and ``sentence`` in words."""

    name: str
    outcome: ExplanationOutcome
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldParting:
    """What the reports print of two runs held against each other.

    Attributes:
        run, against: the two.
        lang: the language of every sentence.
        outcome: the parting's.
        headline: the answer in one sentence.
        summary: what is left to think of, where nothing explains it; else ``None``.
        where: the first tensor that differs, by how much, and when it shows; empty where it is not known.
        replays: how the untouched replays went; empty where the runs are alike.
        differences: what differs in the two manifests.
        tried: each difference and what became of it, those first that explain.
        effort: device and time, in a line.
    """

    run: str
    against: str
    lang: Lang
    outcome: PartingOutcome
    headline: str
    summary: str | None
    where: tuple[str, ...]
    replays: tuple[str, ...]
    differences: tuple[str, ...]
    tried: tuple[ToldExplanation, ...]
    effort: str


def tell_parting(parting: Parting, lang: Lang) -> ToldParting:
    """The parting in ``lang``."""
    tried = sorted(parting.explained_by, key=lambda each: each.outcome != "explains")
    return ToldParting(
        run=printable(parting.run),
        against=printable(parting.against),
        lang=lang,
        outcome=parting.outcome,
        headline=_headline(parting, lang),
        summary=_summary(parting, lang),
        where=tuple(_where(parting, parting.place, lang)) if parting.place is not None else (),
        replays=tuple(_replays(parting.replays, lang)),
        differences=tuple(_difference(difference, lang) for difference in parting.differences),
        tried=tuple(_told(each, parting, lang) for each in tried),
        effort=_effort(parting, lang),
    )


def _headline(parting: Parting, lang: Lang) -> str:
    names = listed(_named(each, lang) for each in parting.explanations())
    departed = listed(printable(replay.path) for replay in parting.replays if replay.reproduced == "no")
    return say(
        _HEADLINES[parting.outcome],
        lang,
        first_step=parting.first_step,
        num_common_steps=number(parting.num_common_steps),
        names=names,
        paths=departed,
    )


def _summary(parting: Parting, lang: Lang) -> str | None:
    if parting.outcome in ("ALIKE", "EXPLAINED"):
        return None
    if not parting.differences:
        return say("parting.identical_manifests", lang)
    if parting.outcome == "NOT_REPRODUCED":
        return None
    open_ones = listed(_named(each, lang) for each in parting.explained_by if each.outcome == "not_tested")
    return say("parting.remains", lang, names=open_ones) if open_ones else None


def _where(parting: Parting, place: Place, lang: Lang) -> Iterator[str]:
    what = say(_KINDS[place.kind], lang, name=_place_name(place, lang))
    numbers = {"number": number(place.number), "count": number(place.count)}
    if place.microbatch is None:
        yield say("parting.where", lang, step=place.step, what=what, **numbers)
    else:
        yield say("parting.where_microbatch", lang, step=place.step, microbatch=place.microbatch, what=what, **numbers)
    sentences = list(_how_much(parting, place, lang))
    if parting.first_step is not None and place.step < parting.first_step:
        sentences.append(say("parting.shows_at", lang, first_step=parting.first_step))
    if sentences:
        yield " ".join(sentences)


def _place_name(place: Place, lang: Lang) -> str:
    return printable(place.name) if place.kind == "input" else module_name(place.name, lang)


def _how_much(parting: Parting, place: Place, lang: Lang) -> Iterator[str]:
    if place.only_in is not None:
        yield say("parting.only_in", lang, path=printable(parting.run if place.only_in == "run" else parting.against))
    elif place.run_shape != place.against_shape:
        yield say("parting.shapes", lang, run_shape=_shape(place.run_shape), against_shape=_shape(place.against_shape))
    elif place.run_value is not None and place.against_value is not None:
        one, other = _apart(place.run_value, place.against_value)
        yield say("parting.values", lang, run_value=one, against_value=other)
    elif parting.max_difference is not None and place.num_different is not None and place.num_values is not None:
        yield say(
            "parting.largest",
            lang,
            max_difference=number(parting.max_difference),
            num_different=number(place.num_different),
            num_values=number(place.num_values),
        )


def _apart(one: float, other: float) -> tuple[str, str]:
    """Both numbers, with all their digits where fewer do not tell them apart."""
    short = number(one), number(other)
    return short if short[0] != short[1] else (repr(one), repr(other))


def _shape(shape: tuple[int, ...] | None) -> str:
    return " × ".join(map(str, shape)) if shape else "–"


def _replays(replays: Iterable[Replay], lang: Lang) -> Iterator[str]:
    replays = list(replays)
    if replays and all(replay.reproduced == "bit_exact" for replay in replays):
        yield say("parting.both_exact", lang)
        return
    for replay in replays:
        yield " ".join(_replay(replay, lang))


def _replay(replay: Replay, lang: Lang) -> Iterator[str]:
    path = printable(replay.path)
    if replay.reproduced == "bit_exact":
        yield say("parting.exact", lang, path=path)
        return
    if replay.reproduced == "not_run":
        key = _WHY_NOT_RUN.get(replay.reason or "cannot_load", "parting.cannot_load")
        reason = say(key, lang, said=_said(replay.said, lang))
        yield say("parting.not_run", lang, path=path, reason=reason)
        return
    steps = {"start_step": replay.start_step, "first_departure": replay.first_departure}
    yield say("parting.departs" if replay.start_step else "parting.departs_fresh", lang, path=path, **steps)
    if replay.repeats is not None:
        yield say("parting.repeats" if replay.repeats else "parting.repeats_not", lang)
    if replay.environment:
        names = listed(_name(difference.name, lang) for difference in replay.environment)
        yield say("parting.environment", lang, names=names)
    elif replay.changed_groups and replay.repeats:
        yield say("parting.outside", lang, groups=listed(map(printable, replay.changed_groups)))


def _told(explanation: Explanation, parting: Parting, lang: Lang) -> ToldExplanation:
    key = "parting.explains" if explanation.reason is None else _REASONS[explanation.reason]
    step, said = explanation.step, _said(explanation.said, lang)
    return ToldExplanation(
        name=_named(explanation, lang),
        outcome=explanation.outcome,
        sentence=say(key, lang, first_step=parting.first_step, step=step, said=said),
    )


def _said(said: Mapping[str, str], lang: Lang) -> str:
    """An error of several lines in one; its own full stop would stand before a bracket."""
    return printable(" ".join(said.get(lang, "").split())).removesuffix(".")


def _named(explanation: Explanation, lang: Lang) -> str:
    if explanation.parts:
        return say("parting.together", lang, names=" + ".join(_name(part, lang) for part in explanation.parts))
    return _name(explanation.name, lang)


def _name(name: str, lang: Lang) -> str:
    key = f"proof_difference.{name}"
    return say(key, lang) if key in catalogue() else printable(name)


def _difference(difference: Difference, lang: Lang) -> str:
    absent = say("proof.absent", lang)
    then, now = (absent if value in _ABSENT else printable(value) for value in (difference.recorded, difference.now))
    return say("parting.difference", lang, name=_name(difference.name, lang), recorded=then, now=now)


def _effort(parting: Parting, lang: Lang) -> str:
    took = say("parting.took", lang, seconds=f"{parting.seconds:.1f}") if parting.seconds else ""
    return " · ".join(part for part in (printable(parting.device), took) if part)
