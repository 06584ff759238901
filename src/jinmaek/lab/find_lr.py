"""The range of learning rates that works, from short runs at fixed rates.

The range test of Smith (Cyclical Learning Rates for Training Neural Networks, 2015, arXiv 1506.01186) raises lr within
one run and reads off where the loss falls and where it turns. There each lr is judged on weights that the lower ones
made, at another point of the run, by a smoothed training loss that lags, and once: no interval can be given. Here every
lr starts from the same fresh adapter and sees the same examples for as many steps, is judged by the held-out loss, and
is repeated over seeds, so that lrs can be told apart or not. It costs as many runs as lrs × seeds instead of one.

Short runs favour high rates: what is best after forty steps tends to be too high for a long run (short-horizon bias:
Wu et al., Understanding Short-Horizon Bias in Stochastic Meta-Optimization, 2018, arXiv 1803.02021).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from jinmaek.config import load_recipe
from jinmaek.core.errors import RunError
from jinmaek.lab.comparison import Comparison
from jinmaek.lab.design import Design, Factor, make_design
from jinmaek.lab.intervals import LEVEL, mean_interval
from jinmaek.lab.outcome import Outcome

PURPOSE = "find lr"
STEPS, SEEDS = 40, 3
_BELOW, _ABOVE = 4, 3  # half decades around the recipe's lr
_PER_DECADE = 2
_SET_HERE = (
    "train.max_steps",
    "train.epochs",
    "train.eval_every",
    "optim.schedule",
    "optim.schedule_steps",
)
_HELD_OUT = 0.05  # of a recipe that holds nothing out

Found = Literal[
    "range", "still_falling_up", "still_falling_down", "flat", "nothing_learnt", "nothing_ran", "one_seed", "unfinished"
]
"""range: there is one; still_falling_…: the best is the highest or lowest that was tried; flat: no lr is ruled out;
nothing_learnt: not even the best is shown to beat the untrained model; nothing_ran: no lr has all its trials; one_seed:
no intervals; unfinished: an lr lacks trials and has not shown itself too high, so that it may be the best."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LrRange:
    """What was found. ``best``: lowest mean; ``low`` … ``high``: neighbours of it that are not told from it.

    ``too_high``: lowest lr above ``best`` that collapsed, ended not finite or did worse than the untrained model.
    """

    found: Found
    best: float | None = None
    low: float | None = None
    high: float | None = None
    too_high: float | None = None


def lr_grid(around: float, between: str | None = None) -> list[float]:
    """Two lrs a decade: around the recipe's, or from … to as in ``1e-5,1e-2``.

    Raises:
        RunError: ``between`` is no such range.
    """
    if between is None:
        return [_rounded(around * 10 ** (step / _PER_DECADE)) for step in range(-_BELOW, _ABOVE + 1)]
    try:
        low, high = (float(text) for text in between.split(","))
    except ValueError as error:
        raise RunError("lab.bad_range", value=between) from error
    if not 0 < low < high < math.inf:
        raise RunError("lab.bad_range", value=between)
    count = max(2, round(math.log10(high / low) * _PER_DECADE))
    return [_rounded(low * (high / low) ** (step / count)) for step in range(count + 1)]


def _rounded(value: float) -> float:
    return float(f"{value:.2g}")


def lr_design(name: str, settings: Sequence[str], between: str | None, steps: int, seeds: int) -> Design:
    """Short runs of the recipe at a constant lr (after its warm-up, shortened to a quarter of the steps).

    Raises:
        RecipeError, RunError: the recipe or the range is wrong.
    """
    recipe = load_recipe(name, settings)
    _refuse_overridden(settings)
    short = [
        f"train.max_steps={steps}",
        "train.eval_every=0",
        "train.checkpoint_every=0",
        "train.keep_checkpoints=",
        "optim.schedule=constant",
        "optim.schedule_steps=",
        f"optim.warmup_steps={min(recipe.optim.warmup_steps, steps // 4)}",
        "samples.questions=",
        "samples.max_new_tokens=",
        "capture.every=0",
        "capture.keep=",
        "capture.keep_found=",
    ]
    if recipe.data.held_out_source is None and recipe.data.held_out == 0:
        short.append(f"data.held_out={_HELD_OUT}")
    lrs = Factor("optim.lr", tuple(f"{lr:g}" for lr in lr_grid(recipe.optim.lr, between)))
    return make_design(name, [*settings, *short], [lrs], seeds=seeds)


