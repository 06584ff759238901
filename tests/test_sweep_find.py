"""Finding the range of lr and the largest batch, on outcomes and machines whose truth is known."""

import math
import random

import pytest

from jinmaek.config import load_recipe
from jinmaek.core.errors import RunError
from jinmaek.lab.comparison import compare_arms
from jinmaek.lab.find_batch import LargestBatch, Try, search, size_key
from jinmaek.lab.find_lr import judge, lr_design, lr_grid, lrs_of
from jinmaek.lab.outcome import Outcome
from jinmaek.report.dots import Dot, draw_dots
from jinmaek.report.overlay import draw_overlay, mean_curve
from sweeps import finished


def test_two_lrs_a_decade_around_the_recipes_or_in_the_range():
    assert lr_grid(2e-3) == [2e-5, 6.3e-5, 2e-4, 6.3e-4, 2e-3, 6.3e-3, 2e-2, 6.3e-2]
    assert lr_grid(1.0, "1e-4,1e-2") == [1e-4, 3.2e-4, 1e-3, 3.2e-3, 1e-2]
    for text in ("1e-4", "1e-2,1e-4", "0,1", "a,b", "1,inf"):
        with pytest.raises(RunError, match="--range"):
            lr_grid(1.0, text)


def test_short_runs_hold_something_out_and_keep_the_warm_up():
    founding = lr_design("koalpaca-polyglot-12.8b", [], None, 40, 3)
    recipe = founding.arms[0].recipe
    assert (recipe.data.held_out, recipe.train.max_steps, recipe.optim.schedule) == (0.05, 40, "constant")
    assert len(founding.trials) == 24
    quick = lr_design("quickstart", [], None, 20, 3)
    assert quick.arms[0].recipe.optim.warmup_steps == 5
    assert quick.arms[0].recipe.samples.questions == ()


def judged(loss_of, *, seeds=3, noise=0.02, between="1e-5,1e-1", rng=None):
    """What is found where an lr's true loss is ``loss_of(lr)``: 4 untrained, ``None`` where it collapses."""
    rng = rng or random.Random(0)
    design = lr_design("quickstart", [], between, 20, seeds)
    lrs, outcomes = lrs_of(design), {}
    for trial in design.trials:
        loss = loss_of(lrs[trial.arm])
        after = None if loss is None else loss + rng.gauss(0, noise)
        dead = Outcome(status="collapsed", error={"en": "x", "ko": "x"})
        outcomes[trial.number] = dead if after is None else finished(held_out_before=4.0, held_out_after=after)
    return judge(design, compare_arms(design, outcomes), outcomes)


def test_an_lr_that_lacks_runs_may_be_the_best_and_nothing_is_decided():
    design = lr_design("quickstart", [], "1e-4,1e-2", 20, 3)
    losses = {lr: 3.0 - 0.1 * place for place, lr in enumerate(lrs_of(design))}
    best = max(losses)  # the highest lr has the lowest loss
    outcomes = {
        trial.number: finished(held_out_before=4.0, held_out_after=losses[lr] + trial.seed / 1e3)
        for trial in design.trials
        if (lr := lrs_of(design)[trial.arm]) != best or trial.seed == design.seeds[0]
    }
    assert judge(design, compare_arms(design, outcomes), outcomes).found == "unfinished"
    collapsed = {trial.number: Outcome(status="collapsed", error={"en": "x", "ko": "x"})
                 for trial in design.trials if lrs_of(design)[trial.arm] == best}  # fmt: skip
    found = judge(design, compare_arms(design, outcomes | collapsed), outcomes | collapsed)
    assert (found.found, found.too_high) == ("range", best), "one that collapsed is no best"


def test_what_the_range_test_sets_itself_is_refused():
    with pytest.raises(RunError, match="train.max_steps, capture.every"):
        lr_design("quickstart", ["train.max_steps=12", "capture.every=5", "samples.questions="], None, 20, 3)
    assert lr_design("quickstart", ["samples.questions=", "optim.lr=1e-3"], None, 20, 3).arms


def valley(bottom, width=1.0):
    """Lowest at ``bottom``; a decade away by ``width`` higher; collapses two decades above."""

    def loss(lr):
        away = math.log10(lr / bottom)
        return None if away > 1.9 else 2.0 + width * away**2

    return loss


def test_a_valley_is_found_with_what_lies_above_it():
    found = judged(valley(1e-3))
    assert (found.found, found.best, found.low, found.high) == ("range", 1e-3, 1e-3, 1e-3)
    assert found.too_high == 0.032, "worse than the untrained model, before it collapses"
    wide = judged(valley(1e-3, width=0.05), noise=0.05)
    assert wide.low < 1e-3 < wide.high


def test_the_edge_of_what_was_tried_is_no_answer():
    assert judged(valley(1e-1)).found == "still_falling_up"
    assert judged(valley(1e-6)).found == "still_falling_down"


