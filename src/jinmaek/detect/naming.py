"""Which pathology a stretch of faulty records is.

The decision table: a loss of 0.0 or NaN whose lr stands still was skipped by the loss scaler (weights intact);
one whose lr moves was applied (weights poisoned); a healthy loss afterwards proves that the weights lived. Where
the log does not separate two causes both are named, as possible.
"""

from __future__ import annotations

from dataclasses import dataclass

from jinmaek.core.finding import Confidence, Weights
from jinmaek.detect.episode import Episode
from jinmaek.detect.trace import Trace

SCALER_BITS = 166  # halvings from 2**16 until a float32 is 0: 2**-149 is the last that is not
CALIBRATION = 25  # steps within which the scaler finds its scale


@dataclass(frozen=True, slots=True)
class Name:
    """A pathology, how sure it is, what else was considered, and what it means for the weights."""

    id: str
    confidence: Confidence
    weights: Weights
    ruled_out: tuple[str, ...] = ()
    undecided: tuple[str, ...] = ()


def name_fault(episode: Episode, trace: Trace) -> list[Name]:
    """The pathology, or the candidates that the log does not separate."""
    names = _named(episode, trace)
    if episode.from_start and trace.said("attention_kernel") and names[0].id == "nan-poisoned-weights":
        # The warning names the kernel; another one has not been tried.
        names.append(Name("attn-kernel-nan", "possible", "unknown", ("scaler-skip",), ("labels-all-masked",)))
    return names


def _named(episode: Episode, trace: Trace) -> list[Name]:
    if episode.thrown_away and not episode.applied_anyway and episode.thrown_away == episode.records:
        return [_thrown_away(episode)]
    if episode.loss_bad:
        return _masked(episode, trace)
    if episode.grads_bad:
        return _gradient_only(episode, trace)
    if episode.frozen >= episode.records - 1 and not episode.recovered:
        # It stood still and the losses lived: the updates may be thrown away, the schedule may rest by design.
        return [Name("nan-masked-scaler-skip", "possible", "intact", ("nan-poisoned-weights",), ("end-of-schedule",))]
    return [Name("nan-masked-scaler-skip", "likely", "intact", ("nan-poisoned-weights", "end-of-schedule"))]


def _thrown_away(episode: Episode) -> Name:
    """The record itself says that the update was not applied: the weights are those of the step before."""
    if episode.scale_last is not None:
        if episode.scale_last == 0.0:
            return Name("scaler-collapse-to-zero", "established", "intact", ("nan-poisoned-weights",))
        if episode.from_start and not episode.recovered:
            return Name("scaler-skip-every-step", "established", "intact", ("nan-poisoned-weights",))
        return Name("nan-masked-scaler-skip", "established", "intact", ("nan-poisoned-weights", "overfitting"))
    if not episode.loss_bad:
        return Name("grad-nan-finite-loss", "established", "intact", ("nan-batch-intermittent",))
    if episode.recovered or episode.before.records == 0:
        sure: Confidence = "established" if episode.recovered else "possible"
        return Name("nan-batch-intermittent", sure, "intact", ("nan-poisoned-weights",), ("hardware-fault",))
    if _grew(episode):
        return Name("divergence-to-nan", "likely", "intact", ("nan-poisoned-weights", "hardware-fault"))
    return Name("nan-batch-intermittent", "possible", "intact", ("nan-poisoned-weights",), ("divergence-to-nan",))


def _grew(episode: Episode) -> bool:
    """Whether the loss grew before it stopped being a number: several rises, or a last value far above."""
    before = episode.before
    if before.blow_up is not None and episode.infinite:
        return True
    if before.level is None or before.value is None:
        return False
    higher = before.value - before.level > max(4 * before.noise, 0.1 * before.level)
    return higher and (before.rising >= 3 or (before.value > 3 * before.level and before.rising >= 2))


def _masked(episode: Episode, trace: Trace) -> list[Name]:
    """The loss was 0.0 or not finite, and the record does not say whether the update was applied."""
    if episode.scale_last == 0.0:
        return [Name("scaler-collapse-to-zero", "established", "unknown", ("labels-all-masked",))]
    if _stood_still(episode):
        return [_skipped_by_scaler(episode, trace)]
    if episode.recovered or episode.alive_between >= 2 or episode.grads_alive >= 2:
        if trace.facts.filters_loss and not episode.recovered and _num_diluted(episode) >= 2:
            return [_alive_though_lr_moved(episode)]
        return [_came_back(episode)]
    if trace.reading is None or trace.odometer.num_moved == 0:
        return _without_odometer(episode, trace)
    if episode.moved == 0:  # nothing moved and nothing froze: a single line
        return _without_odometer(episode, trace)
    return _applied(episode, trace)


