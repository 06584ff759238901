"""What the outcomes of a sweep show: a mean for each arm, differences within seeds, and what they separate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

from jinmaek.lab.design import Design
from jinmaek.lab.intervals import LEVEL, mean_interval
from jinmaek.lab.outcome import Outcome
from jinmaek.lab.side_effects import changes_held_out

Verdict = Literal["lower", "higher", "same", "rounding", "not_separated", "one_seed", "incomparable", "missing"]
"""Of an arm's loss against the base's. same: equal to the last bit in every seed;
rounding: equal to six digits in every seed, however steadily the rest differs; not_separated: the interval holds 0;
one_seed: there is no interval; incomparable: measured on other tokens; missing: no seed in which both have a loss."""

_SIX_DIGITS = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Loss of an arm minus loss of the base within seeds.

    ``half_width``: of the interval at 95 %; ``verdict`` is taken at a level that holds for all comparisons of the sweep
    together (Bonferroni), so that one in twenty of many equal arms is not called different by chance.
    """

    verdict: Verdict
    num_seeds: int = 0
    mean: float | None = None
    half_width: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmResult:
    """One arm over its seeds. ``losses`` by seed, of the trials that succeeded; ``num_failed`` trials did not."""

    name: str
    losses: Mapping[int, float]
    num_trials: int
    num_failed: int
    num_missing: int
    mean: float | None
    half_width: float | None
    skipped_steps: int
    steps: int
    cause: str | None
    tokens_per_second: float | None
    seconds: float
    difference: Difference | None  # None for the base

    @property
    def is_whole(self) -> bool:
        """Whether every trial of it succeeded."""
        return len(self.losses) == self.num_trials


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All arms, and of the lowest mean what the intervals support.

    ``lowest``: index of the arm with the lowest mean among those whose every trial succeeded; ``contenders``: the
    others that may be the best (see :func:`_lowest`). ``held_out``: whether the loss is the held-out one.
    """

    arms: tuple[ArmResult, ...]
    base: int
    num_seeds: int
    held_out: bool
    comparable: bool
    lowest: int | None
    contenders: tuple[int, ...]

    @property
    def num_failed(self) -> int:
        """Trials that did not succeed."""
        return sum(arm.num_failed for arm in self.arms)

    @property
    def num_missing(self) -> int:
        """Trials that were not run to an end."""
        return sum(arm.num_missing for arm in self.arms)


def compare_arms(design: Design, outcomes: Mapping[int, Outcome]) -> Comparison:
    """Sum up a sweep; trials without an outcome count as missing.

    Where the seed itself is varied, arms are seeds, and there is nothing to pair.
    """
    by_arm: list[dict[int, Outcome]] = [{} for _ in design.arms]
    for trial in design.trials:
        if trial.number in outcomes:
            by_arm[trial.arm][trial.seed] = outcomes[trial.number]
    every = [outcome for found in by_arm for outcome in found.values() if outcome.succeeded]
    data = design.recipe.data
    asked = data.held_out > 0 or data.held_out_source is not None
    held_out = all(outcome.held_out_tokens for outcome in every) if every else asked
    losses = [{seed: loss for seed, outcome in found.items() if (loss := _loss(outcome, held_out=held_out)) is not None}
              for found in by_arm]  # fmt: skip
    keys = [factor.key for factor in design.factors]
    tokens_differ = _tokens_differ(by_arm)
    comparable = not changes_held_out(keys, design.recipe) and not tokens_differ
    level = 1 - (1 - LEVEL) / max(1, len(design.arms) - 1)
    arms = tuple(
        _arm(design, index, by_arm[index], losses[index], None if index == design.base else
             _difference(losses[index], losses[design.base], level, comparable=comparable))
        for index in range(len(design.arms))
    )  # fmt: skip
    lowest, contenders = _lowest(arms) if comparable else (None, ())
    return Comparison(
        arms=arms, base=design.base, num_seeds=len(design.seeds), held_out=held_out,
        comparable=comparable, lowest=lowest, contenders=contenders,
    )  # fmt: skip


def _loss(outcome: Outcome, *, held_out: bool) -> float | None:
    if not outcome.succeeded:
        return None
    return outcome.loss if held_out else outcome.train_loss


def _tokens_differ(by_arm: Sequence[Mapping[int, Outcome]]) -> bool:
    """Whether two arms measured the held-out loss of one seed on different numbers of tokens."""
    measured: dict[int, set[int]] = {}
    for found in by_arm:
        for seed, outcome in found.items():
            if outcome.held_out_tokens:
                measured.setdefault(seed, set()).add(outcome.held_out_tokens)
    return any(len(counts) > 1 for counts in measured.values())


def _arm(
    design: Design, index: int, found: Mapping[int, Outcome], losses: Mapping[int, float], difference: Difference | None
) -> ArmResult:
    num_trials = 1 if design.varies_seed else len(design.seeds)
    ended = [outcome for outcome in found.values() if outcome.status != "interrupted"]
    failed = [outcome for outcome in ended if not outcome.succeeded]
    mean, half_width = mean_interval(list(losses.values())) if losses else (None, None)
    speeds = [outcome.tokens_per_second for outcome in ended if outcome.tokens_per_second is not None]
    causes = Counter(outcome.causes[0] for outcome in ended if outcome.causes)
    return ArmResult(
        name=design.arms[index].name,
        losses=losses,
        num_trials=num_trials,
        num_failed=len(failed),
        num_missing=num_trials - len(ended),
        mean=mean,
        half_width=half_width,
        skipped_steps=sum(outcome.skipped_steps for outcome in ended),
        steps=sum(outcome.steps for outcome in ended),
        cause=causes.most_common(1)[0][0] if causes else None,
        tokens_per_second=fmean(speeds) if speeds else None,
        seconds=sum(outcome.seconds for outcome in found.values()),
        difference=difference,
    )


def _difference(arm: Mapping[int, float], base: Mapping[int, float], level: float, *, comparable: bool) -> Difference:
    """Of two arms within the seeds that both have a loss for."""
    differences = [arm[seed] - base[seed] for seed in arm if seed in base]
    if not differences:
        return Difference(verdict="missing")
    mean, half_width = mean_interval(differences)
    facts = {"num_seeds": len(differences), "mean": mean, "half_width": half_width}
    if not comparable:
        return Difference(verdict="incomparable", **facts)  # type: ignore[arg-type]
    digit = _SIX_DIGITS * max(abs(base[seed]) for seed in arm if seed in base)
    return Difference(verdict=_verdict(differences, level, digit), **facts)  # type: ignore[arg-type]


def _verdict(differences: Sequence[float], level: float, digit: float) -> Verdict:
    if not any(differences):
        return "same"
    if max(map(abs, differences)) < digit:
        return "rounding"
    mean, half_width = mean_interval(differences, level)
    if half_width is None:
        return "one_seed"
    if abs(mean) <= half_width:
        return "not_separated"
    return "lower" if mean < 0 else "higher"


def _lowest(arms: Sequence[ArmResult]) -> tuple[int | None, tuple[int, ...]]:
    """The arm with the lowest mean, and the others that no arm is shown to be below.

    Subset selection (Gupta, On Some Multiple Decision Rules, Technometrics 7, 1965) with paired differences and
    Bonferroni's bound: the truly best of n arms goes only if one of n - 1 one-sided tests errs, so that the lowest and
    its contenders hold the best arm in 95 of 100 sweeps, although the lowest was chosen after looking.
    """
    whole = [index for index, arm in enumerate(arms) if arm.is_whole and arm.mean is not None]
    if not whole:
        return None, ()
    lowest = min(whole, key=lambda index: (arms[index].mean, index))
    level = 1 - 2 * (1 - LEVEL) / max(2, len(whole) - 1)

    def is_beaten(index: int) -> bool:
        others = (other for other in whole if other != index)
        pairs = (_difference(arms[index].losses, arms[other].losses, level, comparable=True) for other in others)
        return any(pair.verdict == "higher" for pair in pairs)

    return lowest, tuple(index for index in whole if index != lowest and not is_beaten(index))
