"""The numbers of a stretch of faulty records, as the explanation shows them."""

from __future__ import annotations

from typing import Any

from jinmaek.detect.episode import Episode
from jinmaek.detect.naming import SCALER_BITS
from jinmaek.detect.trace import Trace

_TOLERANCE = 0.25  # of the level: true losses further off are not believed
_WINDOWS = 8
_LONGEST = 1000  # steps of a logging window: in a longer one every loss has a candidate near it


def fault_evidence(episode: Episode, trace: Trace) -> dict[str, Any]:
    """All that is known; what is not is left out."""
    before = episode.before
    found: dict[str, Any] = {
        "records": episode.records,
        "zeros": episode.zeros or None,
        "non_finite": episode.non_finite or None,
        "bad_gradients": episode.grads_bad or None,
        "as_nan": (episode.non_finite > 0 and not episode.zeros) or None,  # nothing masks it
        "last_loss": before.value,
        "last_loss_step": before.step,
        "level": before.level,
        "noise": before.noise or None,
        "blow_up": episode.burst,
        "scale_first": episode.scale_first,
        "scale_last": episode.scale_last,
        "true_losses": true_losses(episode, trace) or None,
    }
    found |= _lr_evidence(episode, trace)
    return {name: value for name, value in found.items() if value is not None}


def _lr_evidence(episode: Episode, trace: Trace) -> dict[str, Any]:
    odometer = trace.odometer
    found: dict[str, Any] = {"odometer": "exact" if odometer.windows_read else "none"}
    if episode.frozen or episode.partial:
        found["lr"] = episode.lr_last
        found["skipped_per_window"] = [list(window) for window in episode.windows[:_WINDOWS]] or None
        found["frozen_steps"] = episode.longest_frozen or None
        found |= _schedule_evidence(episode, trace) | _masked_best(episode, trace)
    elif episode.moved:
        before = episode.before.lr if episode.before.lr is not None else episode.lr_first
        found["lr_before"], found["lr_after"] = before, episode.lr_last
    if episode.moved_after_freeze and episode.longest_frozen >= 100:
        found["plateau_steps"] = episode.longest_frozen
        found["predicted_steps"] = SCALER_BITS - found.get("skipped_before", 0)
    return found


def _schedule_evidence(episode: Episode, trace: Trace) -> dict[str, Any]:
    numbering = trace.numbering
    if numbering is None:
        return {}
    thrown = numbering.skipped_before + episode.read_skipped
    return {
        "peak_lr": numbering.peak_lr,
        "schedule_steps": numbering.schedule_steps,
        "skipped_before": numbering.skipped_before,
        "window": numbering.interval,
        "scaler_death_step": episode.last_step + SCALER_BITS - thrown if thrown < SCALER_BITS else None,
    }


def _masked_best(episode: Episode, trace: Trace) -> dict[str, Any]:
    """A window that was partly dead and printed the lowest loss so far."""
    before = min((point.low for point in trace.curve.closed() if point.low is not None), default=None)
    alive = [(value, step) for step, value, _ in episode.finite_inside if value > 0]
    level = episode.before.level
    if before is None or level is None or not alive:
        return {}
    best, step = min((pair for pair in alive if pair[0] > 0.75 * level), default=(None, None))
    if best is None or best >= before:
        return {}
    return {"best_masked_loss": best, "best_masked_step": step}


def true_losses(episode: Episode, trace: Trace) -> list[list[float]]:
    """What the nan filter hid: ``[step, printed, candidate, …]`` for windows with one finite loss.

    transformers replaces a non-finite loss of the i-th step of a window by the window's sum so far over i, so
    that one finite loss L at position j of n prints as L·(n+1)/(n·(j+1)) (``Trainer._inner_training_loop``,
    ``logging_nan_inf_filter``).
    """
    level = episode.before.level
    if not trace.facts.filters_loss or level is None:
        return []
    found = []
    for step, printed, width in episode.finite_inside[:_WINDOWS]:
        num = trace.numbering.interval if trace.numbering is not None else width
        if not 2 <= num <= _LONGEST or not 0 < printed < 0.75 * level:
            continue
        candidates = [printed * num * (place + 1) / (num + 1) for place in range(1, num + 1)]
        near = [loss for loss in candidates if abs(loss - level) <= _TOLERANCE * level]
        if near:
            found.append([step, printed, *(round(loss, 4) for loss in near)])
    return found
