"""Numbers and names in the sentences about a comparison."""

from __future__ import annotations

from jinmaek.core.comparison import Interval, Pair
from jinmaek.core.text import Lang, catalogue, say
from jinmaek.explain.verdict_words import number, printable

_FACTS = {
    "kernels": "compare.fact_kernels",
    "versions": "compare.fact_versions",
    "device": "compare.fact_device",
    "peak_lr": "compare.fact_peak_lr",
}


def interval_words(interval: Interval) -> dict[str, str]:
    """Its ends with their signs, what it rests on and what it would have shown."""
    return {
        "value": signed(interval.value),
        "low": signed(interval.low),
        "high": signed(interval.high),
        "detectable": size(interval.detectable),
        "num": number(interval.num),
    }


def signed(value: float) -> str:
    """To three digits, with its sign."""
    text = number(float(f"{value:.3g}"))
    return text.replace("-", "−", 1) if value < 0 else f"+{text}" if value > 0 else text


def size(value: float) -> str:
    """To two digits."""
    return number(float(f"{value:.2g}"))


def fact_name(name: str, lang: Lang) -> str:
    """What people call a fact; a setting keeps its key."""
    if name in _FACTS:
        return say(_FACTS[name], lang)
    key = f"proof_difference.{name}"
    return say(key, lang) if key in catalogue() else printable(name)


def differs(pair: Pair, name: str) -> bool:
    """Whether they say other things of it."""
    return any(fact.name == name and fact.state == "differs" for fact in pair.facts)


def is_recorded(pair: Pair, name: str) -> bool:
    """Whether both runs say it."""
    return any(fact.name == name and fact.state != "unknown" for fact in pair.facts)
