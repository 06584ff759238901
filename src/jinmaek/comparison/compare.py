"""From logs to a comparison."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from jinmaek.comparison.differences import (
    correlation,
    held_out_difference,
    interval,
    late_half,
    mean_difference,
)
from jinmaek.comparison.facts import compare_facts, lr_difference
from jinmaek.comparison.noise_floor import noise_floor
from jinmaek.comparison.reading import Run, read
from jinmaek.comparison.split import find_split
from jinmaek.comparison.windows import Window, common_windows
from jinmaek.core.comparison import (
    Basis,
    ComparedRun,
    Comparison,
    Equivalence,
    HeldOut,
    NoiseFloor,
    Outcome,
    Pair,
)
from jinmaek.core.errors import LogError
from jinmaek.detect.robust_variance import LEVEL, Estimated
from jinmaek.ingest import find_logs

MARGIN = 0.01
"""Nats a token within which a difference does not matter unless somebody says otherwise: 1 % of perplexity."""

Progress = Callable[[str, int], None]


def compare_paths(
    paths: Sequence[str], *, margin: float | None = None, progress: Progress = lambda name, count: None
) -> Comparison:
    """Hold all runs at ``paths`` against the first.

    Args:
        paths: run directories, logs of any trainer, folders of them.
        margin: also ask whether the differences lie within so many nats a token.
        progress: told the name of the log and how many of its items are read.

    Raises:
        LogError: a path cannot be read, there is but one run, or two runs have nothing in common.
    """
    runs = []
    for path in paths:
        for source in find_logs(path):
            runs.append(read(source, path, lambda count, name=source.name: progress(name, count)))  # type: ignore[misc]
    return compare(runs, margin=margin)


def compare(runs: Sequence[Run], *, margin: float | None = None) -> Comparison:
    """Hold ``runs`` against the first of them.

    Raises:
        LogError: fewer than two runs, one of them twice, or nothing in common.
    """
    if len(runs) < 2:
        raise LogError("compare.one_run", name=runs[0].name if runs else "")
    _refuse_twice(runs)
    floor = noise_floor(runs)
    pairs = tuple(_pair(runs, number, floor, margin) for number in range(1, len(runs)))
    return Comparison(runs=tuple(map(_compared, runs)), pairs=pairs, floor=floor, margin=margin)


def _refuse_twice(runs: Sequence[Run]) -> None:
    seen = set()
    for run in runs:
        if run.place in seen:
            raise LogError("compare.twice", name=run.name)
        seen.add(run.place)


def _compared(run: Run) -> ComparedRun:
    diagnosis = run.diagnosed.diagnosis
    return ComparedRun(
        source=run.name,
        format=diagnosis.format,
        num_records=diagnosis.num_records,
        first_step=diagnosis.first_step,
        last_step=diagnosis.last_step,
        verdict=diagnosis.verdict,
        causes=tuple(cause.id for cause in diagnosis.causes),
        confidence=diagnosis.causes[0].confidence if diagnosis.causes else None,
        limits=diagnosis.limits,
        series=run.diagnosed.series,
    )


def _pair(runs: Sequence[Run], number: int, floor: NoiseFloor | None, margin: float | None) -> Pair:
    first, other = runs[0], runs[number]
    windows = _common(first, other)
    healthy = [window for window in windows if window.losses is not None]
    losses = [pair for window in healthy if (pair := window.losses) is not None]
    # Of several comparisons each is made at a level that keeps all of them together at LEVEL (Bonferroni).
    level = 1 - (1 - LEVEL) / (len(runs) - 1)
    lrs = [(window.step, *rates) for window in windows if (rates := window.lrs) is not None]
    lr = lr_difference(first, other, lrs)
    order = next((window.step for window in windows if _other_examples(window)), None)
    whole = mean_difference(losses)
    late_losses = [pair for window in late_half(healthy) if (pair := window.losses)] if healthy else []
    late = mean_difference(late_losses)
    held_out = held_out_difference(first, other)
    estimated, basis, num = _deciding(held_out[1:] if held_out else None, late, len(late_losses))
    split = find_split(first, other, windows, lr, order)
    largest = max(healthy, key=_distance, default=None)
    return Pair(
        other=number,
        num_common=len(healthy),
        first_step=windows[0].start + 1,
        last_step=windows[-1].step,
        window_steps=windows[-1].step - windows[-1].start,
        by_record=not (first.has_steps and other.has_steps),
        facts=compare_facts(first, other),
        order_differs_at=order,
        lr=lr,
        lr_recorded=len(lrs) == len(windows),
        split=split,
        largest=_distance(largest) if largest is not None else None,
        largest_step=largest.step if largest is not None else None,
        mean=interval(whole, len(losses), LEVEL) if whole is not None else None,
        late=interval(late, len(late_losses), LEVEL) if late is not None else None,
        correlation=correlation(losses),
        held_out=_held_out(held_out),
        basis=basis,
        outcome=_outcome(split is None and _exact(windows), estimated, level, basis, floor),
        equivalence=None if margin is None else _equivalence(estimated, split is None, margin, level),
        decided=interval(estimated, num, level) if estimated is not None else None,
    )


def _common(first: Run, other: Run) -> list[Window]:
    if first.has_steps != other.has_steps:
        counted = first if not first.has_steps else other
        raise LogError("compare.no_steps", name=counted.name)
    windows = common_windows(first.rows, other.rows)
    if windows:
        return windows
    for run in (first, other):
        if not run.rows:
            raise LogError("compare.no_records", name=run.name)
    spans = {}
    for name, run in (("first", first), ("other", other)):
        spans[name] = f"{run.rows[0].start + 1}–{run.rows[-1].step}"
    apart = first.rows[-1].step <= other.rows[0].start or other.rows[-1].step <= first.rows[0].start
    names = {"name": first.name, "name_other": other.name}
    if apart:
        raise LogError("compare.no_common_steps", **names, span=spans["first"], span_other=spans["other"])
    widths = {"width": first.rows[-1].width, "width_other": other.rows[-1].width}
    raise LogError("compare.no_common_windows", **names, **widths)


def _other_examples(window: Window) -> bool:
    pairs = list(zip(window.first, window.other, strict=False))
    return any(a.examples is not None and b.examples is not None and a.examples != b.examples for a, b in pairs)


def _exact(windows: Sequence[Window]) -> bool:
    return all(row.digest is not None for row in (*windows[-1].first, *windows[-1].other))


def _distance(window: Window) -> float:
    losses = window.losses
    return abs(losses[1] - losses[0]) if losses is not None else -1.0


def _deciding(
    held_out: tuple[Estimated | None, int] | None, late: Estimated | None, num: int
) -> tuple[Estimated | None, Basis | None, int]:
    """Held-out losses paired by example decide where they are there, else the training loss of the second half."""
    if held_out is not None and held_out[0] is not None:
        return held_out[0], "held_out", held_out[1]
    return (late, "train", num) if late is not None else (None, None, 0)


def _held_out(found: tuple[HeldOut, Estimated | None, int] | None) -> HeldOut | None:
    if found is None or found[1] is None:
        return None if found is None else found[0]
    return replace(found[0], difference=interval(found[1], found[2], LEVEL))


def _outcome(
    alike: bool, estimated: Estimated | None, level: float, basis: Basis | None, floor: NoiseFloor | None
) -> Outcome:
    if alike and (estimated is None or estimated.value == 0):
        return "identical"
    if estimated is None:
        return "no_interval"
    if abs(estimated.value) <= estimated.half_width(level):
        return "not_separated"
    if floor is not None and floor.basis == basis and abs(estimated.value) <= floor.reach:
        return "within_seeds"
    return "separated"


def decide(
    estimated: Estimated, basis: Basis, floor: NoiseFloor | None, level: float, margin: float
) -> tuple[Outcome, Equivalence]:
    """Both answers for two runs that part, from the estimate of their difference."""
    return _outcome(False, estimated, level, basis, floor), _equivalence(estimated, False, margin, level)


def _equivalence(estimated: Estimated | None, alike: bool, margin: float, level: float) -> Equivalence:
    """Two one-sided tests (Schuirmann 1987): the interval at 1 − 2α lies within the margin, or beyond it."""
    if estimated is None:
        return "equivalent" if alike else "not_enough"
    half = estimated.half_width(2 * level - 1)
    low, high = estimated.value - half, estimated.value + half
    if -margin < low and high < margin:
        return "equivalent"
    return "different" if low >= margin or high <= -margin else "not_enough"
