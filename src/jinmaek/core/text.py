"""Every sentence a user reads, in Korean and English, looked up by key.

The catalogue lies in ``messages/*.toml``, both languages of a message side by side. It lives in core, and not
in a layer above, so that an error can say itself wherever it is raised
(``docs/decisions/0001-words-live-in-core.md``).
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any, Literal, get_args

Lang = Literal["en", "ko"]


def say(key: str, lang: Lang, /, **params: Any) -> str:
    """The message ``key`` (``section.name``) in ``lang`` with its placeholders filled.

    Raises:
        KeyError: no such message, or a placeholder is missing: our own mistake, caught by the tests.
    """
    return catalogue()[key][lang].format_map(params)


@cache
def catalogue() -> Mapping[str, Mapping[Lang, str]]:
    """All messages: key -> language -> text."""
    messages: dict[str, Mapping[Lang, str]] = {}
    for path in sorted(files("jinmaek.core").joinpath("messages").iterdir(), key=lambda path: path.name):
        for section, entries in tomllib.loads(path.read_text(encoding="utf-8")).items():
            messages |= {f"{section}.{name}": entry for name, entry in entries.items()}
    return messages


def default_lang(environ: Mapping[str, str] = os.environ) -> Lang:
    """``ko`` where the locale is Korean, ``en`` elsewhere (POSIX order: LC_ALL, LC_MESSAGES, LANG)."""
    for name in ("LC_ALL", "LC_MESSAGES", "LANG"):
        if environ.get(name):
            return "ko" if re.match(r"ko(?![a-z])|korean", environ[name].lower()) else "en"
    return "en"


def is_lang(value: str) -> bool:
    """Whether jinmaek speaks ``value``."""
    return value in get_args(Lang)


def duration(seconds: float) -> str:
    """Whole time in the two units that matter: 3:25:00 as ``3h25m``, 65 s as ``1m05s``."""
    if not math.isfinite(seconds):
        return "—"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"