def _came_back(episode: Episode) -> Name:
    """Healthy losses followed: the weights lived. A loss of 0 without any gradient had no label to learn."""
    if episode.zeros and episode.zeros_without_gradient == episode.zeros and not episode.non_finite:
        ruled_out = ("nan-poisoned-weights", "scaler-skip")
        return Name("labels-partly-masked", "likely", "intact", ruled_out, ("nan-batch-intermittent",))
    undecided = () if episode.non_finite or episode.grads_bad else ("labels-partly-masked",)
    return Name("nan-batch-intermittent", "established", "intact", ("nan-poisoned-weights",), undecided)


def _stood_still(episode: Episode) -> bool:
    """The lr stopped while the schedule should have moved on: the updates were skipped."""
    still = episode.frozen + episode.partial
    if episode.frozen and episode.lr_last == 0.0 and episode.lr_first == 0.0:
        return True
    return episode.frozen > 0 and (still >= episode.moved or episode.longest_frozen >= 100)


def _skipped_by_scaler(episode: Episode, trace: Trace) -> Name:
    ruled_out: tuple[str, ...] = ("nan-poisoned-weights", "overfitting", "convergence", "end-of-schedule")
    released = episode.moved_after_freeze > 0 and not episode.recovered
    if released and 100 <= episode.longest_frozen <= SCALER_BITS + 34 and trace.facts.steps_known:
        sure: Confidence = "established" if episode.moved_after_freeze >= 2 else "likely"
        if episode.alive_after_release:
            return Name("scaler-collapse-to-zero", sure, "intact", ruled_out)
        return Name("scaler-collapse-to-zero", sure, "unknown", ruled_out[1:], ("nan-poisoned-weights",))
    if episode.from_start:
        sure = "established" if episode.frozen >= 2 and trace.odometer.num_moved else "likely"
        return Name("scaler-skip-every-step", sure, "intact", ("nan-poisoned-weights", "labels-all-masked"))
    sure = "established" if episode.frozen + episode.partial >= 2 else "likely"
    return Name("nan-masked-scaler-skip", sure, "intact", ruled_out)


def _applied(episode: Episode, trace: Trace) -> list[Name]:
    """The lr moved on: the optimizer applied what it got."""
    if episode.alive_after and not episode.from_start and episode.burst is None:
        return [_alive_though_lr_moved(episode)]
    if episode.from_start and 100 <= episode.rested_steps <= SCALER_BITS + 34 and episode.longest_frozen:
        # The lr stood at its first value for as long as a scaler takes to die, and then moved.
        undecided = ("nan-poisoned-weights", "constant-schedule")
        return [Name("scaler-collapse-to-zero", "likely", "unknown", ("labels-all-masked",), undecided)]
    if episode.from_start and episode.burst is None:
        return _dead_from_the_first_line(episode, trace)
    if _grew(episode) and episode.non_finite:
        return [Name("divergence-to-nan", "likely", "poisoned", ("scaler-skip",), ("data",))]
    ruled_out = ("scaler-skip", "overfitting", "convergence")
    if episode.moved < 2 and episode.before.blow_up is None and episode.burst is None and not episode.evals_bad:
        return [
            Name("nan-poisoned-weights", "possible", "unknown", ruled_out, ("labels-all-masked",)),
            Name("labels-all-masked", "possible", "unknown", ruled_out, ("nan-poisoned-weights",)),
        ]
    # Since transformers 5 the default AdamW is fused: the scaler's skips happen inside it and the lr moves on all
    # the same. A log without gradient norms is of transformers before 4.38, whose lr waits.
    old = "grad_norm" not in trace.seen
    sure: Confidence = "established" if episode.moved >= 2 and not episode.evals_finite and old else "likely"
    return [Name("nan-poisoned-weights", sure, "poisoned", ruled_out[not old :], () if old else ("fused-skip",))]


def _alive_though_lr_moved(episode: Episode) -> Name:
    """A finite loss after the first NaN: the weights lived, whatever the lr did."""
    ruled_out = ("nan-poisoned-weights", "overfitting", "convergence")
    if any(width != 1 for _, _, width in episode.finite_inside):
        return Name("nan-masked-scaler-skip", "likely", "intact", ruled_out, ("nan-batch-intermittent",))
    return Name("nan-batch-intermittent", "likely", "intact", ruled_out, ("scaler-skip", "labels-partly-masked"))


def _dead_from_the_first_line(episode: Episode, trace: Trace) -> list[Name]:
    """No healthy line: the forward pass may have been broken, or no label was left to learn."""
    if episode.grads_zero and not episode.grads_bad:
        return [Name("labels-all-masked", "likely", "intact", ("nan-poisoned-weights", "scaler-skip"))]
    if episode.evals_finite and not episode.evals_bad:
        return [Name("labels-all-masked", "likely", "intact", ("nan-poisoned-weights", "scaler-skip"))]
    if episode.non_finite or trace.odometer.max_lr >= 0.01:
        return [Name("nan-poisoned-weights", "likely", "poisoned", ("scaler-skip",), ("labels-all-masked", "kernel"))]
    return [
        Name("labels-all-masked", "possible", "unknown", ("scaler-skip",), ("nan-poisoned-weights",)),
        Name("nan-poisoned-weights", "possible", "unknown", ("scaler-skip",), ("labels-all-masked",)),
    ]


