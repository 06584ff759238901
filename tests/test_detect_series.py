"""Level, curve and epochs: what a run of any length is kept as."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jinmaek.core.record import RunFacts, StepRecord
from jinmaek.detect.curve import LIMIT, Curve
from jinmaek.detect.epochs import BINS, MAX_EPOCHS, Epochs
from jinmaek.detect.level import ENOUGH, SIZE, Level
from jinmaek.detect.panel import Panel
from trainer_log import judge

FINITE = st.floats(-1e12, 1e12)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(st.lists(FINITE, min_size=1, max_size=120))
def test_the_level_is_the_median_of_the_last_values(values):
    level = Level()
    for value in values:
        level.add(value)
    last = values[-SIZE:]
    assert level.recent == last
    assert level.median == sorted(last)[len(last) // 2]
    assert level.count == len(values)
    assert level.known == (len(values) >= ENOUGH)
    assert level.noise > 0
    assert level.high > level.median


def test_the_noise_of_a_normal_sample_is_its_standard_deviation():
    rng, noises = random.Random(0), []
    for _ in range(300):
        level = Level()
        for _ in range(SIZE):
            level.add(rng.gauss(2.0, 0.1))
        noises.append(level.noise)
    assert sum(noises) / len(noises) == pytest.approx(0.1, rel=0.07)


def test_memory_stays_bounded_over_a_million_values():
    curve, level = Curve(), Level()
    for step in range(1, 1_000_001):
        curve.add(step, 1.0)
        level.add(2.0)
    assert len(curve.points) < LIMIT
    assert len(curve.closed()) <= LIMIT
    assert sum(point.num for point in curve.closed()) == 1_000_000
    assert curve.closed()[-1].step == 1_000_000
    assert len(level.recent) == SIZE


def test_memory_of_the_epochs_stays_bounded():
    epochs = Epochs()
    for step in range(1, 50_001):
        epochs.add(step, step / 100, 1.0)
    assert len(epochs.borders) == MAX_EPOCHS
    assert len(epochs.profiles) == MAX_EPOCHS
    assert all(len(border.before) <= 8 and len(border.after) <= 8 for border in epochs.borders)
    assert all(len(profile) == BINS for profile in epochs.profiles)


@settings(deadline=None, max_examples=60, derandomize=True)
@given(
    st.lists(st.one_of(FINITE, st.just(math.nan), st.just(math.inf)), min_size=1, max_size=40),
    st.integers(1, 300),
)
def test_joined_points_keep_least_greatest_and_mean(pattern, times):
    values = pattern * times
    curve = Curve()
    for step, value in enumerate(values, 1):
        curve.add(step, value)
    start = 0
    for point in curve.closed():
        true = [value for value in values[start : point.step] if math.isfinite(value)]
        start = point.step
        assert point.num == len(true)
        if not true:
            assert (point.mean, point.low, point.high) == (None, None, None)
            continue
        assert (point.low, point.high) == (min(true), max(true))
        assert point.mean == pytest.approx(sum(true) / len(true), rel=1e-6, abs=1e-3)
    assert start == len(values)


def test_the_width_doubles_when_the_points_are_full():
    curve = Curve()
    for step in range(1, LIMIT):
        curve.add(step, float(step))
    assert curve.width == 1
    curve.add(LIMIT, float(LIMIT))
    assert curve.width == 2
    assert [(point.step, point.mean) for point in curve.points[:2]] == [(2, 1.5), (4, 3.5)]


def test_an_epochs_border_keeps_both_sides():
    epochs = Epochs()
    for step in range(1, 31):
        epochs.add(step, step / 10, 3.0 - (step - 1) // 10)
    assert [(border.step, border.before, border.after) for border in epochs.borders] == [
        (11, [3.0] * 8, [2.0] * 8),
        (21, [2.0] * 8, [1.0] * 8),
    ]


@pytest.mark.parametrize("epoch", [math.nan, math.inf, -1.0, 1e9])
def test_an_epoch_that_is_none_is_not_taken(epoch):
    epochs = Epochs()
    epochs.add(1, epoch, 1.0)
    assert epochs.first is None
    assert not epochs.profiles


def feed(values):
    """The trace after these losses."""
    panel = Panel(RunFacts(source="jinmaek"))
    for step, value in enumerate(values, 1):
        panel.observe(StepRecord(step=step, loss=value, grad_norm=value, lr=1e-4))
    return panel.trace


@settings(deadline=None, max_examples=100, derandomize=True)
@given(st.lists(st.one_of(st.floats(0.5, 5.0), st.sampled_from([math.nan, math.inf, -math.inf])), max_size=80))
def test_what_is_not_finite_never_joins_a_level_or_a_curve(values):
    trace = feed(values)
    assert all(math.isfinite(value) for value in trace.level.recent + trace.grad_level.recent)
    assert all(math.isfinite(value) for _, value in trace.head)
    assert all(point.mean is not None and math.isfinite(point.mean) for point in trace.curve.closed())


def test_a_value_that_stands_out_does_not_join_its_own_baseline():
    rng = random.Random(3)
    values = [2.0 + rng.gauss(0, 0.05) for _ in range(40)]
    calm = feed(values).level.recent
    assert feed([*values, 50.0, 60.0, 70.0]).level.recent == calm
    assert feed([*values, *(50.0 for _ in range(SIZE + 40))]).level.median == 50.0


def test_zeros_of_dead_windows_never_join_the_level():
    values = [2.0 + 0.01 * (i % 7) for i in range(40)]
    trace = feed([*values, *(0.0 for _ in range(100))])
    assert min(trace.level.recent) >= 2.0
    assert trace.loss_state == "zero"


def test_a_loss_of_zero_after_an_honest_fall_is_finite():
    values = [2.0 * 0.9**i for i in range(80)]
    trace = feed([*values, 0.0])
    assert trace.loss_state == "finite"


def test_series_shows_every_record_in_order():
    items = [StepRecord(step=step, loss=math.nan if step % 5 == 0 else 2.0) for step in range(1, 101)]
    assert judge(items).num_records == 100
    panel = Panel(RunFacts(source="jinmaek"))
    for item in items:
        panel.observe(item)
    series = panel.trace.series()
    assert [step for step, _ in series] == list(range(1, 101))
    assert [step for step, value in series if value is None] == list(range(5, 101, 5))
