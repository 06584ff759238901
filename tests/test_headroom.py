"""How long a trend leaves, and the smallest part of a batch that still fails."""

import itertools
import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jinmaek.replay.arms_data import minimal_failing
from jinmaek.replay.headroom import steps_left


def line(slope, at_last, count, last=100):
    return {step: at_last - slope * (last - step) for step in range(last - count + 1, last + 1)}


@pytest.mark.parametrize(
    ("slope", "at_last", "expected"), [(0.1, 0.5, 5.0), (0.01, 0.9, 10.0), (0.25, 1.0, 0.0), (0.5, 3.0, 0.0)]
)
@pytest.mark.parametrize("count", [4, 5, 40])
def test_a_straight_line_reaches_the_limit_when_it_does(slope, at_last, expected, count):
    assert steps_left(line(slope, at_last, count)) == pytest.approx(expected, abs=1e-9)


def test_the_steps_are_counted_from_the_last_one_with_gaps_between():
    assert steps_left({2: 0.2, 3: 0.3, 5: 0.5, 8: 0.8}) == pytest.approx(2.0)


def test_an_exact_value_by_hand():
    """Slope 0.097 with a standard error of 0.004: at the last step the line stands at 0.49."""
    shares = {1: 0.1, 2: 0.19, 3: 0.31, 4: 0.4, 5: 0.48}
    slope = (-2 * 0.1 - 0.19 + 0.4 + 2 * 0.48) / 10
    assert steps_left(shares) == pytest.approx((1 - (0.296 + 2 * slope)) / slope)


def test_a_rise_of_less_than_three_standard_errors_is_scatter():
    """Slope 0.14 with a standard error of 0.057, two of the four points being spent on the line."""
    assert steps_left({1: 0.0, 2: 0.3, 3: 0.2, 4: 0.5}) is None
    assert steps_left({1: 0.0, 2: 0.2, 3: 0.3, 4: 0.5}) == pytest.approx((1 - 0.49) / 0.16)


@pytest.mark.parametrize("count", range(4))
def test_a_few_points_are_no_trend(count):
    assert steps_left(line(0.1, 0.5, count)) is None


@pytest.mark.parametrize("slope", [-0.1, -1e-6, 0.0])
def test_what_falls_or_stays_leaves_no_number(slope):
    assert steps_left(line(slope, 0.5, 10)) is None


def test_scatter_is_no_trend_and_a_trend_shows_through_scatter():
    rng = random.Random(0)
    found = [steps_left({step: rng.gauss(0.5, 0.05) for step in range(20)}) for _ in range(200)]
    assert sum(left is not None for left in found) <= 4, "three standard errors: about 1 in 300"
    noisy = [steps_left({step: 0.3 + 0.02 * step + rng.gauss(0, 0.02) for step in range(20)}) for _ in range(50)]
    assert None not in noisy
    assert sum(noisy) / 50 == pytest.approx(35 - 19, rel=0.1)


@settings(max_examples=300, deadline=None)
@given(st.floats(0, 2, allow_subnormal=False), st.integers(4, 40), st.integers(0, 10**6))
def test_a_constant_share_does_not_rise_by_rounding(share, count, first):
    assert steps_left(dict.fromkeys(range(first, first + count), share)) is None


@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats(0, 1e6), max_size=30), st.integers(0, 10**6))
def test_what_is_said_is_a_number_of_steps_or_nothing(values, first):
    left = steps_left(dict(enumerate(values, first)))
    assert left is None or (left >= 0 and math.isfinite(left))


class Asked:
    """A predicate that keeps what it was asked."""

    def __init__(self, fails):
        self.fails = fails
        self.parts = []

    def __call__(self, part):
        self.parts.append(tuple(part))
        return self.fails(frozenset(part))


def subsets(items):
    return (frozenset(part) for count in range(1, len(items) + 1) for part in itertools.combinations(items, count))


def check_asked(items, asked):
    """Each part once, in order, never the whole and never nothing; within ddmin's bound."""
    assert len(set(asked.parts)) == len(asked.parts)
    for part in asked.parts:
        assert 0 < len(part) < len(items)
        assert list(part) == sorted(part)
    assert len(asked.parts) <= len(items) ** 2 + 3 * len(items)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 9), st.lists(st.frozensets(st.integers(0, 8), min_size=1), min_size=1, max_size=4))
def test_a_smallest_part_of_what_fails_whenever_all_its_needs_are_there(count, needs):
    """Against brute force: no proper part of the answer fails (failing by having all that is needed is monotone)."""
    items = list(range(count))
    needs = [need for need in needs if max(need) < count] or [frozenset(items)]
    asked = Asked(lambda part: any(need <= part for need in needs))
    kept = minimal_failing(items, asked)
    assert asked.fails(frozenset(kept))
    assert not any(asked.fails(part) for part in subsets(kept) if len(part) < len(kept))
    if len(needs) == 1:
        assert set(kept) == needs[0]
    check_asked(items, asked)


@settings(max_examples=300, deadline=None)
@given(st.integers(1, 7), st.integers(0, 2**32))
def test_of_any_predicate_no_single_item_of_the_answer_can_be_left_out(count, seed):
    """Where parts fail at random, brute force over the answer's own parts."""
    items = list(range(count))
    rng = random.Random(seed)
    failing = {part for part in subsets(items) if rng.random() < 0.3} | {frozenset(items)}
    asked = Asked(failing.__contains__)
    kept = minimal_failing(items, asked)
    assert frozenset(kept) in failing
    assert kept == sorted(kept)
    if len(kept) > 1:
        assert not any(frozenset(kept) - {item} in failing or frozenset({item}) in failing for item in kept)
    check_asked(items, asked)


@pytest.mark.parametrize(("count", "most"), [(2, 2), (16, 8), (256, 16)])
def test_one_bad_example_is_found_in_a_logarithm_of_runs(count, most):
    for bad in {0, count // 3, count - 1}:
        asked = Asked(lambda part, bad=bad: bad in part)
        assert minimal_failing(list(range(count)), asked) == [bad]
        assert len(asked.parts) <= most


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_is_asked_of_one_item(count):
    asked = Asked(lambda part: True)
    assert minimal_failing(list(range(count)), asked) == list(range(count))
    assert asked.parts == []


def test_equal_items_are_told_apart_by_their_place():
    """A step may hold an example twice, where one epoch ends and the next begins."""
    assert minimal_failing(["a", "b", "a", "b"], lambda part: list(part).count("a") == 2) == ["a", "a"]
    assert minimal_failing(["a", "a", "a"], lambda part: len(part) == 3) == ["a", "a", "a"]
