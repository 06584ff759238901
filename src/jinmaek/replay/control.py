"""The untouched replay. Until it is the recorded step to the bit, no counterfactual counts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from jinmaek.core.record import StepRecord
from jinmaek.core.verdict import Control
from jinmaek.replay.scene import Scene, Start
from jinmaek.training.state import State

HISTORY_SECONDS = 12.0  # of replayed training before the step: enough to see it grow, short enough to repeat
MOST_HISTORY = 100  # steps
NUM_REPEATS = 3  # of a step on a device that does not repeat itself


@dataclass(slots=True)
class Replayed:
    """What the untouched replay came to.

    ``start`` is where it began; ``before`` the state just before the step (``None``: it could not be reached as
    recorded); ``reading`` the step itself; ``departure`` the first step that was not the recorded one when
    coming from ``departed_from``, an older start than the one that reproduced, if any; ``departed`` is that step
    as replayed, ``before_departure`` the one before it; ``repetitions`` are the step's readings on a device that
    does not repeat itself.
    """

    control: Control
    start: Start
    before: State | None
    reading: StepRecord
    departed_from: Start | None = None
    departure: int | None = None
    departed: StepRecord | None = None
    before_departure: StepRecord | None = None
    repetitions: list[StepRecord] = field(default_factory=list)


def run_control(scene: Scene, step: int) -> Replayed:
    """Replay from the oldest affordable state up to ``step``; from a newer one where that departs from the record."""
    first: Replayed | None = None
    for start in _affordable(scene, step):
        if first is not None and first.departure is not None and start.step < first.departure:
            continue
        found = _attempt(scene, start, step)
        if found.departure is None and first is None:
            return found
        if found.departure is None and first is not None:
            found.departed_from, found.departure, found.departed = first.start, first.departure, first.departed
            found.before_departure = first.before_departure
            return found if _repeats(scene, first) else _repeated(scene, found, step)
        first = first or found
    assert first is not None
    if _repeats(scene, first):
        first.control = replace(first.control, repeats=True)
        return first
    for _ in scene.replay(scene.state(first.start), step - 1):
        pass
    first.before = scene.copy_state(step - 1)
    return _repeated(scene, first, step)


def _affordable(scene: Scene, step: int) -> list[Start]:
    """States within the time that a history may take, oldest first; the newest in any case."""
    starts = scene.starts(step)
    seconds = scene.step_seconds
    near = [start for start in starts if (step - start.step) * seconds <= HISTORY_SECONDS]
    return [start for start in near if step - start.step <= MOST_HISTORY] or starts[-1:]


def _attempt(scene: Scene, start: Start, step: int) -> Replayed:
    """Replay from ``start``; stops at the first step that is not the recorded one."""
    last: StepRecord | None = None
    for reading in scene.replay(scene.state(start), step - 1):
        if not is_recorded(scene, reading):
            control = Control(
                reproduced="no",
                start_step=start.step,
                num_steps=reading.step - start.step,
                first_departure=reading.step,
            )
            return Replayed(
                control, start, None, reading, departure=reading.step, departed=reading, before_departure=last
            )
        last = reading
    before = scene.copy_state(step - 1) if start.step < step - 1 else scene.state(start)
    reading = scene.update(before, step)
    same = is_recorded(scene, reading)
    control = Control(
        reproduced="bit_exact" if same else "no",
        start_step=start.step,
        num_steps=step - start.step,
        first_departure=None if same else step,
        repeats=True if same else None,
    )
    if same:
        return Replayed(control, start, before, reading)
    return Replayed(control, start, before, reading, departure=step, departed=reading, before_departure=last)


def is_recorded(scene: Scene, reading: StepRecord) -> bool:
    """Whether ``reading`` is the recorded step, to the bit; a step that was never recorded is nothing to compare."""
    recorded = scene.records.get(reading.step)
    return recorded is None or recorded.digest is None or recorded.digest == reading.digest


def _repeats(scene: Scene, found: Replayed) -> bool:
    """Whether two replays up to the departure agree to the bit."""
    assert found.departure is not None
    return _digests(scene, found.start, found.departure) == _digests(scene, found.start, found.departure)


def _repeated(scene: Scene, found: Replayed, step: int) -> Replayed:
    """On a device that does not repeat itself: how far apart repetitions of the step are."""
    assert found.before is not None
    found.repetitions = [scene.update(found.before, step) for _ in range(NUM_REPEATS)]
    found.reading = found.repetitions[0]
    spread = _spread([reading.loss for reading in found.repetitions])
    found.control = replace(found.control, reproduced="no", repeats=False, spread=spread)
    return found


def _digests(scene: Scene, start: Start, last: int) -> list[str | None]:
    return [reading.digest for reading in scene.replay(scene.state(start), last)]


def _spread(losses: Sequence[float | None]) -> float | None:
    finite = [loss for loss in losses if loss is not None and math.isfinite(loss)]
    pairs = itertools.combinations(finite, 2)
    return max((abs(one - other) for one, other in pairs), default=None)