def _refuse_overridden(settings: Sequence[str]) -> None:
    """An empty value asks for no more than what is done anyway."""
    given = [key.strip() for key, _, value in (text.partition("=") for text in settings) if value.strip()]
    if overridden := [key for key in given if key in _SET_HERE or key.startswith(("samples.", "capture."))]:
        raise RunError("lab.find_lr_sets", keys=", ".join(dict.fromkeys(overridden)))


def lrs_of(design: Design) -> list[float]:
    """The lr of each arm."""
    return [float(arm.settings[0].partition("=")[2]) for arm in design.arms]


def judge(design: Design, comparison: Comparison, outcomes: Mapping[int, Outcome]) -> LrRange:
    """Which lrs work, as far as the intervals tell; arms lie in the order of their lr."""
    lrs, best = lrs_of(design), comparison.lowest
    if best is None:
        return LrRange(found="nothing_ran")
    too_high = next(
        (lrs[index] for index in range(best + 1, len(lrs)) if is_ruined(design, index, outcomes)), None
    )  # fmt: skip
    arms = comparison.arms
    if any(not arm.is_whole and not is_ruined(design, index, outcomes) for index, arm in enumerate(arms)):
        return LrRange(found="unfinished", best=lrs[best], too_high=too_high)
    if comparison.num_seeds == 1:
        return LrRange(found="one_seed", best=lrs[best], too_high=too_high)
    if not _beats_untrained(design, best, outcomes):
        return LrRange(found="nothing_learnt", best=lrs[best])
    alive = [index for index, arm in enumerate(comparison.arms) if arm.is_whole]
    alive = [index for index in alive if not is_ruined(design, index, outcomes)]
    told = {index for index in alive if index not in comparison.contenders}  # the best among them
    low = high = best
    while low - 1 in alive and low - 1 not in told:
        low -= 1
    while high + 1 in alive and high + 1 not in told:
        high += 1
    facts = {"best": lrs[best], "low": lrs[low], "high": lrs[high], "too_high": too_high}
    if told == {best} and len(alive) > 1:
        return LrRange(found="flat", **facts)
    if high == len(lrs) - 1:
        return LrRange(found="still_falling_up", **facts)
    return LrRange(found="still_falling_down" if low == 0 else "range", **facts)


def _gains(design: Design, arm: int, outcomes: Mapping[int, Outcome]) -> list[float]:
    """Held-out loss after minus before, of each trial of the arm that succeeded."""
    mine = [outcomes[trial.number] for trial in design.trials if trial.arm == arm and trial.number in outcomes]
    return [
        outcome.held_out_after - outcome.held_out_before
        for outcome in mine
        if outcome.succeeded and outcome.held_out_after is not None and outcome.held_out_before is not None
    ]


def _beats_untrained(design: Design, arm: int, outcomes: Mapping[int, Outcome]) -> bool:
    gains = _gains(design, arm, outcomes)
    if not gains:
        return False
    # One-sided, and for the best of so many arms, chosen after looking.
    mean, half_width = mean_interval(gains, 1 - 2 * (1 - LEVEL) / max(2, len(design.arms)))
    return half_width is not None and mean + half_width < 0


def is_ruined(design: Design, arm: int, outcomes: Mapping[int, Outcome]) -> bool:
    """Whether a trial of the arm collapsed or ended not finite, or all did worse than the untrained model."""
    ends = [outcomes[trial.number] for trial in design.trials if trial.arm == arm and trial.number in outcomes]
    gains = _gains(design, arm, outcomes)
    return any(end.status in ("collapsed", "not_finite") for end in ends) or (bool(gains) and min(gains) > 0)
