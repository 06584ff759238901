"""W&B's offline file ``run-*.wandb``: LevelDB's log format around protobuf Records."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import BinaryIO

from jinmaek.core.record import Item
from jinmaek.ingest.hyperparameters import note_arguments
from jinmaek.ingest.json_lines import EntryReader
from jinmaek.ingest.protobuf import WireError, as_bytes, fields
from jinmaek.ingest.source import LogSource, Opener

MAGIC = b":W&B"
_HEADER = 7
_BLOCK = 32768
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_HISTORY, _CONFIG, _RUN = 2, 5, 17  # fields of Record
_RUN_CONFIG = 4  # field of RunRecord
_LARGEST_RECORD = 1 << 26
_LARGEST_VALUE = 1 << 12  # bytes of JSON that a number needs; tables and pictures need more


def read_wandb(open_log: Opener, log: LogSource) -> Iterator[Item]:
    """The items of an offline run."""
    entries = EntryReader(log)
    ready = entries.assembler.ready
    with open_log() as stream:
        for data in _records(stream, log):
            try:
                entry = _take_record(data, log)
            except WireError:
                log.unread += 1
                continue
            if entry:
                entries.take(entry)
                yield from ready
                ready.clear()
    yield from entries.finish()


def _take_record(data: bytes, log: LogSource) -> dict[str, object]:
    """The values of a history record; those of a configuration go to the facts."""
    for number, value in fields(data):
        if number == _HISTORY:
            return _entries(as_bytes(value), 1)
        if number == _CONFIG:
            note_arguments(_entries(as_bytes(value), 1), log.facts)
        elif number == _RUN:
            for inner, config in fields(as_bytes(value)):
                if inner == _RUN_CONFIG:
                    note_arguments(_entries(as_bytes(config), 1), log.facts)
    return {}


def _entries(data: bytes, item_field: int) -> dict[str, object]:
    """Items of a history or a configuration: a key, perhaps nested, and its value as JSON."""
    found: dict[str, object] = {}
    for number, value in fields(data):
        if number != item_field:
            continue
        keys: list[str] = []
        text = b""
        for inner, part in fields(as_bytes(value)):
            if inner in (1, 2):
                keys.append(as_bytes(part).decode("utf-8", "replace"))
            elif inner == 16:
                text = as_bytes(part)
        if len(text) <= _LARGEST_VALUE:
            found["/".join(filter(None, keys))] = _json(text)
    return found


def _json(text: bytes) -> object:
    try:
        value: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value


def _records(stream: BinaryIO, log: LogSource) -> Iterator[bytes]:
    """Whole records. The checksums are not tested: the format's own CRC is slow in Python, and what is damaged
    does not parse.
    """
    at = len(stream.read(_HEADER))
    held = b""
    while True:
        left = _BLOCK - at % _BLOCK
        if left < _HEADER:
            at += len(stream.read(left))
            continue
        head = stream.read(_HEADER)
        if len(head) < _HEADER:
            return
        _, size, kind = struct.unpack("<IHB", head)
        data = stream.read(size)
        at += _HEADER + len(data)
        if len(data) < size:
            return  # still being written, or torn
        if kind == _FULL:
            yield data
        elif kind == _FIRST:
            held = data
        elif kind in (_MIDDLE, _LAST) and held and len(held) <= _LARGEST_RECORD:
            held += data
            if kind == _LAST:
                yield held
                held = b""
        elif kind not in (0, _MIDDLE, _LAST) or size == 0:
            log.unread += kind != 0
            at += len(stream.read(_BLOCK - at % _BLOCK))  # try the next block
