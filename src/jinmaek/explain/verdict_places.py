"""Where a step broke, how near the limit it had come, and whether the untouched replay is the recorded step."""

from __future__ import annotations

import math
from collections.abc import Iterator

from jinmaek.core.text import Lang, say
from jinmaek.core.verdict import Control, Headroom, Location
from jinmaek.explain.verdict_told import ToldHeadroom, ToldShare
from jinmaek.explain.verdict_words import capital, dtype_name, listed, module_name, number, percent, printable

MOST_SHARES = 6  # bars


def told_control(control: Control, lang: Lang) -> str:
    """Is the untouched replay the recorded step?"""
    return " ".join(_control(control, lang))


def _control(control: Control, lang: Lang) -> Iterator[str]:
    numbers = {"start_step": control.start_step, "num_steps": number(control.num_steps)}
    spread = None if control.spread is None else say("proof.spread", lang, spread=number(control.spread))
    if control.reproduced == "bit_exact":
        yield say("proof.exact" if control.start_step else "proof.exact_fresh", lang, **numbers)
    elif control.reproduced == "within_spread":
        yield say("proof.within", lang)
    else:
        yield say("proof.differs" if control.start_step else "proof.differs_fresh", lang, **numbers)
        if control.first_departure is not None:
            yield say("proof.departure", lang, first_departure=control.first_departure)
        repeats = {True: "proof.repeats", False: "proof.repeats_not", None: "proof.repeats_unknown"}
        yield say(repeats[control.repeats], lang)
    if spread is not None:
        yield spread


def told_location(location: Location | None, lang: Lang) -> tuple[str, ...]:
    """The first bad operation in a sentence, and its bare facts."""
    if location is None:
        return ()
    place = f"{capital(module_name(location.module, lang))}, {say(f'proof_phase.{location.phase}', lang)}"
    parts = [_value(location, lang)]
    if location.weight is not None:
        parts.append(say("proof.weight_not_finite", lang, weight=printable(location.weight)))
    if location.num_non_finite:
        counts = {"num_non_finite": number(location.num_non_finite), "num_values": number(location.num_values)}
        parts += [say("proof.not_finite_of", lang, **counts), *_first(location, lang)]
    return f"{place}: {' '.join(parts)}", _operation(location, lang)


def _value(location: Location, lang: Lang) -> str:
    true = location.true_absmax
    numbers = {"dtype": dtype_name(location.dtype), "limit": number(location.limit)}
    if true is None:
        return say("proof.no_reference", lang, **numbers)
    numbers["true_absmax"] = number(true)
    if not math.isfinite(true):
        return say("proof.true_not_finite", lang, **numbers)
    return say("proof.beyond" if true > location.limit else "proof.fits", lang, **numbers)


def _first(location: Location, lang: Lang) -> Iterator[str]:
    """Example and token of the first value that is not finite, as far as they are known."""
    example = None if location.example_id is None else printable(location.example_id)
    token = None
    if location.position is not None:
        shown = "" if location.token is None else f" ('{printable(location.token)}')"
        token = f"{location.position}{shown}"
    if example is not None and token is not None:
        yield say("proof.first_in", lang, example=example, token=token)
    elif example is not None:
        yield say("proof.first_in_example", lang, example=example)
    elif token is not None:
        yield say("proof.first_at", lang, token=token)


def _operation(location: Location, lang: Lang) -> str:
    parts = [say("proof.operation", lang, op=printable(location.op))]
    if location.module:
        parts.append(say("proof.of_module", lang, module=printable(location.module)))
    if location.input_absmax:
        parts.append(say("proof.inputs", lang, inputs=listed(map(number, location.input_absmax))))
    if location.output_absmax is not None:
        parts.append(say("proof.output", lang, output=number(location.output_absmax)))
    return " · ".join(parts)


def told_headroom(headroom: Headroom | None, lang: Lang) -> ToldHeadroom | None:
    """How near the limit the steps before came; nothing where none was measured."""
    if headroom is None or not headroom.shares:
        return None
    steps = sorted(headroom.shares)
    first, last = steps[0], steps[-1]
    sentence = say(
        "proof.share" if first == last else "proof.shares",
        lang,
        module=capital(module_name(headroom.module, lang)),
        limit=number(headroom.limit),
        first=first,
        last=last,
        first_share=percent(headroom.shares[first]),
        last_share=percent(headroom.shares[last]),
    )
    pace = None if first == last else _pace(headroom.steps_left, headroom.shares[last], lang)
    shares = tuple(_share(step, headroom.shares[step]) for step in _thinned(steps))
    return ToldHeadroom(sentence=sentence if pace is None else f"{sentence} {pace}", shares=shares)


def _pace(steps_left: float | None, last_share: float, lang: Lang) -> str | None:
    if not last_share < 1:
        return None
    if steps_left is None:
        return say("proof.no_rise", lang)
    if not math.isfinite(steps_left) or steps_left < 0:
        return None
    rounded = round(steps_left)
    return say("proof.steps_left", lang, steps_left=number(rounded)) if rounded > 1 else say("proof.step_left", lang)


def _share(step: int, share: float) -> ToldShare:
    return ToldShare(step=step, share=share, text=percent(share))


def _thinned(steps: list[int]) -> list[int]:
    """First, last and some between."""
    if len(steps) <= MOST_SHARES:
        return steps
    return [steps[round(place * (len(steps) - 1) / (MOST_SHARES - 1))] for place in range(MOST_SHARES)]
