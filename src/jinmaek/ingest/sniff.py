"""Tells a log's format by its first bytes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from jinmaek.core.record import Item
from jinmaek.ingest.console import read_console
from jinmaek.ingest.csv_table import find_titles
from jinmaek.ingest.json_lines import parse_object, read_json_lines
from jinmaek.ingest.lines import looks_binary, read_lines
from jinmaek.ingest.source import LogSource, Opener
from jinmaek.ingest.stream import Replayed
from jinmaek.ingest.tensorboard import is_events, read_tensorboard
from jinmaek.ingest.trainer_state import HISTORY, read_trainer_state
from jinmaek.ingest.wandb_file import MAGIC, read_wandb

HEAD = 1 << 16
"""Bytes that are looked at."""
_OURS = {"step", "loss", "optimizer_stepped", "digest", "clip_ratio"}
# A member of an object on a line of its own: state files are indented.
_MEMBER = re.compile(r'^\s*"(?:loss|eval_loss|learning_rate|grad_norm)"\s*:\s*[^\s{][^\n{}]*,?\s*$', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Kind:
    """A format: its name among the facts, and what reads it."""

    source: str
    read: Callable[[Opener, LogSource], Iterator[Item]]


def _read_one_event_file(open_log: Opener, log: LogSource) -> Iterator[Item]:
    return read_tensorboard([open_log], log)


_TENSORBOARD = Kind("tensorboard", _read_one_event_file)
_WANDB = Kind("wandb", read_wandb)
_STATE = Kind("trainer_state", read_trainer_state)
_ARRAY = Kind("jsonl", read_trainer_state)
_LINES = Kind("jsonl", read_json_lines)
_STEPS = Kind("jinmaek", read_json_lines)
_CSV = Kind("csv", read_console)
_CONSOLE = Kind("console", read_console)


def sniff(head: bytes) -> Kind | None:
    """The format that ``head`` begins; ``None`` if it is binary and of no known kind."""
    if is_events(head):
        return _TENSORBOARD
    if head.startswith(MAGIC):
        return _WANDB
    if looks_binary(head):
        return None
    lines = head_lines(head)
    text = "".join(lines)
    if HISTORY.search(text):
        return _STATE
    return _json_kind(lines, text) or (_CSV if find_titles(lines) else _CONSOLE)


def head_lines(head: bytes) -> list[str]:
    """The lines of ``head``, decoded; the last one may be torn."""
    return list(read_lines(Replayed.of(head, None)))


def sniff_titles(head: bytes) -> list[str]:
    """The titles of a CSV file."""
    found = find_titles(head_lines(head))
    return found[1] if found else []


def _json_kind(lines: list[str], text: str) -> Kind | None:
    start = text.lstrip("\ufeff \t\r\n`")[:1]
    first = [line for line in lines if line.strip()][:5]
    objects = [
        entry for entry in (parse_object(line.strip()) for line in first if line.lstrip().startswith("{")) if entry
    ]
    if start == "{" and objects and first[0].lstrip().startswith('{"'):
        return _STEPS if objects[0].keys() >= _OURS else _LINES
    if start == "[" and re.match(r"[\s`\ufeff]*\[\s*(?:\{|$)", text):
        return _ARRAY
    # Of a printed log nothing is indented so; of a state file perhaps only some lines were pasted.
    if start in ("{", '"', "}", "]", ",") and _MEMBER.search(text):
        return _STATE
    if re.match(r"\s*(?:json|\.\.\.|\[\.\.\.\])\s", text.lstrip("`")) and _MEMBER.search(text):
        return _STATE
    return None
