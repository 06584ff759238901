"""What holding runs against each other comes to.

The first run is the one that the others are held against: every difference is *other minus first*. Words are made
from it by :mod:`jinmaek.explain`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from jinmaek.core.codec import plain
from jinmaek.core.finding import Confidence, Health
from jinmaek.core.limits import Limits

Outcome = Literal["identical", "separated", "within_seeds", "not_separated", "no_interval"]
"""identical: every step that both recorded is the same to the bit; separated: the interval of the difference leaves
out 0; within_seeds: it does, but another seed makes as much difference; not_separated: it holds 0; no_interval: too
little in common for one."""

Equivalence = Literal["equivalent", "different", "not_enough"]
"""equivalent: the difference is shown to lie within the margin (two one-sided tests); different: shown to lie beyond
it; not_enough: neither."""

Basis = Literal["held_out", "train"]
State = Literal["same", "differs", "unknown"]
Rounding = Literal["fits", "too_large", "other_cause", "unknown"]
"""Whether rounding explains where two trajectories part. other_cause: something that changes a step differs before."""

RoundingGap = Literal["printed_digits", "not_recorded", "precision", "size"]
LrCause = Literal["schedule_steps", "peak_lr", "schedule", "skipped"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A mean with its two-sided interval.

    Attributes:
        value: the estimate.
        low, high: ends of the interval at ``level``.
        level: its nominal coverage.
        num: what it is a mean of: windows of steps, or held-out examples.
        detectable: smallest true value that would have been told from 0 in four of five cases.
    """

    value: float
    low: float
    high: float
    level: float
    num: int
    detectable: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """One thing that both runs may have in common. ``first``, ``other``: as recorded; ``None``: not recorded."""

    name: str
    state: State
    first: str | None = None
    other: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """The first common window at which the two records are not the same.

    Attributes:
        step: its last step.
        exact: whether digests were compared (else printed numbers).
        relative: |difference| over the value, of the loss, or where that is the same of the gradient norm.
        relative_later: the median of the same over steps 10 to 30 after it; ``None`` where there are none.
        epsilon: of the coarsest precision that either computes in; ``None``: not recorded.
        rounding: whether rounding explains it, and
        gap: why that cannot be told.
        causes: what differs and may change a step, as names of settings or facts.
    """

    step: int
    exact: bool
    relative: float | None
    relative_later: float | None
    epsilon: float | None
    rounding: Rounding
    gap: RoundingGap | None = None
    causes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LrDifference:
    """The lr of the other run over that of the first, where they differ.

    ``first_step``: the first window that shows it; ``last_ratio``: at ``last_step``, the end of what is common.
    """

    first_step: int
    last_step: int
    last_ratio: float
    cause: LrCause | None
    first_value: float | str | None = None
    other_value: float | str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """The last held-out losses. ``difference`` is paired by example; ``None`` where examples cannot be paired.

    ``first_loss``, ``other_loss``: over the examples that both have, or, unpaired, as each recorded it.
    """

    first_step: int
    other_step: int
    first_loss: float
    other_loss: float
    difference: Interval | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One run held against the first.

    Attributes:
        other: which run, its place among :attr:`Comparison.runs`.
        num_common: windows of steps that both recorded with a healthy loss.
        first_step, last_step: the steps that they span.
        window_steps: steps a window holds.
        by_record: the logs name no steps; records were counted instead.
        facts: what is the same, what differs, what cannot be told.
        order_differs_at: first common step with other examples; ``None``: none, or not recorded.
        lr: where the lr differs, and
        lr_recorded: whether both recorded it in all that is common.
        split: where the trajectories part; ``None`` where they do not.
        largest: largest |difference| of the loss in a window, and
        largest_step: where.
        mean: mean difference over all that is common, with its interval.
        late: the same over the second half, after the format is learnt.
        correlation: of the two losses around their own trends: how much noise pairing takes away.
        held_out: the last held-out losses.
        basis: what ``outcome`` and ``equivalence`` rest on.
        outcome, equivalence: the answers; the latter ``None`` where nobody asked.
        decided: the interval that decided, at the level that allows for the number of pairs.
    """

    other: int
    num_common: int
    first_step: int
    last_step: int
    window_steps: int
    by_record: bool
    facts: tuple[Fact, ...]
    order_differs_at: int | None
    lr: LrDifference | None
    lr_recorded: bool
    split: Split | None
    largest: float | None
    largest_step: int | None
    mean: Interval | None
    late: Interval | None
    correlation: float | None
    held_out: HeldOut | None
    basis: Basis | None
    outcome: Outcome
    equivalence: Equivalence | None = None
    decided: Interval | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseFloor:
    """How far runs of one recipe lie apart that differ in their seed only.

    Attributes:
        basis: what was measured: the last held-out loss, or the mean training loss of the second half.
        groups: the runs of each recipe, by their places.
        deviation: standard deviation between seeds, pooled over recipes that have several.
        freedom: its degrees of freedom.
        reach: half width of the 95 % range of the difference between two single runs.
    """

    basis: Basis
    groups: tuple[tuple[int, ...], ...]
    deviation: float
    freedom: int
    reach: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedRun:
    """One of the runs: what it was read as, how far it reaches, its health, and what limits it.

    ``confidence``: in the first of ``causes``; ``None`` where there is none.
    """

    source: str
    format: str
    num_records: int
    first_step: int | None
    last_step: int | None
    verdict: Health
    causes: tuple[str, ...]
    confidence: Confidence | None
    limits: Limits | None
    series: tuple[tuple[int, float | None], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The whole answer. ``margin``: nats within which a difference does not matter; ``None``: nobody asked."""

    runs: tuple[ComparedRun, ...]
    pairs: tuple[Pair, ...]
    floor: NoiseFloor | None
    margin: float | None = None

    @property
    def equivalence(self) -> Equivalence | None:
        """Of all pairs together: different if one is, equivalent if all are."""
        found = [pair.equivalence for pair in self.pairs]
        if self.margin is None:
            return None
        if "different" in found:
            return "different"
        return "equivalent" if set(found) == {"equivalent"} else "not_enough"

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; non-finite numbers as strings."""
        row: Mapping[str, Any] = asdict(self)
        for run in row["runs"]:
            run.pop("series")
        encoded: dict[str, Any] = plain({**row, "equivalence": self.equivalence})
        return encoded
