"""The odometer: applied steps read from the lr column, exactly, and never a skip where there was none."""

import math

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from jinmaek.detect.odometer import Odometer
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

PEAKS = st.sampled_from([1e-3, 3e-4, 2e-4, 1.5e-4, 1e-4, 5e-5, 2e-5, 5e-6])
FAMILIES = {
    "linear": lambda peak, total, warmup, pick: linear(peak, total, warmup),
    "cosine": lambda peak, total, warmup, pick: cosine(peak, total, warmup),
    "cosine-with-floor": lambda peak, total, warmup, pick: cosine(peak, total, warmup, pick([0.1, 0.01, 0.5])),
    "polynomial": lambda peak, total, warmup, pick: polynomial(peak, total, pick([0.5, 1.0, 2.0, 3.0]), warmup),
    "constant": lambda peak, total, warmup, pick: constant(peak),
    "warm-up-then-constant": lambda peak, total, warmup, pick: constant(peak, warmup),
    "restarts": lambda peak, total, warmup, pick: restarts(peak, total, pick([2, 3, 4, 5]), warmup),
    "inverse-sqrt": lambda peak, total, warmup, pick: inverse_sqrt(peak, warmup),
    "step-decay": lambda peak, total, warmup, pick: step_decay(
        peak, max(1, total // pick([3, 5, 10, 30])), pick([0.1, 0.5, 0.9, 0.95])
    ),
    "exponential": lambda peak, total, warmup, pick: step_decay(peak, 1, pick([0.99, 0.999, 0.9999])),
    "warm-up-stable-decay": lambda peak, total, warmup, pick: stable_decay(
        peak, warmup, (total - warmup) * 3 // 5, total - warmup - (total - warmup) * 3 // 5, pick(["linear", "cosine"])
    ),
}


def significant(value, digits):
    """Rounded as ``{:.3e}`` prints it."""
    return float(f"{value:.{digits - 1}e}")


def read(pairs, interval, *, exact=True):
    """The odometer after these (step, lr), with its readings."""
    odometer = Odometer(exact=exact)
    return odometer, [odometer.read(step, lr, interval) for step, lr in pairs]


def lines(schedule, total, interval, *, start=0, skipped=frozenset(), used=False):
    """(step, lr) of each line of a run that threw the steps of ``skipped`` away."""
    applied, pairs = 0, []
    for step in range(1, total + 1):
        before = schedule(applied)
        applied += step not in skipped
        if step % interval == 0 and step > start:
            pairs.append((step, before if used else schedule(applied)))
    return pairs


@st.composite
def clean_runs(draw, family):
    """A run without any skip: (step, lr) of its lines, and their interval."""
    total = draw(st.integers(20, 1500))
    warmup = draw(st.one_of(st.just(0), st.integers(1, total // 2)))
    schedule = FAMILIES[family](draw(PEAKS), total, warmup, lambda options: draw(st.sampled_from(options)))
    interval = draw(st.sampled_from([1, 2, 5, 7, 10, 20, 50]))
    start = draw(st.sampled_from([0, 0, total // 3]))
    return lines(schedule, total, interval, start=start, used=draw(st.booleans())), interval


def false_skips(pairs, interval, *, exact=True):
    """What a clean run's readings claim."""
    odometer, readings = read(pairs, interval, exact=exact)
    return odometer.total_skipped, [(each.step, each.applied, each.num_steps) for each in readings if each.skipped]


@pytest.mark.parametrize("family", FAMILIES)
def test_no_schedule_printed_in_full_ever_shows_a_skip_that_was_none(family):
    @settings(deadline=None, max_examples=120, derandomize=True)
    @given(clean_runs(family))
    def check(run):
        pairs, interval = run
        assert false_skips(pairs, interval) == (0, [])

    check()


@pytest.mark.parametrize("digits", [3, 4, 5, 6])
@pytest.mark.parametrize("family", FAMILIES)
def test_no_rounded_print_of_a_schedule_ever_shows_a_skip_that_was_none(family, digits):
    @settings(deadline=None, max_examples=40, derandomize=True)
    @given(clean_runs(family))
    def check(run):
        pairs, interval = run
        rounded = [(step, significant(lr, digits)) for step, lr in pairs]
        assert false_skips(rounded, interval, exact=False) == (0, [])

    check()


@pytest.mark.parametrize(
    ("schedule", "total", "interval", "digits"),
    [
        (cosine(2e-5, 5000, 150, 0.1), 3000, 20, 17),
        (cosine(3e-4, 200, 20, 0.1), 200, 10, 17),
        (cosine(2e-4, 3000, 100), 3000, 20, 4),
        (cosine(5e-6, 3000), 3000, 50, 4),
        (cosine(2e-5, 10578, 317), 3000, 10, 5),
        (cosine(1e-4, 500, 250), 500, 2, 5),
        (linear(1e-3, 1000, 10), 1000, 5, 3),
        (linear(1e-4, 3000, 90), 3000, 20, 3),
        (linear(2e-5, 3000, 90), 3000, 2, 4),
        (polynomial(1e-4, 10578, 1.0, 5), 3000, 50, 4),
        (restarts(2e-4, 200, 3, 6), 200, 1, 4),
        (inverse_sqrt(1e-4, 0), 1000, 20, 4),
        (inverse_sqrt(2e-4, 0), 500, 20, 5),
        (step_decay(5e-5, 10, 0.99), 100, 7, 17),
        (step_decay(5e-6, 7, 0.9), 500, 5, 17),
        (step_decay(1e-4, 1, 0.999), 500, 20, 3),
        (polynomial(2e-5, 1234, 1.0, 617), 1254, 2, 17),
        (cosine(1e-4, 300, 0, 0.1), 400, 10, 17),
        (stable_decay(1e-3, 1500, 10, 50, "linear"), 1000, 10, 3),
    ],
)
def test_these_clean_runs_show_no_skip(schedule, total, interval, digits):
    pairs = [(step, significant(lr, digits)) for step, lr in lines(schedule, total, interval)]
    assert false_skips(pairs, interval, exact=digits == 17) == (0, [])


@st.composite
def runs_with_skips(draw, shape):
    """A run with skips well after its start and its corner, and the skipped steps."""
    interval = draw(st.sampled_from([1, 2, 5, 10, 20]))
    total = draw(st.integers(20 * interval, 60 * interval))
    warmup = draw(st.one_of(st.just(0), st.integers(1, total // 3)))
    schedule = shape(draw(PEAKS), total, warmup)
    # Three full windows after the warm-up's end are needed first, and one for the corner.
    first = (warmup // interval + 6) * interval + 1
    stop = total - 1
    assume(first < stop)
    skipped = draw(st.sets(st.integers(first, stop), max_size=40))
    return schedule, total, interval, frozenset(skipped), draw(st.booleans())


@settings(deadline=None, max_examples=300, derandomize=True)
@given(runs_with_skips(linear))
def test_a_linear_decay_counts_every_window_exactly(run):
    schedule, total, interval, skipped, used = run
    pairs = lines(schedule, total, interval, skipped=skipped, used=used)
    odometer, readings = read(pairs, interval)
    # The lr that a step used tells of the step before it.
    behind = 1 if used else 0
    true = {
        step: sum(at in skipped for at in range(step - interval + 1 - behind, step + 1 - behind)) for step, _ in pairs
    }
    assert {each.step: each.skipped for each in readings if each.skipped} == {
        step: count for step, count in true.items() if count
    }
    assert odometer.total_skipped == sum(true.values())


@settings(deadline=None, max_examples=300, derandomize=True)
@given(runs_with_skips(cosine))
def test_a_cosine_never_claims_more_skips_than_there_were(run):
    schedule, total, interval, skipped, used = run
    odometer, readings = read(lines(schedule, total, interval, skipped=skipped, used=used), interval)
    assert odometer.total_skipped <= len(skipped)
    assert all(each.skipped == 0 for each in readings if not skipped)


@settings(deadline=None, max_examples=200, derandomize=True)
@given(
    st.sampled_from([10, 20, 50]),
    st.integers(40, 100),
    st.integers(0, 8),
    PEAKS,
    st.data(),
)
def test_a_cosine_that_was_recognised_counts_exactly(interval, windows, warm, peak, data):
    total, warmup = windows * interval, warm * interval // 2
    first = (warmup // interval + windows // 2) * interval
    skipped = frozenset(data.draw(st.sets(st.integers(first, total - 1), max_size=30)))
    pairs = lines(cosine(peak, total, warmup), total, interval, skipped=skipped)
    odometer, readings = read(pairs, interval)
    true = {step: sum(at in skipped for at in range(step - interval + 1, step + 1)) for step, _ in pairs}
    assert {each.step: each.skipped for each in readings if each.skipped} == {
        step: count for step, count in true.items() if count
    }
    assert odometer.total_skipped == len({step for step in skipped if step <= pairs[-1][0]})


@settings(deadline=None, max_examples=100, derandomize=True)
@example(2)
@example(6)
@given(st.integers(1, 10))
def test_windows_that_stand_still_are_frozen_and_wholly_skipped(dead):
    total, interval = 1000, 10
    first = 501
    skipped = frozenset(range(first, first + dead * interval))
    odometer, readings = read(lines(linear(1e-4, total), total, interval, skipped=skipped), interval)
    frozen = [each for each in readings if each.frozen]
    assert [each.step for each in frozen] == [510 + 10 * i for i in range(dead)]
    assert all(each.applied == 0.0 and each.skipped == interval and not each.moved for each in frozen)
    assert odometer.total_skipped == dead * interval


def test_a_skip_while_the_lr_rises_is_settled_by_the_next_line():
    skipped = frozenset([73, 74, 75])
    odometer, readings = read(lines(linear(1e-4, 1000, 200), 300, 10, skipped=skipped), 10)
    assert {each.step: each.skipped for each in readings if each.skipped} == {80: 3}
    assert odometer.total_skipped == 3


@pytest.mark.parametrize("schedule", [linear(1e-4, 1000, 30), cosine(1e-4, 1000), polynomial(1e-4, 1000, 2.0)])
@pytest.mark.parametrize("interval", [1, 10])
def test_a_decay_that_moves_at_every_line_is_never_frozen(schedule, interval):
    _, readings = read(lines(schedule, 999, interval), interval)
    assert not any(each.frozen for each in readings)


def test_a_rounded_lr_that_repeats_because_of_its_digits_is_not_frozen():
    pairs = [(step, significant(lr, 3)) for step, lr in lines(linear(1e-4, 20_000), 600, 1)]
    assert len({lr for _, lr in pairs}) < 40
    _, readings = read(pairs, 1, exact=False)
    assert [each.step for each in readings if each.frozen] == []


def test_the_corner_of_a_warm_up_is_no_skip_even_inside_a_window():
    for warmup in range(31, 60):
        odometer, _ = read(lines(linear(1e-4, 1000, warmup), 400, 10), 10)
        assert odometer.total_skipped == 0, warmup


def test_a_real_run_with_calibration_skips_counts_what_came_later():
    trainer = Trainer(schedule=linear(1e-4, 1000))
    losses = noisy(1000)
    losses[599] = losses[600] = math.nan
    records = trainer.run(losses, overflow=[1, 2])
    odometer, _ = read([(each.step, each.lr) for each in records], 10)
    assert trainer.skipped == [1, 2, 600, 601]
    assert odometer.total_skipped == 2


@pytest.mark.parametrize("interval", [1, 10])
def test_a_constant_lr_that_was_typed_is_constant_and_never_frozen(interval):
    odometer, readings = read([(step, 2e-4) for step in range(interval, 500, interval)], interval)
    assert odometer.constant
    assert not odometer.typed_oddly
    assert not any(each.frozen or each.skipped for each in readings)


def test_an_lr_that_never_moves_but_that_nobody_typed_is_frozen():
    odometer, readings = read([(step, 9.99981746e-5) for step in range(10, 100, 10)], 10)
    assert odometer.typed_oddly
    assert not odometer.constant
    assert all(each.frozen for each in readings[1:])


def test_the_linear_schedule_behind_the_lines_is_found_with_its_skips():
    odometer, _ = read(lines(linear(1e-4, 1000), 500, 10, skipped=frozenset([1, 2, 3])), 10)
    numbering = odometer.linear_schedule(1000)
    assert numbering is not None
    assert (numbering.schedule_steps, numbering.interval) == (1000, 10)
    assert abs(numbering.skipped_before - 3) <= 1


def test_a_cosine_has_no_linear_schedule():
    odometer, _ = read(lines(cosine(1e-4, 1000), 500, 10), 10)
    assert odometer.linear_schedule(1000) is None
