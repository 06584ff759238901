"""As much of protobuf's wire format as event files need."""

from __future__ import annotations

import struct
from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class WireError(ValueError):
    """Not a protobuf message."""


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and raw value of each field: an int for varints, bytes for all else.

    Raises:
        WireError: the bytes end within a field, or are no message.
    """
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == _VARINT:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        if kind == _BYTES:
            size, at = _varint(data, at)
        elif kind in (_FIXED64, _FIXED32):
            size = 8 if kind == _FIXED64 else 4
        else:
            raise WireError
        if at + size > end:
            raise WireError
        yield tag >> 3, data[at : at + size]
        at += size


def signed(value: int | bytes) -> int:
    """A varint as int64."""
    if isinstance(value, bytes):
        raise WireError
    return value - (1 << 64) if value >> 63 else value


def as_float(value: int | bytes) -> float:
    """A 32-bit float."""
    return float(struct.unpack("<f", _sized(value, 4))[0])


def as_bytes(value: int | bytes) -> bytes:
    """A string, bytes or a message."""
    if isinstance(value, int):
        raise WireError
    return value


def _sized(value: int | bytes, size: int) -> bytes:
    if isinstance(value, int) or len(value) != size:
        raise WireError
    return value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise WireError
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
