"""``jinmaek prove BAD --against GOOD``: two runs that should be alike, held side by side."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jinmaek.core.errors import RunError
from jinmaek.core.manifest import differing_settings, manifest_differences
from jinmaek.core.parting import Explanation, Parting, PartingOutcome, Place
from jinmaek.core.record import StepRecord, same_step
from jinmaek.core.verdict import Difference
from jinmaek.replay.against_explain import Trials, not_swappable, untried
from jinmaek.replay.against_runs import Replayed, replay_run
from jinmaek.replay.against_trace import Trace, distance, first_parting, place_at
from jinmaek.store import RunDirectory, read_steps
from jinmaek.training.model import choose_device


class AgainstListener:
    """Whoever watches two runs being held against each other; every method may be overridden."""

    def on_phase(self, phase: str) -> None:
        """Something begins: replaying_against, replaying_run, comparing, explaining."""

    def on_step(self, step: int) -> None:
        """The first step that is not the same in both is known."""

    def on_explanation(self, explanation: Explanation) -> None:
        """A difference was tried."""


@dataclass(frozen=True, slots=True)
class _Recorded:
    """What a run directory says, without replaying anything."""

    path: Path
    manifest: Mapping[str, Any]
    records: Mapping[int, StepRecord]


@dataclass(frozen=True, slots=True)
class _Located:
    """Both replays, and the first tensor that they do not share."""

    run: Replayed
    against: Replayed
    place: Place | None = None
    max_difference: float | None = None


def prove_against(run_dir: str | Path, against_dir: str | Path, *, listener: AgainstListener | None = None) -> Parting:
    """Find the first step and the first tensor at which two runs part, and which difference explains it.

    Both are replayed, one after the other; then ``run_dir`` is built up again with the values that ``against_dir``
    had. No file of either is touched.

    Raises:
        RunError: one of them is no run, they are the same one, or have no step in common.
    """
    listener = listener or AgainstListener()
    started = time.perf_counter()
    run, against = _read(Path(run_dir)), _read(Path(against_dir))
    if run.path.resolve() == against.path.resolve():
        raise RunError("parting.same_run", path=run.path)
    common = [step for step in run.records if step in against.records]
    if not common:
        raise RunError("parting.no_common_step", run=run.path, against=against.path)
    first = next((step for step in common if not same_step(run.records[step], against.records[step])), None)
    parting = Parting(
        run=str(run.path),
        against=str(against.path),
        outcome="ALIKE",
        num_common_steps=len(common),
        first_step=first,
        differences=manifest_differences(run.manifest, against.manifest),
        device=str(choose_device()),
    )
    if first is not None:
        listener.on_step(first)
        parting = _explained(parting, run, against, first, listener)
    return replace(parting, seconds=time.perf_counter() - started)


def _read(path: Path) -> _Recorded:
    directory = RunDirectory.open(path)
    records = {record.step: record for record in read_steps(directory.steps_path)}
    return _Recorded(path, directory.read_manifest(), records)


def _explained(parting: Parting, run: _Recorded, against: _Recorded, step: int, listener: AgainstListener) -> Parting:
    located = _locate(run, against, step, listener)
    explanations = _explanations(parting.differences, run, against, step, located, listener)
    reproduced = [located.run.replay.reproduced, located.against.replay.reproduced]
    outcome: PartingOutcome = "PARTED"
    if "no" in reproduced:
        outcome = "NOT_REPRODUCED"
    elif any(each.outcome == "explains" for each in explanations):
        outcome = "EXPLAINED"
    return replace(
        parting,
        outcome=outcome,
        place=located.place,
        max_difference=located.max_difference,
        explained_by=tuple(explanations),
        replays=(located.run.replay, located.against.replay),
    )


def _locate(run: _Recorded, against: _Recorded, step: int, listener: AgainstListener) -> _Located:
    """The first tensor that is another; both runs' tensors are never in memory together, but for that one."""
    listener.on_phase("replaying_against")
    other = replay_run(against.path, "against", step, Trace())
    listener.on_phase("replaying_run")
    own = replay_run(run.path, "run", step, Trace(expected=other.trace.entries))
    if not own.replay.reproduced == other.replay.reproduced == "bit_exact":
        return _Located(own, other)
    number = first_parting(own.trace.entries, other.trace.entries)
    if number is None:
        return _Located(own, other)
    place = place_at(number, own.trace.entries, other.trace.entries)
    if place.only_in is not None or place.run_shape != place.against_shape:
        return _Located(own, other, place)
    listener.on_phase("comparing")
    again = replay_run(against.path, "against", step, Trace(keep=number)).trace
    if own.trace.kept is None or again.kept is None:
        return _Located(own, other, place)
    largest, num_different = distance(own.trace.kept, again.kept)
    num_values = own.trace.kept.numel()
    return _Located(own, other, replace(place, num_different=num_different, num_values=num_values), largest)


def _explanations(
    differences: tuple[Difference, ...],
    run: _Recorded,
    against: _Recorded,
    step: int,
    located: _Located,
    listener: AgainstListener,
) -> list[Explanation]:
    """What each difference comes to; nothing is tried where the runs themselves are not as recorded."""
    settings = differing_settings(run.manifest, against.manifest)
    rest = not_swappable(differences, settings)
    if located.place is None:
        return [*untried(run.manifest, against.manifest, "not_replayed"), *rest]
    listener.on_phase("explaining")
    trials = Trials(
        path=run.path,
        manifest=run.manifest,
        against=against.manifest,
        records=against.records,
        step=step,
        tell=listener.on_explanation,
    )
    return [*trials.explain(located.place.kind), *rest]
