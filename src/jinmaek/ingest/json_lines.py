"""One JSON object a line: LLaMA-Factory's ``trainer_log.jsonl``, W&B's history, anybody's own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jinmaek.core.record import Item
from jinmaek.ingest.assemble import Assembler
from jinmaek.ingest.lines import decode, read_raw_lines
from jinmaek.ingest.names import PLAIN, REPORTED, Names, is_transformers, to_row
from jinmaek.ingest.pairs import dict_entry
from jinmaek.ingest.source import LogSource, Opener

scan_json: Callable[[str, int], tuple[Any, int]] = json.scanner.make_scanner(json.JSONDecoder())  # type: ignore[attr-defined]
"""A JSON value and where it ends, without json.loads' looking for white space and encodings."""


def parse_object(text: str) -> dict[str, Any] | None:
    """The object that ``text`` is, leniently: ``nan`` and quoted numbers pass; ``None`` if it is none."""
    try:
        value, end = scan_json(text, 0)
    except (ValueError, StopIteration, RecursionError):
        return dict_entry(text)
    return value if isinstance(value, dict) and (end >= len(text) - 1 or text[end:].strip() in ("", ",")) else None


class EntryReader:
    """Maps the entries of one log; the first one with a loss tells whose names they are."""

    def __init__(self, log: LogSource) -> None:
        self.assembler = Assembler(log)
        self._names: Names | None = None

    def take(self, entry: Mapping[str, object]) -> None:
        """Add one entry."""
        names = self._names
        if names is None:
            row = to_row(entry, PLAIN)
            names = REPORTED if is_transformers(entry) else PLAIN
            if "loss" in row:
                self._names = names
        self.assembler.take(to_row(entry, names))

    def finish(self) -> list[Item]:
        """What was still held."""
        self.assembler.finish()
        return self.assembler.ready


def read_json_lines(open_log: Opener, log: LogSource) -> Iterator[Item]:
    """The items of a file with one object a line."""
    entries = EntryReader(log)
    take, ready = entries.take, entries.assembler.ready
    text = ""
    with open_log() as stream:
        for raw in read_raw_lines(stream):
            try:
                text = raw.decode()
                entry, end = scan_json(text, 0)
            except (ValueError, StopIteration, RecursionError):
                entry, end = None, 0
            if type(entry) is not dict or (end < len(text) - 1 and not text[end:].isspace()):
                entry = _unusual(raw, log)
                if entry is None:
                    continue
            take(entry)
            if ready:
                yield from ready
                ready.clear()
    yield from entries.finish()


def _unusual(raw: bytes, log: LogSource) -> dict[str, Any] | None:
    """A line that is not simply JSON: in another encoding, with ``nan``, indented, torn, or no record at all."""
    text = decode(raw).strip()
    if not text.startswith("{"):
        log.unread += '"loss"' in text  # the rest of a line that was cut, or a torn one
        return None
    entry = parse_object(text)
    log.unread += entry is None
    return entry
