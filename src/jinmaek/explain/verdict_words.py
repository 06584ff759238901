"""The parts of a verdict's sentences: numbers, modules, trials, and facts that may be absent."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from jinmaek.core.text import Lang, catalogue, say
from jinmaek.explain.evidence import placeholders

MOST_ITEMS = 6  # of a list in a sentence

_NOT_FINITE = {"nan": "NaN", "infinity": "inf", "inf": "inf", "-infinity": "-inf", "-inf": "-inf"}
_DTYPES = {"float16": "fp16", "bfloat16": "bf16", "float32": "fp32", "float64": "fp64"}
_PLAIN = ("step", "first_departure", "bit", "example", "examples")  # numbers that are names: no thousands separators


def number(value: Any) -> str:
    """A count or a measured number: 4 digits, thousands apart, scientific where very small or very large."""
    if isinstance(value, str):
        return _NOT_FINITE.get(value.lower(), printable(value))
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "inf" if value > 0 else "-inf"
    size = abs(value)
    if size >= 1e7 or 0 < size < 1e-3:
        digits, _, exponent = f"{value:.3e}".partition("e")
        return f"{digits.rstrip('0').rstrip('.')}e{exponent}"
    if value == int(value):
        return f"{int(value):,}"
    if size >= 1000:
        return f"{round(value, 3 - math.floor(math.log10(size))):,.0f}"
    return f"{value:.4g}"


def percent(share: float) -> str:
    """A share of a limit; one that stays below it is never rounded up to it."""
    if not math.isfinite(share):
        return number(share)
    text = f"{number(float(f'{share * 100:.3g}'))}%"
    return "99.9%" if text == "100%" and share < 1 else text


def printable(text: Any) -> str:
    """``text`` on one line: what a terminal would obey or not show is spelt out."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in str(text))


def dtype_name(dtype: str) -> str:
    """``fp16`` for ``torch.float16``."""
    short = dtype.removeprefix("torch.")
    return _DTYPES.get(short, short)


def module_name(module: str, lang: Lang) -> str:
    """``layer 17, attention.dense`` for ``gpt_neox.layers.17.attention.dense``; other modules keep their name."""
    if not module:
        return say("proof.whole_model", lang)
    found = re.fullmatch(r"(?:.*?\.)??(\d+)(?:\.(.+))?", module)
    if found is None:
        return printable(module)
    if found[2] is None:
        return say("proof.layer", lang, number=found[1])
    return say("proof.layer_part", lang, number=found[1], part=printable(found[2]))


def arm_name(arm: str, facts: Mapping[str, Any], lang: Lang) -> str:
    """What a trial changed, in a few words; an arm that nobody has named keeps its id."""
    known = said_facts(facts, lang)
    fresh = (f"{arm}_fresh",) if facts.get("start_step") == 0 else ()
    for key in (*fresh, f"{arm}_with", arm):
        if f"proof_arm.{key}" in catalogue():
            used = placeholders(f"proof_arm.{key}")
            if used <= set(known):
                return say(f"proof_arm.{key}", lang, **known)
    return arm


def said_facts(facts: Mapping[str, Any], lang: Lang) -> dict[str, str]:
    """The facts in words; those that are absent, empty or flags are left out."""
    said = {name: _said(name, value, lang) for name, value in facts.items() if not isinstance(value, bool)}
    return {name: text for name, text in said.items() if text}


def flags(facts: Mapping[str, Any]) -> set[str]:
    """``NAME_true`` or ``NAME_false`` for each fact that is a yes or a no."""
    return {f"{name}_{str(value).lower()}" for name, value in facts.items() if isinstance(value, bool)}


def _said(name: str, value: Any, lang: Lang) -> str:
    if value is None or value in ("", [], (), {}):
        return ""
    if isinstance(value, list | tuple | set | frozenset):
        return listed([_said(name, item, lang) for item in value])
    worded = _worded(name, str(value), lang)
    if worded is not None:
        return worded
    if isinstance(value, str) and value.lower() not in _NOT_FINITE:
        return printable(value)
    if name.endswith(_PLAIN) and isinstance(value, int):
        return str(value)
    if name == "factor" and isinstance(value, int | float) and 0 < value < 1:
        return number(float(f"{1 / value:.4g}"))  # of an lr that was lowered: to a tenth, whether said as 0.1 or 10
    return number(value) if isinstance(value, int | float | str) else printable(value)


def _worded(name: str, value: str, lang: Lang) -> str | None:
    """The fact in words of its own, if there are any for its name."""
    if name == "module":
        return module_name(value, lang)
    if name == "dtype":
        return dtype_name(value)
    if name in ("healed_by", "changes"):
        return arm_name(value, {}, lang)
    key = {
        "names": f"proof_difference.{value}",
        "phase": f"proof_phase.{value}",
        "lost": f"proof_lost.{value}",
        "earlier_outcome": f"proof_outcome.{value}",
    }.get(name)
    return say(key, lang) if key is not None and key in catalogue() else None


def listed(items: Iterable[str]) -> str:
    """The items in a row; a long list is cut."""
    items = list(dict.fromkeys(item for item in items if item))
    if len(items) > MOST_ITEMS:
        items = [*items[: MOST_ITEMS - 1], f"… (+{len(items) - MOST_ITEMS + 1})"]
    return ", ".join(items)


@cache
def seen_keys(cause: str) -> Mapping[str, str]:
    """Fact or flag -> key of the sentence about it, in the order of the catalogue."""
    prefix = f"proof_cause.{cause}_seen_"
    return {key.removeprefix(prefix): key for key in catalogue() if key.startswith(prefix)}


def seen(cause: str, facts: Mapping[str, Any], told: frozenset[str], lang: Lang) -> tuple[str, ...]:
    """The sentences that ``facts`` fill and that say something beyond what was ``told`` already."""
    known, yes_or_no = said_facts(facts, lang), flags(facts)
    done = set(told)
    sentences = []
    for name, key in seen_keys(cause).items():
        used = placeholders(key)
        news = name in yes_or_no if not used else used <= set(known) and not used <= done
        if news:
            done |= used
            sentences.append(say(key, lang, **known))
    return tuple(sentences)


def capital(text: str) -> str:
    """``text`` with its first letter large."""
    return text[:1].upper() + text[1:]
