"""What two runs have in common, what differs, and what one of them does not record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinmaek.comparison.reading import Run
from jinmaek.core.comparison import Fact, LrCause, LrDifference, State
from jinmaek.core.manifest import FINGERPRINTS, Manifest, facts_of, is_inert, settings_of

KERNELS = "kernels"
_SEEN = 1e-6  # relative: what two printed learning rates differ by is no rounding
_LOGGED = ("max_steps", "accumulation", "schedule", "schedule_steps", "warmup_steps", "peak_lr", "max_grad_norm",
           "weight_decay", "precision", "optimizer")  # fmt: skip
# Settings that change how a step is computed and not what.
_ROUNDING = ("kernels.", "train.deterministic", "train.precision", "train.batch_size", "train.accumulation",
             "model.attention", "model.activation_checkpointing", "model.compute_dtype")  # fmt: skip
# Their effect on a step is in the recorded lr, example ids and fresh adapter.
_JUDGED_ELSEWHERE = (
    "optim.lr", "optim.schedule", "optim.schedule_steps", "optim.warmup_steps", "train.max_steps", "train.epochs",
    "train.seed", "name", "data.held_out", "data.held_out_source", "data.limit",
)  # fmt: skip


def compare_facts(first: Run, other: Run) -> tuple[Fact, ...]:
    """By manifest where both have one, else by what their logs say."""
    if first.manifest is not None and other.manifest is not None:
        return tuple(_by_manifest(first.manifest, other.manifest))
    return tuple(_by_log(first, other))


def _by_manifest(first: Manifest, other: Manifest) -> list[Fact]:
    one, two = (dict(facts_of(each)) for each in (first, other))
    for facts, manifest in ((one, first), (two, other)):
        if manifest.get(KERNELS):
            facts[KERNELS] = str(manifest[KERNELS])
    named = [*FINGERPRINTS, KERNELS, "determinism", "device.driver"]
    # Everything that differs, and the few things whose sameness is worth a word.
    names = [name for name in dict.fromkeys([*one, *two]) if one.get(name) != two.get(name) or name in named]
    return [_fact(name, one.get(name), two.get(name)) for name in names]


def _by_log(first: Run, other: Run) -> list[Fact]:
    one, two = _logged(first), _logged(other)
    found = [_fact(name, one.get(name), two.get(name)) for name in dict.fromkeys([*one, *two])]
    return [*found, *(_fact(name, None, None) for name in (*FINGERPRINTS, "versions", "device", "determinism"))]


def _logged(run: Run) -> dict[str, str]:
    facts = {name: getattr(run.facts, name) for name in _LOGGED}
    facts["schedule_steps"] = run.diagnosed.schedule_steps
    facts["peak_lr"] = run.diagnosed.peak_lr
    known: dict[str, str] = {name: f"{value:g}" if isinstance(value, float) else str(value)
                             for name, value in facts.items() if value is not None}  # fmt: skip
    return known


def _fact(name: str, first: str | None, other: str | None) -> Fact:
    state: State = "unknown" if first is None or other is None else "same" if first == other else "differs"
    if (first is None) != (other is None) and "." in name:  # a setting that one recipe has and the other lacks
        state = "differs"
    return Fact(name=name, state=state, first=first, other=other)


def suspects(first: Run, other: Run) -> tuple[list[str], list[str]] | None:
    """Settings that differ: those that change a step, and those that only change how it is rounded.

    Their effect through the lr, the order and the fresh adapter is judged by the records. ``None`` without manifests.
    """
    if first.manifest is None or other.manifest is None:
        return None
    one, two = settings_of(first.manifest), settings_of(other.manifest)
    differing = [name for name in dict.fromkeys([*one, *two]) if one.get(name) != two.get(name)]
    differing = [name for name in differing if not is_inert(name) and name not in _JUDGED_ELSEWHERE]
    if not any(settings.get("train.precision") == "fp16" for settings in (one, two)):
        differing = [name for name in differing if not name.startswith("train.loss_scale_")]  # nothing is scaled
    rounding = [name for name in differing if name.startswith(_ROUNDING)]
    changing = [name for name in differing if name not in rounding]
    for name in ("data", "initial_adapter", "base"):
        prints = [run.get("fingerprints", {}).get(name) for run in (first.manifest, other.manifest)]
        if prints[0] != prints[1]:
            changing.append(name)
    mine, its = _environment(first.manifest), _environment(other.manifest)
    return changing, [*rounding, *(name for name in mine if mine[name] != its.get(name))]


def _environment(manifest: Mapping[str, Any]) -> dict[str, Any]:
    device = {f"device.{name}": value for name, value in manifest.get("device", {}).items()}
    single = {name: manifest.get(name) for name in ("determinism", KERNELS)}
    return {**manifest.get("versions", {}), **device, **single}


def lr_difference(first: Run, other: Run, lrs: list[tuple[int, float, float]]) -> LrDifference | None:
    """Where and by how much the lr differs; ``lrs``: (step, first, other) of every common window."""
    differing = [(step, one, two) for step, one, two in lrs if abs(one - two) > _SEEN * max(abs(one), abs(two))]
    if not differing:
        return None
    step, one, two = lrs[-1]
    if one == 0 or step < differing[-1][0]:
        step, one, two = next((each for each in reversed(differing) if each[1]), differing[-1])
    cause, values = _lr_cause(first, other)
    return LrDifference(
        first_step=differing[0][0],
        last_step=step,
        last_ratio=two / one if one else float("inf"),
        cause=cause,
        first_value=values[0],
        other_value=values[1],
    )


def _lr_cause(first: Run, other: Run) -> tuple[LrCause | None, tuple[Any, Any]]:
    one, two = first.diagnosed, other.diagnosed
    if first.facts.schedule and other.facts.schedule and first.facts.schedule != other.facts.schedule:
        return "schedule", (first.facts.schedule, other.facts.schedule)
    peaks = _peaks(first, other)
    if peaks is not None and abs(peaks[0] - peaks[1]) > _SEEN * peaks[0]:
        return "peak_lr", peaks
    moving = not (one.constant_lr or two.constant_lr)
    if moving and one.schedule_steps and two.schedule_steps and one.schedule_steps != two.schedule_steps:
        return "schedule_steps", (one.schedule_steps, two.schedule_steps)
    return None, (None, None)


def _peaks(first: Run, other: Run) -> tuple[float, float] | None:
    """As the settings say, else as the logs show it: a log that begins late may have missed the highest."""
    said = first.facts.peak_lr, other.facts.peak_lr
    shown = first.diagnosed.peak_lr, other.diagnosed.peak_lr
    one, two = said if None not in said else shown
    return (one, two) if one and two else None
