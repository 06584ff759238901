"""Why an exact replay left the record: something was lost at a resume, or changed the state from outside.

Here a trial asks whether a change makes the replay the recorded run, digest by digest: a match to the bit over
several steps is not had by chance.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import Any

from jinmaek.core.record import GroupStats, StepRecord
from jinmaek.core.verdict import Cause, Trial
from jinmaek.replay.control import Replayed, is_recorded
from jinmaek.replay.scene import Scene
from jinmaek.training.state import State, bring_to
from jinmaek.training.step import run_step

_WITNESSES = 5  # steps after a resume that must match; a lost moment shows in the second only
_MOST_STEPS_AFTER = 2  # between a resume and the first departure that it can explain


def lost_at_resume(scene: Scene, found: Replayed, tell: Callable[[Trial], None]) -> Cause | None:
    """What was lost at the resume just before the departure, if losing it reproduces the record to the bit."""
    departure, start = found.departure, found.departed_from or found.start
    if departure is None:
        return None
    near = [at for at in scene.resumed if start.step <= at < departure <= at + _MOST_STEPS_AFTER]
    if not near:
        return None
    resumed = near[-1]
    for _ in scene.replay(scene.state(start), resumed):
        pass
    reached = scene.copy_state(resumed)
    for lost, state, shift in _losses(scene, reached):
        if _try_loss(scene, state, resumed, shift, lost, tell):
            facts = {"resumed_step": resumed, "lost": lost}
            return Cause(id="wrong_resume", status="confirmed", trials=(f"lost_{lost}",), facts=facts)
    return None


def _losses(scene: Scene, reached: State) -> Iterable[tuple[str, State, int]]:
    """What can be lost, the state without it, and by how many steps the data is shifted."""
    fresh = scene.fresh
    rate = reached["optimizer"]["param_groups"]
    emptied = {**fresh["optimizer"], "param_groups": rate}
    yield "optimizer", {**reached, "optimizer": emptied}, 0
    first_lr = {**reached["optimizer"], "param_groups": fresh["optimizer"]["param_groups"]}
    yield "schedule", {**reached, "optimizer": first_lr, "schedule": fresh["schedule"]}, 0
    if reached["loss_scale"] is not None:
        yield "loss_scale", {**reached, "loss_scale": fresh["loss_scale"]}, 0
    yield "adapter", {**reached, "weights": fresh["weights"]}, 0
    yield "data_order", reached, int(reached["step"])
    yield "everything", {**fresh, "weights": reached["weights"]}, 0


def _try_loss(scene: Scene, state: State, resumed: int, shift: int, lost: str, tell: Callable[[Trial], None]) -> bool:
    started = time.perf_counter()
    witnesses = [step for step in range(resumed + 1, resumed + 1 + _WITNESSES) if step in scene.records]
    bring_to(scene.training, state)
    scene.training.model.train()
    same = True
    reading: StepRecord | None = None
    for step in witnesses:
        reading = run_step(scene.training, step, scene.batches(step - shift)).record()
        same = is_recorded(scene, reading)
        if not same:
            break
    tell(
        Trial(
            arm=f"lost_{lost}",
            family="state",
            outcome="matches" if same else "differs",
            loss=None if reading is None else reading.loss,
            grad_norm=None if reading is None else reading.grad_norm,
            seconds=time.perf_counter() - started,
            facts={"resumed_step": resumed, "num_steps": len(witnesses)},
        )
    )
    return same and len(witnesses) > 1


def changed_from_outside(scene: Scene, found: Replayed) -> Cause | None:
    """The run had other weights at the departure than the update before it makes, and that update is as recorded.

    So what changed them was no step: memory, another program, a hand.
    """
    if found.departure is None or found.departed is None or found.departure == 1:
        return None  # other weights before step 1 are another beginning
    last, recorded_last = found.before_departure, scene.records.get(found.departure - 1)
    if last is not None and recorded_last is not None and last.update_ratio != recorded_last.update_ratio:
        return None
    recorded, replayed = scene.records[found.departure].groups or {}, found.departed.groups or {}
    changed = {name: (_norm(replayed.get(name)), _norm(stats)) for name, stats in recorded.items()}
    changed = {name: norms for name, norms in changed.items() if repr(norms[0]) != repr(norms[1])}
    if not changed:
        return None
    name = max(changed, key=lambda each: _distance(*changed[each]))
    before, after = changed[name]
    facts: dict[str, Any] = {"step": found.departure, "tensor": name, "before": before, "after": after}
    return Cause(id="outside_change", status="confirmed", trials=("control",), facts=facts)


def _distance(before: float | None, after: float | None) -> float:
    if before is None or after is None or math.isnan(after):
        return math.inf
    return abs(after - before)


def _norm(stats: GroupStats | None) -> float | None:
    return None if stats is None else stats.weight_norm
