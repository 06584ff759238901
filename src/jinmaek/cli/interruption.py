"""Ctrl-C that saves."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from rich.console import Console

from jinmaek.core.text import Lang, say


class _Flag:
    def __init__(self) -> None:
        self.raised = False

    def __call__(self) -> bool:
        return self.raised


@contextmanager
def ctrl_c_saves(console: Console, lang: Lang) -> Iterator[_Flag]:
    """Within, the first Ctrl-C raises the flag that the loop asks for; the second one stops at once."""
    flag = _Flag()

    def handle(number: int, frame: FrameType | None) -> None:
        if flag.raised:
            raise KeyboardInterrupt
        flag.raised = True
        console.print(say("cli.interrupting", lang))

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield flag
    finally:
        signal.signal(signal.SIGINT, before)
