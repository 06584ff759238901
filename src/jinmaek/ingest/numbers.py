"""Numbers as trainers print them: NaN and the infinities are seen, a null is not."""

from __future__ import annotations

import math
import re

# Atomic, so that a torn "1.3e-" is no number at all instead of the number 1.
NUMBER = (
    r"(?>[-+]?(?:\d\.#\w+|(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?|[nN][aA][nN](?:\(\w*\))?|[iI][nN][fF](?:inity)?))"
    r"(?!\w|\.\d)"
)
# Microsoft's C library prints 1.#QNAN, -1.#IND, 1.#INF, and newer ones -nan(ind).
_ODD = re.compile(r"([-+]?)(?:(nan(?:\(\w*\))?|\d\.#(?:[qs]?nan|ind)\d*)|inf(?:inity)?|\d\.#inf\d*)", re.IGNORECASE)
_LARGEST_STEP = 2**53  # integers beyond it are not exact in the double that carried them


def parse_number(text: str) -> float | None:
    """The number that ``text`` is, ``None`` if it is none."""
    try:
        number = float(text)
    except ValueError:
        pass
    else:
        # Python reads more than trainers write: 1_000, and the digits of other scripts.
        return number if "_" not in text and text.isascii() else None
    odd = _ODD.fullmatch(text.strip())
    if odd is None:
        return None
    if odd[2]:
        return math.nan
    return -math.inf if odd[1] == "-" else math.inf


def to_number(value: object) -> float | None:
    """The number that a JSON value is, quoted or not; ``None`` for null, truth values, words and containers."""
    if isinstance(value, float):
        return value
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        try:
            return float(value)
        except OverflowError:
            return math.inf if value > 0 else -math.inf
    return parse_number(value) if isinstance(value, str) else None


def to_count(value: float | None) -> int | None:
    """``value`` as a step or a count, ``None`` if it cannot be one."""
    if value is None or not 0 <= value < _LARGEST_STEP or value != int(value):
        return None
    return int(value)
