"""Lines of text out of any bytes, in bounded memory."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from functools import partial
from typing import BinaryIO

LONGEST_LINE = 1 << 20
"""Longer lines are handed out in pieces of this many bytes."""
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def read_raw_lines(stream: BinaryIO) -> Iterator[bytes]:
    """Lines with their ends, as UTF-8 if they were UTF-16 with a byte order mark; long ones in pieces."""
    first = stream.readline(LONGEST_LINE)
    if first.startswith(_UTF16):
        for text in _utf16_lines(first, stream):
            yield text.encode("utf-8", "replace")
        return
    yield first.removeprefix(codecs.BOM_UTF8)
    yield from iter(partial(stream.readline, LONGEST_LINE), b"")


def read_lines(stream: BinaryIO) -> Iterator[str]:
    """Decoded lines with their ends."""
    for raw in read_raw_lines(stream):
        yield decode(raw)


def read_blocks(stream: BinaryIO, size: int) -> Iterator[str]:
    """The decoded text in blocks of about ``size`` bytes that end where a line ends: one decoding for many lines."""
    first = stream.read(size) + stream.readline(LONGEST_LINE)
    if first.startswith(_UTF16):
        for text in _utf16_lines(first, stream):
            yield text
        return
    block = first.removeprefix(codecs.BOM_UTF8)
    while block:
        try:
            text = block.decode()
        except UnicodeDecodeError:
            text = "".join(map(decode, block.splitlines(keepends=True)))
        yield text.replace("\0", "") if "\0" in text else text
        block = stream.read(size) + stream.readline(LONGEST_LINE)


def decode(raw: bytes) -> str:
    """UTF-8, or else Korean Windows' cp949; every line by itself, since logs of several programs are mixed."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        try:
            text = raw.decode("cp949")
        except UnicodeDecodeError:
            text = raw.decode("utf-8", "replace")
    return text.replace("\0", "") if "\0" in text else text


def looks_binary(head: bytes) -> bool:
    """Whether ``head`` is no text: control characters and broken letters in more than a twentieth of it."""
    if head.startswith(_UTF16):
        return False
    # Cut where a letter may be torn. NULs are left out: UTF-16 without its mark is text.
    text = decode(head[: head.rfind(b"\n") + 1] or head[:-4] or head)
    strange = sum(letter == "\ufffd" or (letter < " " and letter not in "\t\r\n\b\x1b\f") for letter in text)
    return strange * 20 > max(len(text), 1)


def _utf16_lines(first: bytes, stream: BinaryIO) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-16")("replace")
    held = decoder.decode(first)
    for chunk in iter(partial(stream.read, LONGEST_LINE), b""):
        *whole, held = (held + decoder.decode(chunk)).split("\n")
        yield from (line + "\n" for line in whole)
        if len(held) > LONGEST_LINE:
            yield held
            held = ""
    yield from (held + decoder.decode(b"", final=True)).splitlines(keepends=True)
