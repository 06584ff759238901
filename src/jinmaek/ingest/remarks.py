"""What trainers say beside the numbers."""

from __future__ import annotations

import re
from typing import NamedTuple

from jinmaek.core.record import RemarkKind
from jinmaek.ingest.numbers import parse_number

_LONGEST_TEXT = 300
_LONGEST_LINE = 4000


class Said(NamedTuple):
    """A remark without its place; ``loss_scale`` is the one that the next step will use."""

    kind: RemarkKind
    text: str
    loss_scale: float | None = None


_PATH = r"[\"'`]?(?P<path{}>[^\s\"'`,]{{1,250}})"
# A word that must be there (lower case), for most lines say nothing of all this; then the pattern itself.
_PATTERNS: tuple[tuple[str, RemarkKind, str], ...] = (
    ("skip", "skipped", r"OVERFLOW!.{0,60}Skipping step|SKIPPED non-finite|skipping (?:this )?(?:step|batch|update)"
                        r"|(?:step|update) (?:was )?skipped"),
    ("already at minimum", "scale_floor", r"Current loss scale already at minimum"),
    ("requires_grad=true", "no_grad_inputs", r"None of the inputs have requires_grad=True"),
    ("backward", "attention_kernel", r"(?:cudnn|flash|sdpa|attention)[^\n]{0,80}backward(?! pass\))"),
    ("out of memory", "out_of_memory", r"(?:CUDA|HIP|MPS backend) out of memory"),
    ("outofmemory", "out_of_memory", r"OutOfMemoryError"),
    ("from", "resumed",
     r"(?:resum(?:ing|ed)|continuing) (?:the )?training from (?:the )?(?:checkpoint )?(?:global step )?"
     + _PATH.format(1) + r"|resum(?:ing|ed) from (?:the )?(?:checkpoint )?" + _PATH.format(2)
     + r"|loading (?:model |weights )?(?:from )?checkpoint from " + _PATH.format(3)),
    ("sav", "checkpoint",
     r"\bsav(?:ing|ed) [^\n]{0,40}?(?:checkpoint|weights|adapters?)\b[^\n]{0,40}? (?:to|in|into) " + _PATH.format(1)
     + r"|(?:checkpoint|weights) (?:was |were )?saved (?:to|at|in) " + _PATH.format(2)
     + r"|\bsav(?:ing|ed) [^\n]{0,40}?checkpoint\b"),
)  # fmt: skip
_COMPILED = [(word, kind, re.compile(pattern, re.IGNORECASE)) for word, kind, pattern in _PATTERNS]
_REDUCING = re.compile(r"reducing to (\d+(?:\.\d+)?(?:e[-+]?\d+)?)", re.IGNORECASE)


def remark_in(text: str) -> Said | None:
    """The remark that a line makes, if any."""
    low = text[:_LONGEST_LINE].lower()
    for word, kind, pattern in _COMPILED:
        if word in low:
            found = pattern.search(text[:_LONGEST_LINE])
            if found:
                return _said(kind, text[:_LONGEST_LINE], found)
    return None


def _said(kind: RemarkKind, text: str, found: re.Match[str]) -> Said:
    if kind in ("checkpoint", "resumed"):
        paths = [path for path in found.groupdict().values() if path]
        return Said(kind, paths[0].rstrip(".:") if paths else "")
    reduced = _REDUCING.search(text)
    scale = parse_number(reduced[1]) if reduced and kind == "skipped" else None
    return Said(kind, text.strip()[:_LONGEST_TEXT], scale)
