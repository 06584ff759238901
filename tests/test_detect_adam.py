"""The bound of Adam's update: never exceeded by exact Adam, and reached by the worst gradients."""

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jinmaek.core.record import StepRecord
from jinmaek.detect.rules.optimizer import adam_bound
from trainer_log import judge

BETAS = [(0.9, 0.999), (0.9, 0.95), (0.8, 0.99), (0.5, 0.9), (0.0, 0.9), (0.95, 0.98)]


def updates(gradients, beta1, beta2):
    """|Δw|/lr of every update of exact Adam (no epsilon)."""
    first = second = 0.0
    for count, gradient in enumerate(gradients, 1):
        first = beta1 * first + (1 - beta1) * gradient
        second = beta2 * second + (1 - beta2) * gradient * gradient
        corrected = second / (1 - beta2**count)
        yield abs(first / (1 - beta1**count)) / math.sqrt(corrected) if corrected > 0 else 0.0


def worst(count, beta1, beta2):
    """The gradients that reach the bound: each (β1/β2) of the one after it."""
    return [(beta1 / beta2) ** (count - 1 - i) for i in range(count)]


@settings(deadline=None, max_examples=400, derandomize=True)
@given(
    st.sampled_from(BETAS),
    st.lists(st.one_of(st.floats(-1e3, 1e3), st.just(0.0), st.floats(1e-6, 1e-3)), min_size=1, max_size=60),
)
def test_exact_adam_never_exceeds_the_bound(betas, gradients):
    for count, ratio in enumerate(updates(gradients, *betas), 1):
        assert ratio <= adam_bound(count, *betas) * (1 + 1e-6)


@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize("count", [1, 2, 3, 10, 100, 500])
def test_the_worst_gradients_reach_the_bound(betas, count):
    reached = list(updates(worst(count, *betas), *betas))[-1]
    assert reached == pytest.approx(adam_bound(count, *betas), rel=1e-6)


@pytest.mark.parametrize("betas", BETAS)
@pytest.mark.parametrize("count", [2, 3, 4])
def test_no_combination_of_gradients_beats_it_and_one_comes_near(betas, count):
    # The last gradient is 1; the earlier ones lie on a grid.
    grid = [sign * i / 12 for i in range(13) for sign in (1, -1)]
    best = max(list(updates([*past, 1.0], *betas))[-1] for past in itertools.product(grid, repeat=count - 1))
    bound = adam_bound(count, *betas)
    assert best <= bound * (1 + 1e-9)
    assert best > 0.99 * bound


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.9, 0.95)])
def test_a_hill_climb_stays_below_it(betas):
    rng = random.Random(0)
    gradients = [rng.random() for _ in range(12)]
    best = list(updates(gradients, *betas))[-1]
    for _ in range(8000):
        tried = [value * math.exp(rng.gauss(0, 0.15)) for value in gradients]
        ratio = list(updates(tried, *betas))[-1]
        if ratio > best:
            best, gradients = ratio, tried
    assert 0.9 * adam_bound(12, *betas) < best <= adam_bound(12, *betas) * (1 + 1e-9)


def test_its_documented_values():
    assert adam_bound(1, 0.9, 0.999) == pytest.approx(1.0)
    assert adam_bound(100, 0.9, 0.999) == pytest.approx(2.2, abs=0.05)
    assert adam_bound(10**6, 0.9, 0.999) == pytest.approx(7.3, abs=0.05)
    assert adam_bound(10, 0.99, 0.9) == math.inf


@pytest.mark.parametrize("betas", BETAS)
def test_it_only_grows(betas):
    bounds = [adam_bound(count, *betas) for count in range(1, 400)]
    assert bounds == sorted(bounds)


def stepping(ratios, **fields):
    return [
        StepRecord(step=step, loss=2.0 + 0.01 * (step % 7), lr=1e-4, update_ratio=ratio, optimizer_stepped=True, **fields)
        for step, ratio in enumerate(ratios, 1)
    ]  # fmt: skip


@pytest.mark.parametrize("seed", range(5))
def test_a_run_of_exact_adam_is_never_accused(seed):
    rng = random.Random(seed)
    gradients = [rng.gauss(0, 1) * 10 ** rng.uniform(-3, 3) for _ in range(400)]
    runs = [gradients, worst(400, 0.9, 0.999), [0.0] * 200 + [1.0] * 200, [1e-8] * 300 + [1e3] * 100]
    for run in runs:
        diagnosis = judge(stepping(updates(run, 0.9, 0.999)), source="jinmaek")
        assert "optim-8bit-map-bug" not in {cause.id for cause in diagnosis.causes}


def test_second_moments_that_decay_away_are_accused():
    ratios = [1.0 + 7.0 * (1 - math.exp(-step / 300)) for step in range(400)]
    diagnosis = judge(stepping(ratios), source="jinmaek")
    assert "optim-8bit-map-bug" in {cause.id for cause in diagnosis.causes}
