"""What replaying a step comes to: every trial, where it broke, and what was shown to be the cause.

A cause is *confirmed* only by trials that changed one thing and nothing else; *refuted* likewise; whatever the
trials do not separate stays *undecided*. Words are made from it by :mod:`jinmaek.explain`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal

from jinmaek.core.codec import plain

Outcome = Literal["CONFIRMED", "REFUTED", "INCONCLUSIVE", "NOT_REPRODUCED"]
"""CONFIRMED: the step fails as recorded and at least one cause is shown; REFUTED: it was run again and did not
fail; INCONCLUSIVE: it fails and no trial decides why; NOT_REPRODUCED: the untouched replay is another step than
the recorded one, so that no counterfactual counts."""

Symptom = Literal[
    "loss_not_finite", "gradient_not_finite", "loss_spike", "gradient_spike", "update_beyond_bound", "none"
]
Family = Literal[
    "control",
    "precision",
    "loss_scale",
    "kernel",
    "weights",
    "data",
    "adapter",
    "dropout",
    "history",
    "state",
    "combined",
]
TrialOutcome = Literal["fails", "heals", "matches", "differs", "not_run"]
Status = Literal["confirmed", "refuted", "undecided"]
Phase = Literal["forward", "backward"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The step once more with one thing changed.

    Attributes:
        arm: what was changed (``bf16``, ``without_example`` …); ``control`` is the untouched step.
        family: what kind of change it is.
        outcome: the symptom is still there (``fails``) / is gone (``heals``) / it could not be run. A trial of
            family ``state`` asks another question, whether the change makes the step the recorded one:
            ``matches`` or ``differs``.
        loss: mean nats a loss token, as in StepRecord; ``None`` where it was not run, or no loss token was left.
        grad_norm: 2-norm of the unscaled gradient.
        seconds: wall-clock time.
        facts: the numbers of the arm, by name (``example``, ``loss_scale``, ``start_step`` …).
        reason: why it was not run: a key of the catalogue's ``not_run`` section.
    """

    arm: str
    family: Family
    outcome: TrialOutcome
    loss: float | None = None
    grad_norm: float | None = None
    seconds: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """The first operation whose inputs are good and whose output is not.

    Attributes:
        module: full name of the module it belongs to (of the model without PEFT's prefix).
        op: the operation as torch names it (``aten.mm``).
        phase: forward or backward.
        dtype: of the output (``float16``).
        limit: largest finite number of that dtype.
        input_absmax: largest |x| of each floating input, in order.
        output_absmax: largest finite |y| of the output as computed.
        true_absmax: largest |y| of the same operation on the same inputs in fp64; ``None`` where there is no
            reference for it.
        num_non_finite: values of the output that are not finite, of ``num_values``.
        example_id, position, token: where the first of them lies; ``None`` where the tensor has no such axis.
        weight: name of the stored weight that is itself not finite, if that is the origin.
    """

    module: str
    op: str
    phase: Phase
    dtype: str
    limit: float
    input_absmax: tuple[float, ...]
    output_absmax: float | None
    true_absmax: float | None
    num_non_finite: int
    num_values: int
    example_id: str | None = None
    position: int | None = None
    token: str | None = None
    weight: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Headroom:
    """How near the limit the place came in the steps before: ``shares`` are largest |x| over the limit, by step.

    ``steps_left`` extrapolates the straight line through them: steps until 1.0 is reached, counted from the last;
    ``None`` where they do not rise beyond their scatter.
    """

    module: str
    limit: float
    shares: Mapping[int, float]
    steps_left: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """The untouched replay, which must reproduce the record before any counterfactual counts.

    Attributes:
        reproduced: ``bit_exact``: every digest from ``start_step`` on is the recorded one; ``within_spread``:
            the device does not repeat itself, and the recorded step lies within what repetitions differ by;
            ``no``: it does not.
        start_step: the state it started from, after that step; 0 is the fresh adapter.
        num_steps: steps replayed, the failing one included.
        first_departure: first step whose digest is not the recorded one.
        repeats: whether two replays from one state agree to the bit.
        spread: largest difference between repetitions' losses, in nats; ``None`` where they agree to the bit.
    """

    reproduced: Literal["bit_exact", "within_spread", "no"]
    start_step: int
    num_steps: int
    first_departure: int | None = None
    repeats: bool | None = None
    spread: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Something that is not as it was when the run was recorded."""

    name: str
    recorded: str
    now: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One link of the chain. ``trials`` are the arms it rests on, ``facts`` the numbers for its sentence."""

    id: str
    status: Status
    trials: tuple[str, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The answer for one step of one run.

    ``causes`` run from the symptom to what lies behind it: confirmed ones first, in that order, then what was
    refuted, then what stays undecided. ``interrupted``: it rests on the trials up to a Ctrl-C.
    """

    run: str
    step: int
    symptom: Symptom
    outcome: Outcome
    control: Control
    recorded: Mapping[str, Any] = field(default_factory=dict)
    location: Location | None = None
    headroom: Headroom | None = None
    trials: tuple[Trial, ...] = ()
    causes: tuple[Cause, ...] = ()
    differences: tuple[Difference, ...] = ()
    device: str = ""
    seconds: float = 0.0
    interrupted: bool = False

    def confirmed(self) -> tuple[Cause, ...]:
        """The chain of causes that were shown."""
        return tuple(cause for cause in self.causes if cause.status == "confirmed")

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; non-finite numbers as strings."""
        encoded: dict[str, Any] = plain(_plain_fields(self))
        return encoded


def _plain_fields(value: Any) -> Any:
    if is_dataclass(value):
        return {each.name: _plain_fields(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, tuple | list):
        return [_plain_fields(item) for item in value]
    return value
