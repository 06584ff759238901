"""``trainer_state.json`` of transformers, whole or an excerpt, and arrays of JSON objects: read as a stream."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from jinmaek.core.record import Item
from jinmaek.ingest.json_lines import EntryReader
from jinmaek.ingest.lines import read_blocks
from jinmaek.ingest.numbers import parse_number, to_count
from jinmaek.ingest.pairs import dict_entry
from jinmaek.ingest.source import LogSource, Opener

HISTORY = re.compile(r'"log_history"\s*:\s*\[')
_FACT = re.compile(r'"(max_steps|logging_steps|num_train_epochs|global_step|epoch)"\s*:\s*"?([^,}\s"]+)')
_CHUNK = 1 << 16
_LARGEST_OBJECT = 1 << 20
_TAIL = 1 << 16  # enough for what follows the history
_DECODER = json.JSONDecoder()


def read_trainer_state(open_log: Opener, log: LogSource) -> Iterator[Item]:
    """The items of a state file, an excerpt of one, or an array of entries."""
    entries = EntryReader(log)
    ready = entries.assembler.ready
    with open_log() as stream:
        text = _Text(stream)
        _head_facts(text, log)
        for entry in _objects(text, log):
            entries.take(entry)
            if ready:
                yield from ready
                ready.clear()
        _note_facts(text.rest(), log)
    if entries.assembler.step is not None and entries.assembler.step == log.facts.max_steps:
        entries.assembler.remark("end", "completed")
    yield from entries.finish()


class _Text:
    """A window that slides over a stream."""

    def __init__(self, stream: BinaryIO) -> None:
        self._blocks = read_blocks(stream, _CHUNK)
        self.window = ""
        self.at = 0
        self.ended = False

    def more(self) -> bool:
        """Read on, dropping what lies behind; false at the end."""
        block = next(self._blocks, None)
        self.ended = block is None
        self.window, self.at = self.window[self.at :] + (block or ""), 0
        return block is not None

    def rest(self) -> str:
        """The last part of what was not read."""
        tail = self.window[self.at :][-_TAIL:]
        for block in self._blocks:
            tail = (tail + block)[-_TAIL:]
        return tail


def _head_facts(text: _Text, log: LogSource) -> None:
    """Skip to the history; in an excerpt begin at the first brace, or within an entry whose beginning is cut off."""
    text.more()
    found = HISTORY.search(text.window)
    if found is not None:
        _note_facts(text.window[: found.start()], log)
        text.at = found.end()
        return
    opening, closing = text.window.find("{"), text.window.find("}")
    if 0 <= closing < opening or (opening < 0 <= closing):
        text.window = "{" + text.window
    text.at = max(text.window.find("{"), 0)


def _note_facts(text: str, log: LogSource) -> None:
    said = {name: parse_number(number) for name, number in _FACT.findall(text)}
    log.facts.max_steps = to_count(said.get("max_steps")) or log.facts.max_steps
    log.facts.logging_steps = to_count(said.get("logging_steps")) or log.facts.logging_steps
    epoch, step = said.get("epoch"), said.get("global_step")
    if epoch and step and 0 < epoch < float("inf"):
        log.facts.steps_per_epoch = step / epoch


def _objects(text: _Text, log: LogSource) -> Iterator[dict[str, Any]]:
    """The flat objects of an array, one after the other, until the array ends."""
    skip = re.compile(r"[\s,`]*")
    while True:
        found = skip.match(text.window, text.at)
        text.at = found.end() if found else text.at
        if text.at >= len(text.window):
            if not text.more():
                return
            continue
        if text.window[text.at] == "]":
            return
        if text.window[text.at] != "{":
            _skip_to_brace(text)
            continue
        entry = _one_object(text, log)
        if entry is not None:
            yield entry


def _skip_to_brace(text: _Text) -> None:
    brace = text.window.find("{", text.at)
    text.at = brace if brace >= 0 else len(text.window)


def _one_object(text: _Text, log: LogSource) -> dict[str, Any] | None:
    """The object at the window's place; ``None`` and one more ``unread`` if it cannot be read."""
    while True:
        try:
            entry, text.at = _DECODER.raw_decode(text.window, text.at)
        except (ValueError, RecursionError):
            closing = text.window.find("}", text.at)
            opening = text.window.find("{", text.at + 1)
            flat = closing >= 0 and not 0 <= opening < closing
            if flat or text.ended or len(text.window) - text.at > _LARGEST_OBJECT:
                return _damaged(text, closing if flat else opening - 1, log)
            text.more()
        else:
            return entry if isinstance(entry, dict) else None


def _damaged(text: _Text, last: int, log: LogSource) -> dict[str, Any] | None:
    """What can be told of an object that is no JSON, which ends at ``last`` (negative: it has no end)."""
    end = last + 1 if last >= 0 else len(text.window)
    entry = dict_entry(text.window[text.at : end]) if last >= 0 else None
    text.at = max(end, text.at + 1)
    log.unread += entry is None
    return entry
