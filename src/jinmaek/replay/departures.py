"""Why an exact replay left the record: something was lost at a resume, or changed the state from outside.

Here a trial asks whether a change makes the replay the recorded run, digest by digest: a match to the bit over
several steps is not had by chance.
"""

from __future__ import annotations

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
    """The recorded run had other weights at the departure than its own steps make, and went on from those.

    Shown by two exact replays: one from before, which arrives at other weight norms than were recorded, and one
    from the run's own later snapshot, which agrees with the record.
    """
    if found.departed_from is None or found.departure is None or found.departed is None:
        return None
    recorded = scene.records[found.departure].groups or {}
    replayed = found.departed.groups or {}
    changed = [name for name in recorded if repr(_norm(recorded[name])) != repr(_norm(replayed.get(name)))]
    facts: dict[str, Any] = {"step": found.departure}
    if not changed:
        return None
    name = max(changed, key=lambda each: abs((_norm(recorded[each]) or 0) - (_norm(replayed.get(each)) or 0)))
    facts |= {"tensor": name, "before": _norm(replayed.get(name)), "after": _norm(recorded[name])}
    return Cause(id="outside_change", status="confirmed", trials=("control",), facts=facts)


def _norm(stats: GroupStats | None) -> float | None:
    return None if stats is None else stats.weight_norm