def _without_odometer(episode: Episode, trace: Trace) -> list[Name]:
    """A constant lr, or none in the log: only the losses and gradients speak."""
    if episode.from_start and episode.burst is None:
        return _dead_without_odometer(episode, trace)
    if episode.grads_zero and not episode.grads_bad:
        return [Name("labels-all-masked", "possible", "unknown", (), ("nan-poisoned-weights",))]
    if _grew(episode) and episode.non_finite:
        return [Name("divergence-to-nan", "likely", "poisoned", (), ("data",))]
    if episode.alive_after:
        # NaN weights never give a finite loss again.
        return [_alive_though_lr_moved(episode)]
    if episode.burst is not None:
        undecided = ("scaler-skip",)
        return [Name("nan-poisoned-weights", "likely", "unknown", ("overfitting", "convergence"), undecided)]
    if episode.evals_finite and not episode.evals_bad:
        return [Name("nan-masked-scaler-skip", "likely", "intact", ("nan-poisoned-weights", "overfitting"))]
    if episode.evals_bad:
        return [Name("nan-poisoned-weights", "likely", "poisoned", ("overfitting", "convergence"), ("scaler-skip",))]
    ruled_out = ("overfitting", "convergence")
    return [
        Name("nan-masked-scaler-skip", "possible", "unknown", ruled_out, ("nan-poisoned-weights",)),
        Name("nan-poisoned-weights", "possible", "unknown", ruled_out, ("scaler-skip",)),
    ]


def _dead_without_odometer(episode: Episode, trace: Trace) -> list[Name]:
    if episode.lr_last == 0.0 and trace.odometer.max_lr == 0.0:
        return [Name("scaler-skip-every-step", "likely", "intact", ("nan-poisoned-weights",), ("labels-all-masked",))]
    if trace.facts.objective == "sft" and episode.accuracy_gone and not trace.odometer.readings:
        return [Name("labels-all-masked", "likely", "unknown", (), ("nan-poisoned-weights",))]
    if episode.grads_zero and not episode.grads_bad:
        return [Name("labels-all-masked", "likely", "intact", ("nan-poisoned-weights",))]
    names = [
        Name("labels-all-masked", "possible", "unknown", (), ("nan-poisoned-weights", "scaler-skip")),
        Name("scaler-skip-every-step", "possible", "unknown", (), ("labels-all-masked", "nan-poisoned-weights")),
        Name("nan-poisoned-weights", "possible", "unknown", (), ("labels-all-masked", "scaler-skip")),
    ]
    return [*names[1:], names[0]] if episode.grads_bad else names


def _num_diluted(episode: Episode) -> int:
    """Windows whose print is far below the level: the filter put nothing in the place of their NaN."""
    level = episode.before.level
    if level is None:
        return 0
    return sum(0 < value < 0.6 * level and width != 1 for _, value, width in episode.finite_inside)


def _gradient_only(episode: Episode, trace: Trace) -> list[Name]:
    """The loss lived; only the gradient was not finite. A live loss afterwards proves that it was not applied."""
    if not episode.losses_alive:
        return [
            Name("grad-nan-finite-loss", "possible", "unknown", (), ("data", "ds-zero2-overlap-nan")),
            Name("ds-zero2-overlap-nan", "possible", "unknown", (), ("data", "grad-nan-finite-loss")),
        ]
    if trace.facts.filters_loss and _num_diluted(episode) >= 2:
        ruled_out = ("nan-poisoned-weights", "overfitting", "convergence")
        return [Name("nan-masked-scaler-skip", "likely", "intact", ruled_out, ("grad-nan-finite-loss",))]
    still = episode.frozen + episode.partial >= max(1, episode.moved)
    never_moved = trace.reading is not None and trace.odometer.num_moved == 0
    if episode.from_start and not episode.recovered and episode.records >= 3 and (still or never_moved):
        sure: Confidence = "established" if still and episode.frozen >= 2 else "likely"
        undecided = () if still else ("grad-nan-finite-loss",)
        return [Name("scaler-skip-every-step", sure, "intact", ("nan-poisoned-weights",), undecided)]
    if still and not episode.recovered:
        return [Name("nan-masked-scaler-skip", "likely", "intact", ("nan-poisoned-weights",))]
    proved = episode.losses_alive >= 2 or episode.recovered
    return [Name("grad-nan-finite-loss", "likely" if proved else "possible", "intact" if proved else "unknown")]
