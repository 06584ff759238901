"""What a trainer printed: lines in, events out (rows of numbers, progress bars, remarks)."""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator
from math import isnan
from typing import BinaryIO

from jinmaek.core.record import Item
from jinmaek.ingest.assemble import Assembler
from jinmaek.ingest.bars import may_hold_bar, split_bars
from jinmaek.ingest.events import Event, Line
from jinmaek.ingest.lines import read_lines
from jinmaek.ingest.names import REPORTED, Row, to_row
from jinmaek.ingest.pairs import dict_entry, line_row
from jinmaek.ingest.remarks import remark_in
from jinmaek.ingest.source import LogSource, Opener
from jinmaek.ingest.tables import Table
from jinmaek.ingest.timeline import Timeline

_ANSI = re.compile(r"\x1b(?:\[[0-9;?]{0,20}[A-Za-z]|\][^\x07]{0,200}\x07)")
_DICT = re.compile(r"\{\s*['\"](?=[^{}'\"]{1,200}['\"]\s*:)[^{}]*\}")
_OPEN_DICT = re.compile(r"\{\s*['\"][^{}]*$")
_LONGEST_DICT = 1 << 16
_LONGEST_WORDS = 4000
_MOST_PARTS = 6  # lines that a dict may be broken over
_KEYS = ("loss", "grad_norm", "train_runtime")


def read_console(open_log: Opener, log: LogSource) -> Iterator[Item]:
    """The items of a printed log."""
    with open_log() as stream:
        yield from Timeline(log, Assembler(log)).items(once(_Parser(log).events(stream)))


class _Parser:
    """Holds what one line leaves to the next: a dict that is not closed, a table's columns, a broken record."""

    def __init__(self, log: LogSource) -> None:
        self._log = log
        self._open = ""
        self._parts = 0
        self._rounded = False
        self._table = Table()
        self._half: Row | None = None  # a loss whose step may stand on the next line

    def events(self, stream: BinaryIO) -> Iterator[Event]:
        """All events of the log in their order."""
        for line in read_lines(stream):
            for part in line.rstrip("\r\n").split("\r") if "\r" in line else (line,):
                yield from self._part(_ANSI.sub("", part) if "\x1b" in part else part)
        self._give_up()
        if self._half is not None:
            yield Line(self._half)

    def _part(self, text: str) -> Iterator[Event]:
        if not may_hold_bar(text):
            yield from self._text(text)
            return
        for part in split_bars(text):
            if isinstance(part, str):
                yield from self._text(part)
            else:
                yield part

    def _text(self, text: str) -> Iterator[Event]:
        if self._open or "{" in text:
            text = yield from self._dicts(text)
        if len(text) > 1 and not text.isspace():
            yield from self._words(text)

    def _dicts(self, text: str) -> Generator[Event, None, str]:
        """The records among the dicts of a line; returns the text around them."""
        if self._open and not text.strip("\r\n"):
            return ""
        if self._open and self._parts < _MOST_PARTS and "{" not in text.partition("}")[0]:
            text, self._open = self._open + text.rstrip("\n"), ""
        else:
            self._give_up()
            self._parts = 0
        around, last = [], 0
        for found in _DICT.finditer(text):
            row = self._record(found[0])
            if row is not None:
                before = text[last : found.start()]
                yield Line(row, rounded=self._rounded or "callbacks" in before)
                around.append(before)
                last = found.end()
                self._rounded = False
        rest = text[last:]
        opened = _OPEN_DICT.search(rest[-_LONGEST_DICT:])
        if opened and ("loss" in opened[0] or len(opened[0]) < 400):
            start = len(rest) - len(opened[0])
            self._open, rest = rest[start:].rstrip("\n"), rest[:start]
            self._rounded = "callbacks" in rest
            self._parts += 1
        return "".join(around) + rest

    def _record(self, text: str) -> Row | None:
        entry = dict_entry(text)
        if entry is None or not any(key in _KEYS or "loss" in key for key in entry):
            return None
        row = to_row(entry, REPORTED)
        if row.keys() & {"loss_reported", "grad_norm", "eval_loss", "summary"}:
            return row
        # A null or a word where the loss should be: nothing was observed. Anything else could not be read.
        self._log.unread += "loss" in entry and not _is_word(entry["loss"])
        return None

    def _give_up(self) -> None:
        """An open dict was never closed: its last number may be torn, so none of it counts."""
        if self._open and any(f"{quote}loss{quote}" in self._open for quote in "'\""):
            self._log.unread += 1
        self._open = ""

    def _words(self, text: str) -> Iterator[Event]:
        if len(text) > _LONGEST_WORDS:
            # No trainer prints such a line; a number that the cut would tear goes with it.
            text = text[:_LONGEST_WORDS].rpartition(" ")[0]
        said = remark_in(text)
        if said is not None:
            yield said
            return
        rows = self._table.read(text)
        if rows is None:
            row = line_row(text) if _may_hold_pairs(text) else {}
            yield from self._joined(row)
            return
        for row in rows:
            yield Line(row)

    def _joined(self, row: Row) -> Iterator[Event]:
        """insightface may break its line between the loss and the step."""
        half, self._half = self._half, None
        if half is not None and "step" in row and not row.keys() & {"loss", "eval_loss"}:
            yield Line(half | row)
            return
        if half is not None:
            yield Line(half)
        if len(row) < 2 or not row.keys() & {"loss", "eval_loss", "grad_norm", "skipped"}:
            return
        if "eval_loss" in row and "loss" in row and "lr" not in row:
            row.pop("loss")  # nanoGPT estimates both at an evaluation: neither is a step's
        if "step" in row or "eval_loss" in row:
            yield Line(row)
        elif "loss" in row:
            self._half = row


def _is_word(text: str) -> bool:
    return text in ("None", "null", "") or text.isalpha()


def _may_hold_pairs(text: str) -> bool:
    low = text.lower()
    return "loss" in low or "norm" in low or "step" in low


def once(events: Iterator[Event]) -> Iterator[Event]:
    """LLaMA-Factory prints a record twice, through its logger (rounded) and as a dict: let the exact one pass."""
    held: Line | None = None
    behind: list[Event] = []
    for event in events:
        if isinstance(event, Line) and held is not None and held.rounded != event.rounded and _agree(held, event):
            exact, other = (event, held) if held.rounded else (held, event)
            held.row = other.row | exact.row
            yield held
            yield from behind
            held, behind = None, []
        elif isinstance(event, Line):
            if held is not None:
                yield held
                yield from behind
            held, behind = event, []
        elif held is None:
            yield event
        else:
            behind.append(event)
            if len(behind) > 1000:
                yield held
                yield from behind
                held, behind = None, []
    if held is not None:
        yield held
        yield from behind


def _agree(one: Line, other: Line) -> bool:
    """Whether two rows are one record printed with different precision."""
    shared = one.row.keys() & other.row.keys()
    tolerances = {"epoch": 0.0051, "loss_reported": 5.1e-5, "eval_loss": 5.1e-5}
    for name in shared:
        first, second = one.row[name], other.row[name]
        tolerance = max(tolerances.get(name, 0.0), 5.1e-5 * abs(first))
        if not (first == second or abs(first - second) <= tolerance or (isnan(first) and isnan(second))):
            return False
    return bool(shared & {"loss_reported", "eval_loss"})
