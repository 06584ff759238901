"""How far runs of one recipe lie apart by their seeds alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import sqrt
from typing import Any

from jinmaek.comparison.differences import held_out_keys, last_held_out
from jinmaek.comparison.reading import Run
from jinmaek.core.comparison import Basis, NoiseFloor
from jinmaek.core.manifest import is_inert, settings_of
from jinmaek.detect.robust_variance import LEVEL
from jinmaek.detect.student import student_quantile

_SEEDED = ("train.seed", "name")


def noise_floor(runs: Sequence[Run]) -> NoiseFloor | None:
    """From all recipes that several seeds were run of; ``None`` where there is none."""
    groups = _same_recipe(runs)
    if not groups:
        return None
    held_out = {held_out_keys(runs[number]) for group in groups for number in group}
    # Another seed may hold out other examples, which are harder or easier: that is no noise of training.
    basis: Basis = "held_out" if len(held_out) == 1 and frozenset() not in held_out else "train"
    value: Callable[[Run], float | None] = last_held_out if basis == "held_out" else late_loss
    values = [[value(runs[number]) for number in group] for group in groups]
    known = [[each for each in row if each is not None] for row in values]
    freedom = sum(len(row) - 1 for row in known if row)
    if freedom < 1:
        return None
    squares = sum((each - sum(row) / len(row)) * (each - sum(row) / len(row)) for row in known for each in row)
    deviation = sqrt(squares / freedom)
    return NoiseFloor(
        basis=basis,
        groups=tuple(tuple(group) for group in groups),
        deviation=deviation,
        freedom=freedom,
        reach=student_quantile(0.5 + LEVEL / 2, freedom) * sqrt(2) * deviation,
    )


def late_loss(run: Run) -> float | None:
    """Mean healthy training loss of the second half."""
    rows = [row for row in run.rows if row.loss is not None]
    if not rows:
        return None
    middle = (rows[0].start + rows[-1].step) / 2
    late = [row for row in rows if row.start >= middle] or rows[-1:]
    return sum((row.loss or 0.0) * row.width for row in late) / sum(row.width for row in late)


def _same_recipe(runs: Sequence[Run]) -> list[list[int]]:
    """Places of the runs that differ in nothing but the seed, two at least."""
    groups: dict[str, dict[Any, int]] = {}
    for number, run in enumerate(runs):
        if run.manifest is not None:
            settings: Mapping[str, Any] = settings_of(run.manifest)
            kept = {key: value for key, value in settings.items() if key not in _SEEDED and not is_inert(key)}
            # Of several runs of one seed the first counts: they tell of rounding, not of seeds.
            ended = run.rows[-1].step if run.rows else 0  # one that was stopped learnt less
            groups.setdefault(repr((ended, sorted(kept.items()))), {}).setdefault(settings.get("train.seed"), number)
    return [list(group.values()) for group in groups.values() if len(group) > 1]
