"""How far a running trial is, from the end of its ``steps.jsonl``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from jinmaek.core.codec import number

_TAIL_BYTES = 32768  # a step's line with its groups is a few kilobytes


@dataclass(frozen=True, slots=True)
class Progress:
    """The last step on disk (0: none yet) and its loss."""

    step: int = 0
    loss: float | None = None


def read_progress(run: Path) -> Progress:
    """Of the run in ``run``; one that has not begun is at step 0."""
    try:
        with (run / "steps.jsonl").open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - _TAIL_BYTES))
            tail = file.read()
    except OSError:
        return Progress()
    whole = tail[: tail.rfind(b"\n") + 1].splitlines()
    for line in reversed(whole):
        try:
            row = json.loads(line)
            return Progress(int(row["step"]), number(row["loss"]))
        except (ValueError, KeyError, TypeError):
            continue  # the first line of the tail may be cut
    return Progress()
