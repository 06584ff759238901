"""``jinmaek prove``: a step that failed is run again as it was, then with one thing changed at a time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from math import isfinite
from pathlib import Path
from typing import Any

from jinmaek.core.errors import RunError
from jinmaek.core.record import StepRecord
from jinmaek.core.verdict import Cause, Control, Difference, Location, Trial, Verdict
from jinmaek.detect import diagnose_path
from jinmaek.replay import arms, arms_adapter, arms_data
from jinmaek.replay.case import Case
from jinmaek.replay.changes import plain
from jinmaek.replay.combined import combined
from jinmaek.replay.control import Replayed, run_control
from jinmaek.replay.departures import changed_from_outside, lost_at_resume
from jinmaek.replay.headroom import headroom_of, watched_headroom
from jinmaek.replay.locate import locate, nearest_to_limit
from jinmaek.replay.reason import Evidence, causes, outcome_of
from jinmaek.replay.scene import Scene, opened
from jinmaek.replay.symptom import Failure, choose_step, failures

_RECENT, _ORDINARY = 31, 3.0  # steps whose gradients are usual, and how many times their median still is
_SAME_LOSS = 3.0  # times the spread of repetitions within which a recorded loss counts as one of them


class ProofListener:
    """Whoever watches a proof; every method may be overridden."""

    def on_phase(self, phase: str) -> None:
        """Something begins: loading_model, control, locating, arms, history."""

    def on_step(self, step: int) -> None:
        """The step to prove is known."""

    def on_trial(self, trial: Trial) -> None:
        """A trial is over."""


def prove(
    run_dir: str | Path,
    *,
    step: int | None = None,
    listener: ProofListener | None = None,
    base: Any = None,
) -> Verdict:
    """Find out by replay why step ``step`` of a run failed (by default: the step where the gravest fault began).

    The verdict is also written to ``captures/verdict-NNNNNNNN.json`` and noted in ``events.jsonl``.

    Args:
        run_dir: the run.
        step: the step to prove.
        listener: told how it goes.
        base: the run's base model, if it is loaded already (without an adapter).

    Raises:
        RunError: no such run or step, nothing failed, or no state to start from.
        JinmaekError: data or model cannot be loaded any more.
    """
    listener = listener or ProofListener()
    started = time.perf_counter()
    listener.on_phase("loading_model")
    with opened(Path(run_dir), base) as scene:
        chosen, failure = _chosen(scene, step)
        listener.on_step(chosen)
        verdict = _proved(scene, chosen, failure, listener, started)
    _write(scene, verdict)
    return verdict


def _chosen(scene: Scene, step: int | None) -> tuple[int, Failure]:
    optim = scene.session.recipe.optim
    shown = dict(failures(scene.records.values(), (optim.beta1, optim.beta2)))
    if not shown:  # killed before the first step was over
        raise RunError("prove.no_steps", path=scene.directory.path)
    if step is None:
        step = choose_step(shown, diagnose_path(str(scene.directory.path))[0])
    if step not in shown:
        raise RunError("prove.no_such_step", step=step, first=min(shown), last=max(shown))
    return step, shown[step]


def _proved(scene: Scene, step: int, failure: Failure, listener: ProofListener, started: float) -> Verdict:
    listener.on_phase("control")
    replayed = run_control(scene, step)
    control = _judged(scene, step, failure, replayed)
    found: list[Cause] = []
    case, interrupted = None, False
    trials = [_control_trial(control, replayed.reading, failure)]
    listener.on_trial(trials[0])
    if replayed.departure is not None and control.repeats is not False:
        lost = lost_at_resume(scene, replayed, lambda trial: _keep(trial, trials, listener))
        # Another version or device may make another update of the same gradient.
        outside = changed_from_outside(scene, replayed) if lost is None and not scene.differences else None
        found += [cause for cause in (lost, outside) if cause is not None]
    if control.reproduced != "no" and replayed.before is not None:
        repeats = len(replayed.repetitions) or 1
        tell = listener.on_trial
        case = Case(scene, step, failure, replayed, replayed.before, scene.state(replayed.start), tell, repeats, trials)
        try:
            with plain(scene.training) as had_fused:
                _investigate(case, listener, had_fused)
        except KeyboardInterrupt:  # what was tried until now is a verdict too
            interrupted = True
        found += causes(Evidence(failure.symptom, case.trials, case.location, case.facts))
    changed = scene.differences
    found += _why_not_reproduced(control, replayed, failure, changed, known=bool(found))
    fails = failure.seen_in(replayed.reading) and failure.symptom != "none"
    return Verdict(
        run=str(scene.directory.path),
        step=step,
        symptom=failure.symptom,
        outcome=outcome_of(found, reproduced=control.reproduced != "no", fails=fails),
        control=control,
        recorded=_numbers(scene.records[step]),
        location=None if case is None else case.location,
        headroom=None if case is None else case.headroom,
        trials=tuple(trials),
        causes=tuple(found),
        differences=changed,
        device=str(scene.training.device),
        seconds=time.perf_counter() - started,
        interrupted=interrupted,
    )


def _keep(trial: Trial, trials: list[Trial], listener: ProofListener) -> None:
    trials.append(trial)
    listener.on_trial(trial)


def _judged(scene: Scene, step: int, failure: Failure, replayed: Replayed) -> Control:
    """The control; on a device that does not repeat itself the record must lie within what repetitions differ by."""
    control, recorded = replayed.control, scene.records[step]
    if control.reproduced != "no" or control.repeats is not False:
        return control
    shown = [failure.seen_in(reading) for reading in replayed.repetitions]
    near = failure.symptom in ("loss_not_finite", "gradient_not_finite") or (
        recorded.loss is not None
        and any(
            abs(recorded.loss - (reading.loss or 0.0)) <= _SAME_LOSS * (control.spread or 0.0)
            for reading in replayed.repetitions
        )
    )
    if failure.symptom != "none" and not all(shown):
        near = False
    return replace(control, reproduced="within_spread" if near else "no")


def _control_trial(control: Control, reading: StepRecord, failure: Failure) -> Trial:
    fails = failure.symptom != "none" and failure.seen_in(reading)
    return Trial(
        arm="control",
        family="control",
        outcome="fails" if fails else "heals",
        loss=reading.loss,
        grad_norm=reading.grad_norm,
        seconds=reading.seconds or 0.0,
        facts={"start_step": control.start_step},
    )


def _investigate(case: Case, listener: ProofListener, had_fused: bool) -> None:
    """Locate, then try what is still possible; a healthy step is only asked how near the limit it came.

    ``had_fused``: the run computed with the fused kernels; here plain PyTorch does, whose operations can be watched.
    """
    if case.failure.symptom == "none" or not case.failure.seen_in(case.replayed.reading):
        listener.on_phase("headroom")
        nearest = nearest_to_limit(case.scene, case.before, case.step) if case.is_fp16 else None
        if nearest is not None:
            op, share = nearest
            case.headroom = headroom_of(case, op, share)
        return
    reading = case.replayed.reading
    case.facts |= {
        "level": case.failure.level,
        "loss_scale": reading.loss_scale,
        "recorded_loss": reading.loss,
    }
    case.facts["update_beyond_bound"] = case.failure.symptom == "update_beyond_bound"
    operation = None
    if had_fused and arms.plain_kernels(case).outcome != "fails":
        return  # the fault lies in the fused kernels, or in how they round
    if not case.is_finite_symptom:
        listener.on_phase("locating")
        located = locate(case.scene, case.before, case.step)
        if located is not None:
            case.location, operation = located
    listener.on_phase("arms")
    _try_arms(case)
    if case.healed("fresh_adapter", "earlier_adapter") or case.failure.symptom == "update_beyond_bound":
        listener.on_phase("history")
        arms_adapter.history(case)
    if operation is not None and case.location is not None and _can_be_watched(case.location):
        case.headroom = watched_headroom(case, operation, case.location)


def _try_arms(case: Case) -> None:
    """Each next question only if the answers so far leave it open."""
    if case.failure.symptom == "update_beyond_bound":
        return
    arms.precision(case)
    arms.loss_scale(case)
    only_scale = bool(case.healed("smaller_scale"))
    if only_scale and _gradient_is_ordinary(case):
        return  # with a smaller scale nothing is wrong: neither data nor adapter are asked about
    arms_data.examples(case)
    arms_adapter.adapter(case)
    base_fails = case.outcome("fresh_adapter") == "fails"
    wide_heals = bool(case.healed("bf16", "fp32"))
    if base_fails and not only_scale:
        arms.stored_weights(case)
    if not only_scale and not case.healed("mended_weight") and (not wide_heals or _kernel_is_suspect(case.location)):
        arms.kernels(case)
    if not wide_heals:
        arms_adapter.dropout(case)
    if not any(trial.outcome == "heals" and trial.arm not in ("control", "other_batch") for trial in case.trials):
        combined(case)


def _gradient_is_ordinary(case: Case) -> bool:
    """Whether the gradient, where the scale let it be seen, is no larger than those of the steps before."""
    seen = [trial.grad_norm for trial in case.trials if trial.arm == "smaller_scale" and trial.outcome == "heals"]
    before = [
        record.grad_norm
        for step, record in case.scene.records.items()
        if case.step - _RECENT <= step < case.step and record.grad_norm is not None and isfinite(record.grad_norm)
    ]
    return not before or (seen[0] or 0.0) <= _ORDINARY * statistics.median(before)


def _kernel_is_suspect(place: Location | None) -> bool:
    """The operation's true result is in range, cannot be known, or is attention's."""
    if place is None or place.weight is not None:
        return False
    return place.true_absmax is None or place.true_absmax <= place.limit or "attention" in place.op


def _can_be_watched(place: Location) -> bool:
    return place.dtype == "float16" and place.phase == "forward" and place.weight is None


def _why_not_reproduced(
    control: Control, replayed: Replayed, failure: Failure, changed: Sequence[Difference], *, known: bool
) -> list[Cause]:
    found = []
    if control.repeats is False:
        failing = sum(map(failure.seen_in, replayed.repetitions))
        facts: dict[str, Any] = {
            "spread": control.spread, "num_repeats": len(replayed.repetitions), "num_failing": failing,
        }  # fmt: skip
        found.append(Cause(id="not_deterministic", status="confirmed", trials=("control",), facts=facts))
    elif control.reproduced == "no" and not known:
        if changed:
            names = [each.name for each in changed]
            found.append(Cause(id="environment", status="undecided", facts={"names": names}))
        else:
            departure = {"first_departure": control.first_departure}
            found.append(Cause(id="transient", status="undecided", trials=("control",), facts=departure))
    return found


def _numbers(record: StepRecord) -> dict[str, Any]:
    names = ("loss", "grad_norm", "lr", "loss_scale", "update_ratio", "optimizer_stepped", "example_ids", "digest")
    return {name: getattr(record, name) for name in names}


def _write(scene: Scene, verdict: Verdict) -> None:
    path = scene.directory.captures_path / f"verdict-{verdict.step:08d}.json"
    scene.directory.write_json(path, verdict.as_dict())
    scene.directory.append_event(
        "verdict",
        step=verdict.step,
        outcome=verdict.outcome,
        causes=[cause.id for cause in verdict.confirmed()],
        path=path.relative_to(scene.directory.path).as_posix(),
    )
