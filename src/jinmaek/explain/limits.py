"""Why a run does not improve, in words: the most limiting thing, its numbers, what follows, what to measure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

from jinmaek.core.limits import Limiting, Limits
from jinmaek.core.text import Lang, say
from jinmaek.explain.evidence import placeholders
from jinmaek.explain.verdict_words import number, percent

_HEADLINES: Mapping[Limiting, str] = {
    "broken": "limits.is_broken",
    "skipped": "limits.is_skipped",
    "no_updates": "limits.is_no_updates",
    "clipped": "limits.is_clipped",
    "overfitting": "limits.is_overfitting",
    "low_lr": "limits.is_low_lr",
    "gradient_noise": "limits.is_gradient_noise",
    "capacity": "limits.is_capacity",
    "improving": "limits.is_improving",
    "settled": "limits.is_settled",
    "log_too_noisy": "limits.is_log_too_noisy",
    "too_short": "limits.is_too_short",
}
_ADVICE: Mapping[Limiting, str] = {
    "skipped": "limits.do_skipped",
    "no_updates": "limits.do_no_updates",
    "clipped": "limits.do_clipped",
    "overfitting": "limits.do_overfitting",
    "low_lr": "limits.do_low_lr",
    "gradient_noise": "limits.do_gradient_noise",
    "capacity": "limits.do_capacity",
    "improving": "limits.do_improving",
    "log_too_noisy": "limits.do_log_too_noisy",
}
_NEEDS: Mapping[str, str] = {
    "held_out": "limits.need_held_out",
    "held_out_examples": "limits.need_held_out_examples",
    "noise_scale": "limits.need_noise_scale",
    "update_ratio": "limits.need_update_ratio",
    "epochs": "limits.need_epochs",
    "every_step": "limits.need_every_step",
}
# A sentence is told if all of its numbers are known: the first that say something.
_NUMBERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("change", ("limits.change",)),
    ("detectable", ("limits.detectable_windows", "limits.detectable")),
    ("held_out_change", ("limits.held_out_change",)),
    ("noise_scale", ("limits.noise_scale",)),
    ("noise_cost", ("limits.noise_cost",)),
    ("slowing", ("limits.slowing",)),
    ("held_out", ("limits.held_out",)),
    ("prompt_loss", ("limits.prompt",)),
    ("skipped_share", ("limits.skipped",)),
    ("clipped_share", ("limits.clipped",)),
    ("update_ratio", ("limits.update",)),
    ("epochs", ("limits.epochs",)),
)
_SIGNED = ("change", "change_low", "change_high", "held_out_change", "held_out_change_low", "held_out_change_high")
_ROUGH = ("noise", "detectable", "update", "clip", "batch", "epochs")  # two digits say all
_WORTH = 0.01  # nats: the improvement whose cost in steps is told
MOST_NUMBERS = 4  # in a short telling
MOST_NEEDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ToldLimits:
    """The answer in one language.

    Attributes:
        limiting: the most limiting thing.
        lang: the language of every sentence.
        label: what is asked.
        headline: the most limiting thing in a sentence.
        numbers: a sentence each, the telling ones first.
        advice: what follows; ``None`` where the finding above says it, or nothing does.
        missing: what to measure to know more; empty where the answer does not hang on it.
    """

    limiting: Limiting
    lang: Lang
    label: str
    headline: str
    numbers: tuple[str, ...]
    advice: str | None
    missing: str | None


def tell_limits(limits: Limits, lang: Lang) -> ToldLimits:
    """``limits`` in ``lang``."""
    words = _words(limits.facts)
    improving = limits.limiting == "improving"
    key = _ADVICE.get(limits.limiting)
    if key == "limits.do_gradient_noise" and "batch_factor" not in words:
        key = "limits.do_gradient_noise_unbounded"
    if key == "limits.do_log_too_noisy" and "steps_needed" not in words:
        key = None
    headline = _HEADLINES[limits.limiting]
    if improving and (variant := _of_training_only(limits.facts)):
        headline, key = variant
    if headline == "limits.is_overfitting" and "held_out_best" not in words:
        headline = "limits.is_memorising"
    missing = "; ".join(say(_NEEDS[name], lang) for name in limits.missing[:MOST_NEEDS])
    return ToldLimits(
        limiting=limits.limiting,
        lang=lang,
        label=say("limits.label_improving" if improving else "limits.label", lang),
        headline=_filled(headline, words, lang),
        numbers=tuple(_numbers(limits, words, lang)),
        advice=_filled(key, words, lang) if key is not None else None,
        missing=missing or None,
    )


def _of_training_only(facts: Mapping[str, Any]) -> tuple[str, str] | None:
    """Where only the training loss falls: rows seen again may be learnt by heart, and held-out losses outweigh it."""
    if (facts.get("held_out_change_low") or 0) > 0:
        return "limits.is_held_out_rises", "limits.do_held_out_rises"
    repeated = facts.get("epochs") is None or facts["epochs"] > 1
    if repeated and not (facts.get("held_out_change_high") or 0) < 0:
        return "limits.is_training_falls", "limits.do_training_falls"
    return None


def _numbers(limits: Limits, words: Mapping[str, str], lang: Lang) -> Iterator[str]:
    facts = limits.facts
    told = {name for name in words if name not in ("skipped_share", "clipped_share") or facts[name]}
    if limits.limiting == "broken":
        told &= {"change", "detectable"}  # of the time before the fault
    for name, (key, *others) in _NUMBERS:
        if name not in told:
            continue
        if name == "detectable" and limits.limiting in ("log_too_noisy", "settled"):
            continue  # the headline said it
        if name == "held_out" and limits.limiting == "overfitting":
            continue
        plain = name == "detectable" and facts.get("window_steps") in (None, 1)
        yield _filled(others[0] if plain and others else key, words, lang)


def _words(facts: Mapping[str, Any]) -> dict[str, str]:
    """The numbers as they are printed, with those that follow from them."""
    words = {name: _number(name, value) for name, value in facts.items() if isinstance(value, int | float)}
    for name, share in (("skipped", "skipped_share"), ("clipped", "clipped_share"), ("slowing", "slowing")):
        if share in facts:
            words[name] = percent(float(f"{facts[share]:.2g}"))
    detectable, level = facts.get("detectable"), facts.get("level")
    if detectable is not None and level:
        words["detectable_share"] = percent(float(f"{detectable / level:.2g}"))
        span = facts["last_step"] - facts["first_step"] + 1
        words["worth"] = number(_WORTH)
        # The error of a change over n steps falls like 1/√n.
        words["steps_needed"] = number(round(float(f"{span * (detectable / _WORTH) ** 2:.2g}")))
    scale, batch = facts.get("noise_scale"), facts.get("batch_tokens")
    if scale is not None and batch:
        low, high = (facts.get(f"noise_scale_{end}") or 0.0 for end in ("high", "low"))
        least, most = (1 / (1 + each / batch) for each in (low, high))
        words["progress"] = f"{percent(float(f'{least:.2g}'))}–{percent(float(f'{most:.2g}'))}"
        if isfinite(scale) and scale > batch:
            words["batch_factor"] = number(round(float(f"{scale / batch:.2g}")))
    if facts.get("noise_cost"):
        words["lr_factor"] = number(float(f"{_WORTH / facts['noise_cost']:.2g}"))
    return words


def _number(name: str, value: float) -> str:
    if name in ("window_steps", "first_step", "last_step", "held_out_since"):
        return str(int(value))
    if not isfinite(value):
        return "∞"
    short = float(f"{value:.2g}") if name.startswith(_ROUGH) else value
    text = number(float(f"{short:.4g}"))
    return f"+{text}" if name in _SIGNED and value > 0 else text.replace("-", "−")


def _filled(key: str, words: Mapping[str, str], lang: Lang) -> str:
    """The message; a number that it lacks is a question mark, no failure."""
    return say(key, lang, **{name: words.get(name, "?") for name in placeholders(key)})
