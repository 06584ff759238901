"""Sentences in both languages at once: a page holds the two and shows one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from itertools import zip_longest
from typing import Any

from jinmaek.core.text import Lang, say

Words = Mapping[Lang, str]
"""One text by language."""


def both(key: str, /, **params: Any) -> Words:
    """The message ``key`` in both languages; a parameter that is itself :data:`Words` is said in each."""
    return {lang: say(key, lang, **{name: _in(value, lang) for name, value in params.items()}) for lang in _LANGS}


def paired(english: Any, korean: Any) -> Any:
    """The same thing told twice (dataclasses, lists, texts) as one, each text that differs as :data:`Words`."""
    if is_dataclass(english) and not isinstance(english, type):
        english, korean = asdict(english), asdict(korean)
    if isinstance(english, Mapping) and isinstance(korean, Mapping):
        return {name: paired(value, korean.get(name)) for name, value in english.items()}
    if isinstance(english, list | tuple) and isinstance(korean, list | tuple):
        return [paired(one, other) for one, other in zip_longest(english, korean, fillvalue="")]
    if isinstance(english, str) and isinstance(korean, str) and english != korean:
        return {"en": english, "ko": korean}
    return english


def _in(value: Any, lang: Lang) -> Any:
    return value[lang] if isinstance(value, Mapping) and set(value) == set(_LANGS) else value


_LANGS: tuple[Lang, Lang] = ("en", "ko")
