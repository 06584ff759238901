"""Keeps secrets out of pages: a page is made to be passed on."""

from __future__ import annotations

import re

HIDDEN = "•••"
_TOKEN = r"(?:(?:hf|hub|access|auth|api|wandb|bot|bearer)_?)?token"  # eos_token is none
_NAMES = re.compile(
    rf"(?:^|[._-])(?:api_?key|access_?key|secret\w*|password|passwd|credentials?|authorization)$|(?:^|\.){_TOKEN}$",
    re.IGNORECASE,
)
_VALUES = re.compile(
    r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|AKIA[A-Z0-9]{12,}"
    r"|xox[abpr]-[\w-]{10,}|glpat-[\w-]{16,}|eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]{5,})"
    r"|(?<=://)[^/\s:@]+:[^/\s@]+(?=@)"
)
_ASSIGNED = re.compile(
    rf"((?<![\w.])(?:[\w.-]*(?:secret|password|api_?key)|(?:[\w-]+\.)*-*{_TOKEN})\s*[=:]\s*)(\S+)", re.IGNORECASE
)


def without_secrets(name: str, value: str) -> str:
    """``value`` of the setting ``name``, with whatever looks like a key, a token or a password hidden.

    By its name (``hub.token``), by its shape (``hf_…``, ``user:password@`` in an address), or where a text assigns it
    (``--set hub.token=…`` in a command).
    """
    if _NAMES.search(name) and not re.fullmatch(r"-?[\d.]+|true|false|null|\[[\d, ]*\]", value):
        return HIDDEN
    return _ASSIGNED.sub(rf"\g<1>{HIDDEN}", _VALUES.sub(HIDDEN, value))
