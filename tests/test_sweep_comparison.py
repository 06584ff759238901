"""Intervals and what a sweep is said to show, on outcomes whose truth is known."""

import random

import pytest

from jinmaek.core.codec import plain
from jinmaek.detect.student import student_quantile
from jinmaek.lab.comparison import compare_arms
from jinmaek.lab.intervals import mean_interval
from jinmaek.lab.outcome import Outcome, decode_outcome, encode_outcome
from jinmaek.lab.table import as_dict, sentences
from sweeps import design_of, finished

# Of any statistics book.
TABLE = {(0.95, 1): 12.706, (0.95, 2): 4.303, (0.95, 3): 3.182, (0.95, 4): 2.776, (0.95, 9): 2.262, (0.95, 30): 2.042}
TABLE |= {(0.99, 1): 63.657, (0.99, 2): 9.925, (0.99, 5): 4.032, (0.99, 20): 2.845, (0.9, 3): 2.353, (0.9, 120): 1.658}


@pytest.mark.parametrize("case", TABLE, ids=str)
def test_quantiles_are_those_of_the_tables(case):
    level, freedom = case
    assert student_quantile(0.5 + level / 2, freedom) == pytest.approx(TABLE[case], abs=6e-4)


def test_intervals_hold_the_mean_as_often_as_they_say():
    rng = random.Random(0)
    for count in (2, 3, 5):
        held = 0
        for _ in range(4000):
            mean, half_width = mean_interval([rng.gauss(1.0, 2.0) for _ in range(count)])
            held += abs(mean - 1.0) <= half_width
        assert held / 4000 == pytest.approx(0.95, abs=0.012)


def swept(losses, vary="optim.lr=1e-3,2e-3,3e-3", **options):
    """The comparison of a sweep whose arms have these losses by seed; an Outcome stands for itself."""
    design = design_of("quickstart", vary, seeds=max(map(len, losses)), **options)
    outcomes = {}
    for trial in design.trials:
        row = losses[trial.arm]
        index = trial.seed - 42
        if index < len(row) and row[index] is not None:
            one = row[index]
            outcomes[trial.number] = one if isinstance(one, Outcome) else finished(held_out_after=one)
    return design, compare_arms(design, outcomes), outcomes


def said(design, comparison):
    return " ".join(sentences(design, comparison, "en"))


def test_a_difference_beyond_the_noise_is_told():
    design, found, _ = swept([[4.0, 4.1, 3.9], [2.0, 2.1, 1.95], [2.5, 2.62, 2.45]])
    assert found.base == 1
    assert [arm.difference.verdict for arm in found.arms if arm.difference] == ["higher", "higher"]
    assert found.arms[0].difference.mean == pytest.approx(1.9833, abs=1e-4)
    assert (found.lowest, found.contenders) == (1, ())
    assert "every other arm is ruled out as the best" in said(design, found)


def test_a_difference_within_the_noise_is_not():
    design, found, _ = swept([[4.0, 4.1, 3.9], [2.0, 2.1, 1.95], [1.9, 2.15, 1.93]])
    assert found.arms[2].difference.verdict == "not_separated"
    assert (found.lowest, found.contenders) == (2, (1,))
    assert "Any of these may be the best" in said(design, found)


def test_nothing_is_told_apart_where_nothing_is():
    design, found, _ = swept([[2.0, 2.2, 2.1], [2.1, 2.0, 2.2], [2.2, 2.1, 2.0]])
    assert set(found.contenders) == {0, 1, 2} - {found.lowest}
    assert "Nothing here shows that one is better" in said(design, found)


def test_pairs_within_seeds_see_through_the_spread_of_seeds():
    _, found, _ = swept([[1.01, 3.011, 5.009], [1.0, 3.0, 5.0], [0.99, 2.989, 4.991]])
    assert [arm.difference.verdict for arm in found.arms if arm.difference] == ["higher", "lower"]
    assert found.arms[0].half_width > 4, "each arm alone is nothing but spread"


def test_equal_to_the_bit_is_said_and_one_seed_is_said_to_be_nothing():
    design, found, _ = swept([[2.0], [2.0]], "train.log_every=10,20")
    assert [arm.difference.verdict for arm in found.arms if arm.difference] == ["same"]
    _, found, _ = swept([[2.0, 2.1, 2.2], [2.0000002, 2.1000002, 2.2000002]], "model.attention=sdpa,eager")
    assert [arm.difference.verdict for arm in found.arms if arm.difference] == ["rounding"], "steady, and nothing"
    design, found, _ = swept([[2.5], [2.0], [3.0]])
    assert {arm.difference.verdict for arm in found.arms if arm.difference} == {"one_seed"}
    assert all(arm.half_width is None for arm in found.arms)
    assert "no evidence that it is better" in said(design, found)


