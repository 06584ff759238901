"""An output folder of transformers: the furthest ``trainer_state.json`` and the checkpoints beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

from jinmaek.core.record import Item, Remark
from jinmaek.ingest.hyperparameters import note_arguments
from jinmaek.ingest.source import LogSource
from jinmaek.ingest.stream import opener
from jinmaek.ingest.trainer_state import read_trainer_state

_CHECKPOINT = re.compile(r"checkpoint-(\d{1,15})")
_STATE = "trainer_state.json"
_GLOBAL_STEP = re.compile(rb'"global_step"\s*:\s*(\d{1,15})')
_LARGEST_CONFIG = 1 << 20


def find_state(folder: Path, entries: list[Path]) -> Path | None:
    """The state of the most steps, if there is any."""
    states = {entry / _STATE: step for entry, step in _checkpoints(entries) if (entry / _STATE).is_file()}
    if (folder / _STATE).is_file():
        states[folder / _STATE] = _global_step(folder / _STATE)
    return max(states, key=lambda path: states[path]) if states else None


def read_output(folder: Path, state: Path, log: LogSource) -> Iterator[Item]:
    """The items of the state with the checkpoints among them."""
    # training_args.bin is a pickle and is never loaded: reading a log must not run what it holds.
    for config in (folder / "config.json", state.parent / "config.json"):
        _note_config(config, log)
    saved = [
        Remark(kind="checkpoint", step=step, text=entry.name) for entry, step in _checkpoints(sorted(folder.iterdir()))
    ]
    saved.sort(key=lambda remark: remark.step or 0)
    for item in read_trainer_state(opener(state), log):
        while saved and (saved[0].step or 0) < (item.step or 0):
            yield saved.pop(0)
        yield item
    yield from saved


def _checkpoints(entries: list[Path]) -> list[tuple[Path, int]]:
    named = [(entry, _CHECKPOINT.fullmatch(entry.name)) for entry in entries]
    return [(entry, int(name[1])) for entry, name in named if name and entry.is_dir()]


def _global_step(state: Path) -> int:
    try:
        with state.open("rb") as stream:
            found = _GLOBAL_STEP.search(stream.read(1 << 16))
    except OSError:
        return -1
    return int(found[1]) if found else 0


def _note_config(path: Path, log: LogSource) -> None:
    try:
        with path.open("rb") as stream:
            config = json.loads(stream.read(_LARGEST_CONFIG))
    except (OSError, ValueError, RecursionError):
        return
    if isinstance(config, dict) and "vocab_size" in config:
        note_arguments({"vocab_size": config["vocab_size"]}, log.facts)
