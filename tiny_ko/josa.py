"""Attach Korean particles in the form that the word before them calls for."""

import re
from typing import Final

RIEUL: Final = 8
"""Index of the final consonant rieul, after which `으로` loses its vowel."""

PARTICLES: Final[dict[str, tuple[str, str]]] = {
    "은": ("은", "는"),
    "이": ("이", "가"),
    "을": ("을", "를"),
    "과": ("과", "와"),
    "으로": ("으로", "로"),
    "이다": ("이다", "다"),
    "이야": ("이야", "야"),
    "이에요": ("이에요", "예요"),
    "이란": ("이란", "란"),
    "이라는": ("이라는", "라는"),
    "이며": ("이며", "며"),
    "입니다": ("입니다", "입니다"),
    "이었다": ("이었다", "였다"),
    "이고": ("이고", "고"),
    "이라고": ("이라고", "라고"),
}
"""Each particle's form after a final consonant and after a vowel."""

_HANGUL_FIRST: Final = 0xAC00
_HANGUL_LAST: Final = 0xD7A3
_FINALS: Final = 28
# What is read aloud decides the form, so digits, letters and signs stand for
# the last syllable of their Korean reading.
_READINGS: Final[dict[str, str]] = {
    **dict(zip("0123456789", "영일이삼사오육칠팔구", strict=True)),
    **dict(
        zip(
            "abcdefghijklmnopqrstuvwxyz",
            "이비씨디이프지치이이이엘엠엔오피큐알스티유이유스이트",
            strict=True,
        )
    ),
    "%": "트",
    "℃": "도",
    "°": "도",
}
_TAIL: Final = re.compile(r"(?:\s*\([^()]*\)|[\s\"'’”.,!?」』》〉])+$")


class JosaError(ValueError):
    """A particle that is unknown, or a word whose reading is."""


def attach(word: str, particle: str) -> str:
    """Return `word` followed by the form of `particle` that suits it.

    A bracketed remark or a quotation mark at the end is passed over, as a
    reader aloud would.
    """
    if particle not in PARTICLES:
        known = " ".join(PARTICLES)
        raise JosaError(f"unknown particle {particle!r}; known: {known}")
    after_consonant, after_vowel = PARTICLES[particle]
    final = _final_consonant(word)
    if final == 0 or (particle == "으로" and final == RIEUL):
        return word + after_vowel
    return word + after_consonant


def _final_consonant(word: str) -> int:
    spoken = _TAIL.sub("", word)
    last = spoken[-1:].lower()
    last = _READINGS.get(last, last)
    if not last or not _HANGUL_FIRST <= ord(last) <= _HANGUL_LAST:
        raise JosaError(f"cannot tell how {word!r} ends when read aloud")
    return (ord(last) - _HANGUL_FIRST) % _FINALS
