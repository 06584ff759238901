"""Turn plain written Korean into its polite register.

The fact tables state everything in the plain register, while fine-tuning asks
for polite answers. A model that has hardly met a polite ending could only
learn the ending during fine-tuning, instead of learning to answer.
"""

import re
from typing import Final

from tiny_ko.facts import Template, parse_template

_FIRST: Final = 0xAC00
_FINALS: Final = 28
_NIEUN: Final = 4
_BIEUP: Final = 17

_ENDING: Final = re.compile(r"([가-힣]+)다(?=[.!?])")
_COPULA_AT_END: Final = re.compile(r":이다\}(?=[.!?])")
# Already polite, or a tale-teller's ending that has no polite form.
_KEPT: Final = ("니", "란", "단")


def polite(text: str) -> str:
    """Return the text with the sentences that end in `다` made polite."""
    return _ENDING.sub(lambda match: _conjugate(match[1]), text)


def polite_template(template: Template) -> Template:
    """Return the template that renders as the polite statement."""
    text = _COPULA_AT_END.sub(":입니다}", template.text)
    return parse_template(polite(text), sorted(template.columns))


def _conjugate(stem: str) -> str:
    last = stem[-1]
    if last in _KEPT and not stem.endswith("아니"):
        return stem + "다"
    if last == "는" and _final(stem[-2:-1]):
        return stem[:-1] + "습니다"
    final = _final(last)
    if final in (0, _NIEUN):
        return stem[:-1] + chr(ord(last) - final + _BIEUP) + "니다"
    return stem + "습니다"


def _final(syllable: str) -> int:
    return (ord(syllable) - _FIRST) % _FINALS if syllable else 0
