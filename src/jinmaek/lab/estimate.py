"""How long a trial will take, from those that are done."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median

from jinmaek.config import Recipe
from jinmaek.lab.design import Design, Trial
from jinmaek.lab.outcome import Outcome


class Estimate:
    """Learns from outcomes what a step and what everything around the steps costs.

    A step's cost is taken from trials of the same arm; where there are none, from all, in proportion to the examples
    (with packing: the tokens) of a step. What a trial spends besides its steps (loading, evaluations) is their median.
    """

    def __init__(self, design: Design, outcomes: Mapping[int, Outcome]) -> None:
        self._design = design
        self._step_seconds: dict[int, list[float]] = {}
        self._steps: dict[int, int] = {}
        self._around: list[float] = []
        for trial in design.trials:
            if trial.number in outcomes:
                self.learn(trial, outcomes[trial.number])

    def learn(self, trial: Trial, outcome: Outcome) -> None:
        """Take in how a trial went."""
        if outcome.seconds_per_step is None:
            return
        self._step_seconds.setdefault(trial.arm, []).append(outcome.seconds_per_step)
        self._steps[trial.arm] = outcome.max_steps
        self._around.append(max(0.0, outcome.seconds - outcome.seconds_per_step * outcome.steps))

    def steps(self, trial: Trial) -> int | None:
        """Steps of the trial; ``None``: the recipe says epochs, and no trial of the arm has run yet."""
        recipe = self._design.arms[trial.arm].recipe
        if recipe is None:
            return 0
        return recipe.train.max_steps or self._steps.get(trial.arm)

    def seconds(self, trial: Trial, done_steps: int = 0) -> float | None:
        """Of what is left of the trial; ``None`` before anything is known."""
        steps = self.steps(trial)
        per_step = self._seconds_per_step(trial.arm)
        if steps is None or per_step is None:
            return None
        return per_step * max(0, steps - done_steps) + median(self._around)

    def _seconds_per_step(self, arm: int) -> float | None:
        if arm in self._step_seconds:
            return median(self._step_seconds[arm])
        recipe = self._design.arms[arm].recipe
        rates = [
            seconds / _size(other.recipe)
            for index, other in enumerate(self._design.arms)
            for seconds in self._step_seconds.get(index, ())
            if other.recipe is not None
        ]
        return median(rates) * _size(recipe) if rates and recipe is not None else None


def _size(recipe: Recipe) -> int:
    train = recipe.train
    return (train.batch_tokens if recipe.data.packing else train.batch_size) * train.accumulation
