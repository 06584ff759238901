"""TensorBoard event files: TFRecord frames around protobuf Events."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from jinmaek.core.record import Item
from jinmaek.ingest.assemble import Assembler
from jinmaek.ingest.names import PLAIN, REPORTED, Row, is_transformers
from jinmaek.ingest.protobuf import WireError, as_bytes, as_float, fields, signed
from jinmaek.ingest.source import LogSource, Opener

_LARGEST_EVENT = 1 << 26
_LARGEST_NUMBER = 256  # bytes of an event that can hold a scalar or two; images and histograms are larger
_FLOAT, _DOUBLE = 1, 2  # tensorflow's DataType
_POLYNOMIAL = 0x82F63B78


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (_POLYNOMIAL if byte & 1 else 0)  # noqa: PLW2901
        table.append(byte)
    return table


_TABLE = _crc_table()


def masked_crc(data: bytes) -> int:
    """TFRecord's checksum of ``data``: CRC-32C, turned and shifted."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17 & 0xFFFFFFFF) + 0xA282EAD8) & 0xFFFFFFFF


def is_events(head: bytes) -> bool:
    """Whether ``head`` begins a TFRecord file: a length and its checksum."""
    return len(head) >= 12 and struct.unpack("<I", head[8:12])[0] == masked_crc(head[:8])


def read_tensorboard(open_logs: Sequence[Opener], log: LogSource) -> Iterator[Item]:
    """The items of one run's event files, in the order they were begun; later files supersede earlier ones."""
    rows: dict[int, dict[str, float]] = {}
    for open_log in open_logs:
        with open_log() as stream:
            for step, tag, value in _scalars(stream, log):
                rows.setdefault(step, {})[tag] = value
    names = REPORTED if is_transformers({tag for row in rows.values() for tag in row}) else PLAIN
    assembler = Assembler(log)
    for step in sorted(rows):
        assembler.take(_row(step, rows[step], names))
        yield from assembler.ready
        assembler.ready.clear()
    assembler.finish()
    yield from assembler.ready


def _row(step: int, tags: dict[str, float], names: dict[str, str]) -> Row:
    row = {name: value for tag, value in tags.items() if (name := names[tag])}
    # A run's summary stands at its last step, whose own numbers must not be lost to it.
    if len(row) > 1:
        row.pop("summary", None)
    row["step"] = float(step)
    return row


def _scalars(stream: BinaryIO, log: LogSource) -> Iterator[tuple[int, str, float]]:
    """Step, tag and value of each number.

    The checksum of each length is tested, since it tells where the file is torn. That of the data is not: it would
    take a microsecond a byte in Python, and a damaged message does not parse.
    """
    while True:
        head = stream.read(12)
        if len(head) < 12:
            return
        (size,) = struct.unpack("<Q", head[:8])
        if not is_events(head) or size > _LARGEST_EVENT:
            log.unread += 1
            return
        data = stream.read(size + 4)
        if len(data) < size + 4:
            return  # still being written, or torn
        try:
            yield from _event(data[:-4])
        except WireError:
            log.unread += 1


def _event(data: bytes) -> list[tuple[int, str, float]]:
    step, summary = 0, b""
    for number, value in fields(data):
        if number == 2:
            step = signed(value)
        elif number == 5:
            summary = as_bytes(value)
    found = []
    for number, value in fields(summary):
        if number == 1:
            scalar = _value(as_bytes(value))
            if scalar is not None:
                found.append((step, *scalar))
    return found


def _value(data: bytes) -> tuple[str, float] | None:
    if len(data) > _LARGEST_NUMBER:
        return None
    tag, scalar = "", None
    for number, value in fields(data):
        if number == 1:
            tag = as_bytes(value).decode("utf-8", "replace")
        elif number == 2:
            scalar = as_float(value)
        elif number == 8:
            scalar = _tensor(as_bytes(value))
    return None if scalar is None else (tag, scalar)


def _tensor(data: bytes) -> float | None:
    """A tensor of one float."""
    kind, content = 0, b""
    for number, value in fields(data):
        if number == 1:
            kind = signed(value)
        elif number in (4, 5, 6):  # tensor_content, float_val, double_val
            content = as_bytes(value)
    size = {_FLOAT: 4, _DOUBLE: 8}.get(kind, 0)
    if not size or len(content) != size:
        return None
    return float(struct.unpack("<f" if size == 4 else "<d", content)[0])
