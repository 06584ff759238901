"""Progress bars of tqdm and of the notebook: how far the training is."""

from __future__ import annotations

import re
from dataclasses import dataclass

_BAR = re.compile(
    r"\d{1,3}%\|[^|\r\n]{0,400}\|\s{0,8}(\d+)/(\d+)(?:\s{0,2}\[[^\]\r\n]{0,100}\]?)?"
    # Without the drawing, and the notebook's "[ 500/1000 12:34 < 12:40, 0.66 it/s, Epoch 1.00/2]".
    r"|(?<![\w./])(\d+)/(\d+)\s{0,2}\[[\d:]+<[^\]\r\n]{0,100}\]?"
    r"|\[\s{0,8}(\d+)/(\d+)\s{1,3}[\d:]+ ?<[^\]\r\n]{0,80}\]?"
)
_LABEL = re.compile(r"([^:|\r\n]{1,60}):\s{0,4}$")
_TRAINING = re.compile(r"loss|train|epoch|step", re.IGNORECASE)
_OTHER = re.compile(
    r"eval|valid|test|predict|map|token|shard|load|split|download|filter|pack|generat|data|convert|truncat|template|prompt",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar that may be the training's: ``step`` of ``total``."""

    step: int
    total: int


def split_bars(text: str) -> list[str | Bar]:
    """The text between the bars, and those bars that are not of an evaluation or of data preparation, in order."""
    parts: list[str | Bar] = []
    last = 0
    for found in _BAR.finditer(text):
        before = text[last : found.start()]
        parts.append(before)
        step, total = (int(number[:18]) for number in found.groups() if number is not None)
        if _is_training(before[-80:]) and step <= total > 0:
            parts.append(Bar(step, total))
        last = found.end()
    parts.append(text[last:])
    return parts


def may_hold_bar(text: str) -> bool:
    """A quick look."""
    return "%|" in text or "<" in text


def _is_training(before: str) -> bool:
    label = _LABEL.search(before)
    if label is None:
        return True
    return bool(_TRAINING.search(label[1])) and not _OTHER.search(label[1])
