"""Where two runs that should be alike part, and which of their differences explains it.

``run`` is the run in question, ``against`` the one it is held against. A difference *explains* the parting only
if the run, built up again with the other's value of it, becomes the other run: digest by digest, up to the step at
which they part. Words are made from it by :mod:`jinmaek.explain`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from jinmaek.core.codec import plain
from jinmaek.core.verdict import Difference

PartingOutcome = Literal["ALIKE", "EXPLAINED", "PARTED", "NOT_REPRODUCED"]
"""ALIKE: every step that both recorded is the same; EXPLAINED: a difference was shown to be why they part;
PARTED: they part, and no difference that can be tried here explains it; NOT_REPRODUCED: the untouched replay of
one of them is not its record, so that run was changed from outside, or does not repeat itself here."""

PlaceKind = Literal["input", "forward", "loss", "loss_scale", "gradient", "lr", "update"]
Side = Literal["run", "against"]
ExplanationOutcome = Literal["explains", "does_not", "not_tested"]
ExplanationReason = Literal[
    "parts",  # the changed replay still leaves the other run, at ``step``
    "no_effect",  # the recipe gives the setting no effect
    "no_part_of_a_step",  # it decides what is kept or shown, not what is computed
    "not_here",  # a version, a device: it cannot be swapped here
    "content",  # the same name, another content
    "recipe",  # the changed recipe contradicts itself: ``said`` tells how
    "cannot_load",  # data or model cannot be loaded: ``said`` tells why
    "out_of_memory",
    "state_does_not_fit",  # too late to start from step 1, and the run's snapshot has other weights
    "too_far",  # too many steps to replay
    "budget",  # enough was tried
    "not_replayed",  # the runs themselves could not be replayed, or not as recorded
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The first tensor, in the order of the step, that the two runs do not share.

    Attributes:
        step: the step it belongs to; the one before the first other digest where its update or lr is another.
        kind: ``input`` (``input_ids``, ``targets``, ``position_ids``), ``forward`` (what a module returned),
            ``loss``, ``loss_scale``, ``gradient`` (unscaled, before clipping), ``lr``, ``update`` (the weight after
            the update).
        name: of the input, module or weight, without PEFT's prefix; the model as a whole is ``""``.
        number, count: which of how many tensors of that step, in the order of ``run``; 1 is the first.
        microbatch: 1 is the first; ``None`` where there is but one such tensor a step.
        only_in: the side that alone has it; ``None`` where both do.
        run_shape, against_shape: ``None`` where the side has no such tensor.
        run_value, against_value: of a single number.
        num_different, num_values: elements that differ; ``None`` where the shapes do.
    """

    step: int
    kind: PlaceKind
    name: str
    number: int
    count: int
    microbatch: int | None = None
    only_in: Side | None = None
    run_shape: tuple[int, ...] | None = None
    against_shape: tuple[int, ...] | None = None
    run_value: float | None = None
    against_value: float | None = None
    num_different: int | None = None
    num_values: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """One of the two runs, run again untouched.

    Attributes:
        side: which of the two, and
        path: its directory.
        reproduced: every replayed step is the recorded one to the bit; ``no``; ``not_run``.
        start_step: the state it started from, after that step; 0 is the fresh adapter.
        num_steps: steps replayed.
        first_departure: the first step that is not the recorded one.
        repeats: whether a second replay agrees with the first; ``None`` where it was not asked.
        changed_groups: modules whose weights had another norm at that step than the record says: with ``repeats``
            and no ``environment``, they were changed from outside.
        environment: what is not as it was when the run was recorded; looked at only where it departs.
        reason: why it was not run, and
        said: the same by language, where an error tells it.
    """

    side: Side
    path: str
    reproduced: Literal["bit_exact", "no", "not_run"]
    start_step: int | None = None
    num_steps: int = 0
    first_departure: int | None = None
    repeats: bool | None = None
    changed_groups: tuple[str, ...] = ()
    environment: tuple[Difference, ...] = ()
    reason: ExplanationReason | None = None
    said: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What became of giving the run the other's value of one difference, or of several together.

    Attributes:
        name: the difference; several are joined by `` + ``.
        outcome: whether the run then is the other run.
        reason: why not, or why it was not tried; ``None`` where it explains.
        parts: the differences, where there are several.
        step: the first step at which the changed replay is not the other run's.
        start_step: what it was replayed from; 0 is the fresh adapter.
        said: the reason by language, where an error tells it.
    """

    name: str
    outcome: ExplanationOutcome
    reason: ExplanationReason | None = None
    parts: tuple[str, ...] = ()
    step: int | None = None
    start_step: int | None = None
    said: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parting:
    """The answer for two runs.

    Attributes:
        run, against: their directories.
        outcome: see :data:`PartingOutcome`.
        num_common_steps: steps that both recorded.
        first_step: the first of them whose digest is another (without digests: whose loss or gradient norm is).
        differences: every setting, fingerprint, version and device fact that is not the same in both manifests;
            ``recorded`` is the run's, ``now`` the other's.
        place: ``None`` where they do not part, or could not be replayed here as recorded.
        max_difference: largest |difference| of that tensor; ``None`` where one side has none of that shape.
        explained_by: every difference that could explain it, in the order tried.
        replays: the two untouched replays; none where they do not part.
        device: what replayed them.
        seconds: wall-clock time.
    """

    run: str
    against: str
    outcome: PartingOutcome
    num_common_steps: int
    first_step: int | None = None
    differences: tuple[Difference, ...] = ()
    place: Place | None = None
    max_difference: float | None = None
    explained_by: tuple[Explanation, ...] = ()
    replays: tuple[Replay, ...] = ()
    device: str = ""
    seconds: float = 0.0

    def explanations(self) -> tuple[Explanation, ...]:
        """What was shown to explain it."""
        return tuple(each for each in self.explained_by if each.outcome == "explains")

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; non-finite numbers as strings."""
        encoded: dict[str, Any] = plain(asdict(self))
        return encoded