def test_what_does_not_tell_the_lrs_apart_is_no_answer():
    rng = random.Random(3)
    ends = [judged(lambda lr: 3.0, noise=0.1, rng=rng, between="1e-4,1e-2").found for _ in range(100)]
    assert ends.count("flat") > 75
    ends = [judged(lambda lr: 4.0, noise=0.01, rng=rng, between="1e-4,1e-2").found for _ in range(100)]
    assert ends.count("nothing_learnt") >= 93, "the untrained model's loss at every lr"
    assert judged(lambda lr: None).found == "nothing_ran"
    assert judged(valley(1e-3), seeds=1).found == "one_seed"


def test_the_best_lr_is_in_the_range_as_often_as_is_said():
    rng, right = random.Random(2), 0
    for _ in range(100):
        found = judged(valley(1e-3, width=0.03), noise=0.05, rng=rng, between="1e-4,1e-2")
        right += found.low <= 1e-3 <= found.high
    assert right >= 93


def machine(limit, *, examples=1000, planned=None, per_try=1.0):
    """An ``attempt`` on a machine that takes up to ``limit``; ``tried`` lists what was."""
    tried = []

    def attempt(size):
        tried.append(size)
        fits = size <= limit
        return Try(
            size=size, fits=fits, out_of_memory=not fits, num_examples=examples, planned=planned, seconds=per_try
        )

    return attempt, tried


@pytest.mark.parametrize("limit", [1, 3, 8, 16, 17, 31, 100, 333, 700])
def test_the_largest_batch_is_found_within_a_sixteenth(limit):
    recipe = load_recipe("quickstart")
    attempt, tried = machine(limit)
    found = search(recipe, attempt)
    assert found.why == "memory"
    assert limit * 15 / 16 - 1 <= found.largest <= limit < found.smallest_failed
    assert len(tried) == len(set(tried)) < 14


def test_the_number_of_examples_bounds_a_batch_and_nothing_fits_is_said():
    recipe = load_recipe("quickstart")
    found = search(recipe, machine(10**6, examples=50)[0])
    assert (found.largest, found.why) == (50, "data")
    found = search(recipe, machine(0)[0])
    assert (found.largest, found.why) == (None, "too_small")


def test_a_plan_is_asked_first_and_still_verified():
    recipe = load_recipe("quickstart")
    attempt, tried = machine(100, planned=100)
    found = search(recipe, attempt)
    assert (found.largest, found.smallest_failed, found.why) == (100, None, "plan")
    assert tried == [16, 100]
    attempt, tried = machine(80, planned=100)
    found = search(recipe, attempt)
    assert 75 <= found.largest <= 80 < found.smallest_failed <= 100
    plans = {16: 64, 64: 100, 100: 90}  # without the cached weights there is more room
    tried = []

    def attempt(size):
        tried.append(size)
        return Try(size=size, fits=True, num_examples=1000, planned=plans[size])

    assert (search(recipe, attempt).largest, tried) == (100, [16, 64, 100])


def test_packs_are_never_smaller_than_the_longest_example():
    recipe = load_recipe("quickstart", ["data.packing=true", "train.batch_size=", "train.batch_tokens=2048"])
    assert size_key(recipe) == "train.batch_tokens"
    attempt, tried = machine(700)
    found = search(recipe, attempt)
    assert 636 <= found.largest <= 700
    assert search(recipe, machine(100)[0]).why == "too_small"
    assert min(tried) >= recipe.data.max_length


def test_a_try_that_would_take_minutes_is_not_made_and_another_error_ends_the_search():
    recipe = load_recipe("quickstart")
    found = search(recipe, machine(10**6, per_try=70.0)[0])
    assert (found.largest, found.why, len(found.tries)) == (16, "slow", 1)

    def broken(size):
        return Try(size=size, fits=size <= 16, error=None if size <= 16 else {"en": "x", "ko": "x"}, num_examples=99)

    assert search(recipe, broken) == LargestBatch(
        largest=16, smallest_failed=32, why="failed", tries=(broken(16), broken(32))
    )


def test_dots_and_overlays_draw_what_they_are_given():
    lines = draw_dots([Dot("1", 2.0, 0.5, "low"), Dot("10", 4.0, None, ""), Dot("x", None, None, "✗")], 21, top=3.0)
    assert lines[0] == " 1 │───────●───────      │ low"
    assert lines[1].endswith("▶│")
    assert lines[2] == f" x │{' ' * 21}│ ✗"
    falling, flat = [(step, 5.0 - step / 10) for step in range(1, 31)], [(step, 3.0) for step in range(1, 31)]
    picture = draw_overlay([falling, flat], 60)
    assert picture[0].startswith("  4.900 │a")
    assert picture[-2].startswith("  2.000 │")
    assert "*" in "".join(picture), "where they cross"
    assert draw_overlay([[], []], 60) == []
    assert mean_curve([[(1, 2.0), (2, 4.0)], [(1, 4.0), (2, 6.0), (3, 1.0)]]) == [(1, 3.0), (2, 5.0)]
