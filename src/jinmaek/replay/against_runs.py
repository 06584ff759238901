"""The untouched replay of each of the two runs, near the step at which they part."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from jinmaek.core.errors import JinmaekError
from jinmaek.core.parting import Replay, Side
from jinmaek.core.record import StepRecord, same_step
from jinmaek.replay.against_trace import Trace, trace_measure, trace_update
from jinmaek.replay.scene import Scene, Start, opened

MOST_STEPS = 200  # in one replay


@dataclass(slots=True)
class Replayed:
    """What a replay came to, and the tensors on the way; the model is gone by then."""

    replay: Replay
    trace: Trace


def is_recorded(scene: Scene, reading: StepRecord) -> bool:
    """Whether ``reading`` is the recorded step; one that was never recorded is nothing to compare."""
    recorded = scene.records.get(reading.step)
    return recorded is None or same_step(recorded, reading)


def replay_run(path: Path, side: Side, step: int, trace: Trace) -> Replayed:
    """Run ``path`` again from its nearest state, and trace ``step`` and the step before it."""
    try:
        replay = _opened(path, side, step, trace)
    except JinmaekError as error:
        replay = Replay(side=side, path=str(path), reproduced="not_run", reason="cannot_load", said=said_by(error))
    except torch.OutOfMemoryError:
        replay = Replay(side=side, path=str(path), reproduced="not_run", reason="out_of_memory")
    release_memory()
    return Replayed(replay, trace)


def said_by(error: JinmaekError) -> dict[str, str]:
    """The error in each language."""
    return {"en": error.render("en"), "ko": error.render("ko")}


def release_memory() -> None:
    """Let go of the model that was just left: two never lie in memory together."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _opened(path: Path, side: Side, step: int, trace: Trace) -> Replay:
    with opened(path) as scene:
        return _replay(scene, side, step, trace)


def _replay(scene: Scene, side: Side, step: int, trace: Trace) -> Replay:
    # Before the step before, so that its update is replayed and not taken from a snapshot.
    start = scene.starts(max(step - 1, 1))[-1]
    path = str(scene.directory.path)
    if step - start.step > MOST_STEPS:
        return Replay(side=side, path=path, reproduced="not_run", start_step=start.step, reason="too_far")
    reading: StepRecord | None = None
    for reading in _readings(scene, start, step, trace):
        if not is_recorded(scene, reading):
            return _departed(scene, side, start, reading)
    num_steps = step - start.step
    return Replay(side=side, path=path, reproduced="bit_exact", start_step=start.step, num_steps=num_steps)


def _readings(scene: Scene, start: Start, step: int, trace: Trace) -> Iterator[StepRecord]:
    """The steps from ``start`` on; ``step`` and the one before it traced, and that one measured before it runs."""
    state = scene.state(start)
    if step > 1:
        yield from scene.replay(state, step - 2)
        if start.step < step - 2:
            state = scene.copy_state(step - 2)
        trace_measure(scene, trace, state, step - 1)
        yield trace_update(scene, trace, state, step - 1)
        state = scene.copy_state(step - 1)
    yield trace_measure(scene, trace, state, step)


def _departed(scene: Scene, side: Side, start: Start, reading: StepRecord) -> Replay:
    again = list(scene.replay(scene.state(start), reading.step))[-1]
    return Replay(
        side=side,
        path=str(scene.directory.path),
        reproduced="no",
        start_step=start.step,
        num_steps=reading.step - start.step,
        first_departure=reading.step,
        repeats=same_step(again, reading),
        changed_groups=_changed_groups(scene, reading),
        environment=scene.differences,
    )


def _changed_groups(scene: Scene, reading: StepRecord) -> tuple[str, ...]:
    """Modules whose weights had another norm at the step: taken before its update, so no step made it."""
    recorded, replayed = scene.records[reading.step].groups or {}, reading.groups or {}
    norms = {
        name: (stats.weight_norm, replayed[name].weight_norm) for name, stats in recorded.items() if name in replayed
    }
    return tuple(name for name, (then, now) in norms.items() if repr(then) != repr(now))
