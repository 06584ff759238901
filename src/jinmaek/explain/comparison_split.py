"""Where two trajectories part and whether rounding explains it, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from jinmaek.core.comparison import Pair, RoundingGap, Split
from jinmaek.core.text import Lang, say
from jinmaek.explain.comparison_words import fact_name, is_recorded, size
from jinmaek.explain.verdict_words import listed

_GAPS: Mapping[RoundingGap, str] = {
    "printed_digits": "compare.rounding_printed",
    "not_recorded": "compare.rounding_not_recorded",
    "precision": "compare.rounding_precision",
    "size": "compare.rounding_unsized",
}


def tell_split(pair: Pair, names: Mapping[str, str], paths: Mapping[str, str], lang: Lang) -> Iterator[str]:
    """``names``: the letters of both runs, as ``first`` and ``other``; ``paths``: where they lie."""
    split = pair.split
    if split is None:
        exact = pair.outcome == "identical" or is_recorded(pair, "initial_adapter")
        yield say("compare.never" if exact else "compare.never_printed", lang)
        return
    relative, later = split.relative, split.relative_later
    if relative is None:
        yield say("compare.parts_unsized", lang, step=split.step)
    elif later is not None and later > relative:
        yield say("compare.parts_grows", lang, step=split.step, relative=size(relative), later=size(later))
    else:
        yield say("compare.parts", lang, step=split.step, relative=size(relative))
    yield from _rounding(split, names, paths, lang)


def _rounding(split: Split, names: Mapping[str, str], paths: Mapping[str, str], lang: Lang) -> Iterator[str]:
    causes = listed(fact_name(cause, lang) for cause in split.causes)
    if split.gap is not None:
        yield say(_GAPS[split.gap], lang)
        return
    if split.rounding == "other_cause":
        small = split.exact and split.relative and split.epsilon and split.relative <= split.epsilon
        yield say("compare.rounding_or_cause" if small else "compare.rounding_other_cause", lang, names=causes)
        return
    known = split.relative is not None and split.epsilon is not None
    multiple = size(split.relative / split.epsilon) if known and split.relative and split.epsilon else "?"
    sizes = {"multiple": multiple, "epsilon": size(split.epsilon) if split.epsilon else "?"}
    if split.rounding == "too_large":
        yield say("compare.rounding_too_large", lang, **sizes, **paths)
        return
    yield say("compare.rounding_fits", lang, **sizes)
    if causes:
        yield say("compare.rounding_from", lang, names=causes)
    else:
        yield say("compare.rounding_nothing", lang, **paths)
