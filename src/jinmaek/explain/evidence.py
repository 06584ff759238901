"""The numbers of a finding as sentences: which ones are told, in which order, and how a list looks."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from string import Formatter
from typing import Any

from jinmaek.core.text import Lang, catalogue, say

MOST_ITEMS = 8  # of a list; more do not help at 2 a.m.


class Shown:
    """A value that never refuses the format of a sentence: a word where a number was expected is printed as it is."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __format__(self, spec: str) -> str:
        if isinstance(self.value, float) and not math.isfinite(self.value):
            return "NaN" if math.isnan(self.value) else f"{self.value:+}".replace("+", "")
        try:
            return format(self.value, spec)
        except (TypeError, ValueError):
            return str(self.value)


def details(pathology: str, evidence: Mapping[str, Any], steps: Mapping[str, Any], lang: Lang) -> tuple[str, ...]:
    """The sentences that ``evidence`` fills: the pathology's own in the order of the catalogue, then general ones.

    A sentence is told if the number it is named after was seen and so were all others in it. A text or a flag
    chooses among ``detail_NAME_VALUE``. A number that one sentence has told is not told again by a general one.
    """
    seen = {name: value for name, value in evidence.items() if value is not None and value is not False}
    seen = {name: value for name, value in seen.items() if value not in ("", [], (), {})}
    values = {name: Shown(_rendered(name, value, lang)) for name, value in seen.items()}
    values |= {name: Shown(step) for name, step in steps.items()}
    chosen = set(seen) | {f"{name}_{_word(value)}" for name, value in seen.items() if isinstance(value, str | bool)}
    told: set[str] = set()
    sentences = []
    for name, key in (*own_details(pathology).items(), *general_details().items()):
        used = placeholders(key)
        if name in chosen and used <= set(values) and (key.startswith(pathology) or name not in told):
            told |= used | {name}
            sentences.append(say(key, lang, **{part: values[part] for part in used}))
    return tuple(sentences)


@cache
def own_details(pathology: str) -> Mapping[str, str]:
    """Evidence name -> key of the pathology's own sentence about it."""
    prefix = f"{pathology}.detail_"
    return {key.removeprefix(prefix): key for key in catalogue() if key.startswith(prefix)}


@cache
def general_details() -> Mapping[str, str]:
    """Evidence name -> key of the sentence for any pathology."""
    prefix = "detail."
    return {key.removeprefix(prefix): key for key in catalogue() if key.startswith(prefix)}


@cache
def placeholders(key: str) -> frozenset[str]:
    """Names in the braces of a message."""
    return frozenset(name for _, name, _, _ in Formatter().parse(catalogue()[key]["en"]) if name is not None)


def _word(value: str | bool) -> str:
    return value.replace("-", "_") if isinstance(value, str) else "true"


def _rendered(name: str, value: Any, lang: Lang) -> Any:
    if isinstance(value, Mapping):
        return _joined([f"{key}: {_number(item)}" for key, item in value.items()])
    if not isinstance(value, list | tuple):
        return value
    if all(isinstance(item, list | tuple) and len(item) > 2 for item in value):
        if name == "skipped_per_window":
            return _joined(_windows(value))
        if name == "true_losses":
            return _joined([_true_loss(row, lang) for row in value])
    if all(isinstance(item, list | tuple) and len(item) == 2 for item in value):
        return _joined([f"{_number(first)}: {_number(second)}" for first, second in value])
    return _joined([_number(item) for item in value], ", ")


def _joined(items: Sequence[str], between: str = " · ") -> str:
    if len(items) > MOST_ITEMS:
        items = [*items[: MOST_ITEMS - 2], "…", items[-1]]
    return between.join(items)


def _number(value: Any) -> str:
    return f"{Shown(value):.4g}" if isinstance(value, float) else str(value)


def _windows(rows: Sequence[Sequence[Any]]) -> list[str]:
    """``step: applied/steps``; windows alike in a row are told as one."""
    told: list[tuple[Any, Any, str]] = []
    for step, applied, steps in (row[:3] for row in rows):
        share = f"{_number(applied)}/{_number(steps)}"
        first = told.pop()[0] if told and told[-1][2] == share else step
        told.append((first, step, share))
    return [f"{first if first == last else f'{first}–{last}'}: {share}" for first, last, share in told]


def _true_loss(row: Sequence[Any], lang: Lang) -> str:
    step, printed, *true = row
    either = say("told.or", lang)
    return f"{step}: {Shown(printed)} → {either.join(f'{Shown(loss):.3g}' for loss in true)}"