def test_an_arm_that_lost_a_seed_is_never_the_best():
    dead = Outcome(
        status="collapsed", steps=10, skipped_steps=10, causes=("skipped-steps",), error={"en": "x", "ko": "x"}
    )
    design, found, _ = swept([[1.0, dead, 1.1], [2.0, 2.1, 1.95], [2.5, 2.62, 2.45]])
    assert found.lowest == 1
    assert (found.arms[0].num_failed, found.arms[0].cause, found.arms[0].skipped_steps) == (1, "skipped-steps", 10)
    assert found.arms[0].difference.num_seeds == 2
    assert "compared by those that lived" in said(design, found)


def test_what_is_missing_is_counted_and_not_compared():
    design, found, _ = swept([[1.0, None, None], [2.0, 2.1, 1.95], [2.5, 2.62, 2.45]])
    assert found.num_missing == 2
    assert found.lowest == 1
    assert "2 trials have not been run" in said(design, found)
    lacking = design.arms[0].name
    assert f"not {lacking}: any of these may be better" in said(design, found), "1.0 is lower than the lowest"


def test_with_one_seed_equal_arms_are_not_called_lowest():
    design, found, _ = swept([[2.0], [2.0], [2.5]])
    assert "others have the same loss" in said(design, found)
    design, found, _ = swept([[2.0, 2.1], [2.0, None], [2.5, None]])
    assert "Nothing is judged" in said(design, found)


def test_losses_on_other_tokens_are_not_compared():
    _, found, _ = swept([[2.0, 2.1], [3.0, 3.1]], "data.max_length=64,128")
    assert not found.comparable
    assert (found.lowest, found.arms[0].difference.verdict) == (None, "incomparable")
    other = finished(held_out_after=3.0, held_out_tokens=99)
    _, found, _ = swept([[2.0], [other], [2.5]])
    assert not found.comparable, "measured on other tokens, whatever the settings say"


def test_without_held_out_examples_the_training_loss_is_compared_and_said_to_be():
    blind = [
        finished(held_out_before=None, held_out_after=None, held_out_tokens=None, train_loss=loss) for loss in (2, 3)
    ]
    design, found, _ = swept([[blind[0]], [blind[1]]], "optim.lr=1e-3,2e-3")
    assert not found.held_out
    assert [arm.mean for arm in found.arms] == [2, 3]
    assert "Nothing was held out" in said(design, found)


def test_a_sweep_of_seeds_tells_their_spread():
    design = design_of("quickstart", "train.seed=1,2,3")
    outcomes = {trial.number: finished(held_out_after=2.0 + trial.number / 10) for trial in design.trials}
    found = compare_arms(design, outcomes)
    assert [trial.seed for trial in design.trials] == [1, 2, 3]
    assert "Spread over 3 seeds: mean 2.2000 ± 0.2484, standard deviation 0.1000" in said(design, found)


def test_equal_arms_are_rarely_called_different_and_the_best_is_rarely_lost():
    """Both promises are made for the whole sweep: at most 5 of 100 err, over 800 simulated sweeps of six arms."""
    rng = random.Random(1)
    design = design_of("quickstart", "optim.lr=1e-3,2e-3,3e-3,4e-3,5e-3,6e-3", seeds=3)
    different = lost = 0
    for _ in range(800):
        seeds = {seed: rng.gauss(0, 1) for seed in design.seeds}
        outcomes = {t.number: finished(held_out_after=5 + seeds[t.seed] + rng.gauss(0, 0.1)) for t in design.trials}
        found = compare_arms(design, outcomes)
        different += any(arm.difference.verdict in ("lower", "higher") for arm in found.arms if arm.difference)
        lost += 3 not in (found.lowest, *found.contenders)  # any of equal arms may be called the best
    assert different / 800 < 0.065
    assert lost / 800 < 0.065


def test_outcomes_and_results_survive_json():
    outcome = finished(
        held_out_after=float("nan"), status="not_finite", causes=("zero-loss",), error={"en": "a", "ko": "b"}
    )
    back = decode_outcome(plain(encode_outcome(outcome)))
    assert back.loss is None
    assert (back.status, back.causes, back.is_final, back.succeeded) == ("not_finite", ("zero-loss",), True, False)
    design, found, outcomes = swept([[4.0, 4.1], [2.0, 2.1], [2.5, 2.62]])
    facts = as_dict(design, found, outcomes)
    assert facts["lowest"] == 1
    assert facts["arms"][0]["losses"] == {"42": 4.0, "43": 4.1}
    assert facts["arms"][1]["difference"] is None
