"""Steps inferred from the lr of a log that prints none."""

import math
from itertools import pairwise

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from jinmaek.detect.steps import infer_steps
from trainer_log import (
    Trainer,
    constant,
    cosine,
    inverse_sqrt,
    linear,
    noisy,
    polynomial,
    restarts,
    stable_decay,
    step_decay,
)


def printed(trainer, losses, start=0, overflow=()):
    """(steps, lrs, epochs) as the log shows them from line ``start`` on."""
    records = trainer.run(losses, overflow)[start:]
    return [each.step for each in records], [each.lr for each in records], [each.epoch for each in records]


def consistent(found, lrs):
    """Whether the numbering's own schedule gives exactly these lrs, with whole numbers of applied steps."""
    applied = [found.schedule_steps * (1 - lr / found.peak_lr) for lr in lrs]
    return all(abs(count - round(count)) < 0.05 for count in applied) and all(
        round(count) <= step for count, step in zip(applied, found.steps, strict=True)
    )


@settings(deadline=None, max_examples=150, derandomize=True)
@given(
    st.sampled_from([1e-4, 2e-4, 5e-5, 1e-3, 2e-5, 3e-4]),
    st.sampled_from([500, 600, 1000, 2000, 5000]),
    st.sampled_from([10, 20, 50]),
    st.integers(0, 4),
    st.integers(5, 20),
    st.integers(0, 5),
)
def test_an_excerpt_of_a_linear_run_is_numbered_consistently(peak, total, interval, start, num_lines, calibration):
    assume((start + num_lines) * interval < total)
    trainer = Trainer(schedule=linear(peak, total), interval=interval)
    _, lrs, epochs = printed(trainer, noisy(total), start, range(1, calibration + 1))
    lrs, epochs = lrs[:num_lines], epochs[:num_lines]
    found = infer_steps(lrs, epochs)
    # Several peaks and intervals may explain few lines; whichever is chosen must explain every one.
    assert found is not None
    assert consistent(found, lrs)
    assert len(found.steps) == num_lines
    assert {after - before for before, after in pairwise(found.steps)} == {found.interval}
    assert found.skipped_before >= 0


@pytest.mark.parametrize(
    ("total", "first", "before", "inside"), [(1000, 430, 2, (4, 9)), (5000, 870, 5, (1, 9)), (2000, 700, 0, (3, 8))]
)
def test_the_founding_logs_bookkeeping_is_read_back(total, first, before, inside):
    losses = noisy(first + 100)
    for window, count in enumerate(inside):
        for at in range(count):
            losses[first + 40 + 10 * window + at] = math.nan
    for at in range(first + 60, first + 100):
        losses[at] = math.nan
    trainer = Trainer(schedule=linear(1e-4, total), steps_per_epoch=10578.0)
    steps, lrs, epochs = printed(trainer, losses, first // 10 - 1, range(1, before + 1))
    found = infer_steps(lrs, epochs)
    assert found is not None
    assert (found.peak_lr, found.schedule_steps, found.interval) == (1e-4, total, 10)
    assert found.steps == tuple(steps)
    assert found.skipped_before == before


def test_more_dead_lines_than_healthy_ones_are_numbered_all_the_same():
    losses = noisy(600)
    for at in (484, 485, 490, *range(501, 601)):
        losses[at - 1] = math.nan
    trainer = Trainer(schedule=linear(1e-4, 1000), steps_per_epoch=10578.0)
    steps, lrs, epochs = printed(trainer, losses, 42)
    found = infer_steps(lrs, epochs)
    assert found is not None
    assert found.steps == tuple(steps)


OTHERS = {
    "constant": constant(2e-4),
    "warm-up": constant(2e-4, 600),
    "cosine": cosine(2e-4, 1000),
    "cosine with a warm-up": cosine(2e-4, 1000, 30),
    "cosine with a floor": cosine(2e-4, 1000, 0, 0.1),
    "linear with a warm-up in view": linear(2e-4, 1000, 100),
    "quadratic": polynomial(2e-4, 1000, 2.0),
    "inverse square root": inverse_sqrt(2e-4, 10),
    "steps": step_decay(2e-4, 100, 0.5),
    "exponential": step_decay(2e-4, 1, 0.999),
    "restarts": restarts(2e-4, 1000, 4),
    "warm-up, stable, decay": stable_decay(2e-4, 20, 500, 300),
}


@pytest.mark.parametrize("interval", [1, 10, 50])
@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_pure_linear_decay_is_not_numbered(name, interval):
    trainer = Trainer(schedule=OTHERS[name], interval=interval, steps_per_epoch=500.0)
    _, lrs, epochs = printed(trainer, noisy(900))
    assert infer_steps(lrs, epochs) is None


@pytest.mark.parametrize("name", ["cosine", "quadratic", "inverse square root", "exponential", "restarts"])
@pytest.mark.parametrize("start", [5, 20, 40, 60])
def test_ten_lines_of_a_curved_decay_are_not_numbered(name, start):
    _, lrs, epochs = printed(Trainer(schedule=OTHERS[name], steps_per_epoch=500.0), noisy(900))
    assert infer_steps(lrs[start : start + 10], epochs[start : start + 10]) is None


@pytest.mark.parametrize(
    "lrs",
    [
        [],
        [1e-4],
        [1e-4] * 20,
        [1e-4, 9.9e-5, 9.8e-5, 9.7e-5],
        [1e-4, 9.9e-5, None, 9.7e-5, 9.6e-5, 9.5e-5],
        [1e-4, 9.9e-5, math.nan, 9.7e-5, 9.6e-5, 9.5e-5],
        [1e-4, 9.9e-5, math.inf, 9.7e-5, 9.6e-5, 9.5e-5],
        [9.5e-5, 9.6e-5, 9.7e-5, 9.8e-5, 9.9e-5, 1e-4],
        [9.9e-5, 9.8e-5, 9.7e-5, 9.8e-5, 9.6e-5, 9.5e-5, 9.4e-5],
    ],
)
def test_what_says_nothing_is_not_numbered(lrs):
    assert infer_steps(lrs, [None] * len(lrs)) is None


def test_epochs_that_contradict_the_lr_are_believed():
    _, lrs, epochs = printed(Trainer(schedule=linear(1e-4, 1000), steps_per_epoch=500.0), noisy(900))
    assert infer_steps(lrs, epochs) is not None
    assert infer_steps(lrs, [0.5 * each * each for each in epochs]) is None


@settings(deadline=None, max_examples=300, derandomize=True)
@given(
    st.lists(st.one_of(st.none(), st.floats()), max_size=12),
    st.lists(st.one_of(st.none(), st.floats()), min_size=12, max_size=12),
)
def test_any_floats_give_an_answer_or_none(lrs, epochs):
    found = infer_steps(lrs, epochs[: len(lrs)])
    assert found is None or len(found.steps) == len(lrs)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(
    st.lists(st.floats(-1e300, 1e300), min_size=3, max_size=12),
    st.floats(1e-300, 1e300),
)
def test_any_falling_lr_gives_an_answer_or_none(tail, fall):
    lrs = [tail[0] - fall * i for i in range(8)] + sorted(tail, reverse=True)
    found = infer_steps(lrs, [None] * len(lrs))
    assert found is None or len(found.steps) == len(lrs)
