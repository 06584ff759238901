"""A stream of which some bytes were read already."""

from __future__ import annotations

import io
from functools import partial
from pathlib import Path
from typing import BinaryIO

from jinmaek.ingest.source import Opener


def opener(path: Path) -> Opener:
    """Opens ``path`` for reading bytes."""
    return partial(_open, path)


def _open(path: Path) -> BinaryIO:
    return path.open("rb")


class Replayed(io.RawIOBase):
    """``head`` again, then what is left of ``rest``."""

    def __init__(self, head: bytes, rest: BinaryIO | None) -> None:
        self._head = memoryview(head)
        self._rest = rest

    @classmethod
    def of(cls, head: bytes, rest: BinaryIO | None) -> BinaryIO:
        """The same, buffered."""
        return io.BufferedReader(cls(head, rest), 1 << 16)

    def readable(self) -> bool:
        """It is there to be read."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill ``buffer`` as far as it goes."""
        piece: bytes | memoryview = self._head[: len(buffer)]
        if piece:
            self._head = self._head[len(piece) :]
        elif self._rest is not None:
            piece = self._rest.read(len(buffer))
        buffer[: len(piece)] = piece
        return len(piece)
