"""What is wrong with a step by its record, and which step of a run is looked at."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jinmaek.core.errors import RunError
from jinmaek.core.finding import Diagnosis, Finding
from jinmaek.core.record import StepRecord
from jinmaek.detect.level import ENOUGH
from jinmaek.detect.rules.optimizer import adam_bound
from jinmaek.replay.symptom import Failure, choose_step, failures

BETAS = (0.9, 0.999)


def record(step, loss=2.0, grad_norm=1.0, update_ratio=1.0, stepped=True):
    return StepRecord(step=step, loss=loss, grad_norm=grad_norm, update_ratio=update_ratio, optimizer_stepped=stepped)


def calm(count, first=1):
    """Steps whose loss and gradient hardly move."""
    return [record(step, 2.0 + 0.01 * (step % 3), 1.0 + 0.02 * (step % 2)) for step in range(first, first + count)]


def shown(records):
    return dict(failures(records, BETAS))


def symptoms(records):
    return {step: failure.symptom for step, failure in shown(records).items() if failure.symptom != "none"}


def diagnosed(*first_steps):
    findings = [
        Finding(rule="r", id="f", severity="error", confidence="likely", first_step=step, last_step=step)
        for step in first_steps
    ]
    return Diagnosis(source="run", format="jinmaek", verdict="faulty", weights="unknown", causes=tuple(findings))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_seen_from_the_first_step_on(bad):
    assert symptoms([record(1, bad, math.nan), record(2)]) == {1: "loss_not_finite"}
    assert symptoms([*calm(3), record(4, bad)]) == {4: "loss_not_finite"}


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_is_seen_where_the_loss_is_finite(bad):
    assert symptoms([*calm(3), record(4, 2.0, bad, None, stepped=False)]) == {4: "gradient_not_finite"}
    assert symptoms([record(1, math.nan, bad)]) == {1: "loss_not_finite"}


def test_a_loss_spike_is_judged_by_the_steps_before():
    records = [*calm(20), record(21, 9.0), *calm(3, 22)]
    assert symptoms(records) == {21: "loss_spike"}
    failure = shown(records)[21]
    assert 2.0 <= failure.level <= 2.02
    assert failure.limit == (9.0 + failure.level) / 2
    assert not failure.seen_in(record(21, failure.limit))
    assert failure.seen_in(record(21, math.nextafter(failure.limit, 10.0)))


def test_a_gradient_spike_is_ten_times_the_usual():
    steady = [record(step) for step in range(1, 13)]
    assert symptoms([*steady, record(13, grad_norm=10.0)]) == {}
    records = [*steady, record(13, grad_norm=10.001), record(14)]
    assert symptoms(records) == {13: "gradient_spike"}
    failure = shown(records)[13]
    assert (failure.level, failure.limit) == (1.0, (10.001 + 1.0) / 2)
    assert failure.seen_in(record(13, grad_norm=6.0))
    assert not failure.seen_in(record(13, loss=50.0, grad_norm=5.0)), "another symptom is another matter"


def test_a_loss_spike_goes_before_the_gradient_spike_that_comes_with_it():
    assert symptoms([*calm(20), record(21, 9.0, 100.0)]) == {21: "loss_spike"}


@pytest.mark.parametrize("count", [1, ENOUGH - 1, ENOUGH])
def test_a_short_run_has_no_level_to_compare_with(count):
    found = symptoms([*calm(count), record(count + 1, 90.0, 100.0)])
    assert found == ({count + 1: "loss_spike"} if count >= ENOUGH else {})


def test_an_update_beyond_what_adam_can_make():
    bound = 1.25 * adam_bound(1, *BETAS)
    for ratio, expected in ((bound, {}), (math.nextafter(bound, 9.0), {1: "update_beyond_bound"})):
        assert symptoms([record(1, update_ratio=ratio)]) == expected
    failure = shown([record(1, update_ratio=3.0)])[1]
    assert failure.limit == bound
    assert failure.seen_in(record(1, update_ratio=3.0))
    assert not failure.seen_in(record(1, update_ratio=1.0))


def test_the_bound_counts_updates_and_not_steps():
    """Skipped steps leave Adam where it was."""
    ratio = 1.25 * adam_bound(6, *BETAS) * 0.99
    assert ratio > 1.25 * adam_bound(1, *BETAS)
    skipped = [record(step, update_ratio=None, stepped=False) for step in range(1, 6)]
    assert symptoms([*skipped, record(6, update_ratio=ratio)]) == {6: "update_beyond_bound"}
    assert symptoms([*calm(5), record(6, update_ratio=ratio)]) == {}


def test_a_step_beyond_the_bound_still_belongs_to_the_level_of_losses():
    records = [record(step, update_ratio=99.0) for step in range(1, ENOUGH + 1)]
    assert symptoms([*records, record(ENOUGH + 1, 9.0)])[ENOUGH + 1] == "loss_spike"


def test_a_spike_never_joins_its_own_baseline():
    """However long it lasts, it stays one, and the level it is held against does not move."""
    records = [*calm(20), *(record(step, 9.0) for step in range(21, 101))]
    assert symptoms(records) == dict.fromkeys(range(21, 101), "loss_spike")
    assert len({shown(records)[step].level for step in range(21, 101)}) == 1
    gradients = [*calm(20), *(record(step, grad_norm=50.0) for step in range(21, 101))]
    assert symptoms(gradients) == dict.fromkeys(range(21, 101), "gradient_spike")
    broken = [*calm(20), *(record(step, math.nan) for step in range(21, 101)), record(101, 9.0)]
    assert symptoms(broken)[101] == "loss_spike"


def test_a_step_without_loss_tokens_shows_nothing_and_moves_nothing():
    empty = [record(step, None, None, None, stepped=False) for step in range(1, 30)]
    assert symptoms(empty) == {}
    assert symptoms([*empty, record(30, 90.0)]) == {}, "an empty step is no level"
    assert symptoms([*calm(20), *(record(step, None, None) for step in range(21, 60)), record(60, 9.0)]) == {
        60: "loss_spike"
    }


def test_a_step_that_is_no_longer_finite_shows_any_symptom():
    for symptom in ("loss_spike", "gradient_spike", "update_beyond_bound", "loss_not_finite", "gradient_not_finite"):
        for loss, norm in ((math.nan, 1.0), (2.0, math.inf), (math.inf, math.nan)):
            assert Failure(symptom, 100.0).seen_in(record(1, loss, norm))
        assert not Failure(symptom, 100.0).seen_in(record(1, None, None, None))
        assert not Failure(symptom, 100.0).seen_in(record(1))


NUMBERS = st.none() | st.floats() | st.floats(0.5, 3.0)
RECORDS = st.lists(
    st.tuples(NUMBERS, NUMBERS.map(lambda norm: norm and abs(norm)), NUMBERS, st.booleans()), max_size=60
)


@settings(max_examples=200, deadline=None)
@given(RECORDS)
def test_every_step_is_judged_once_and_shows_what_it_is_said_to_show(rows):
    records = [record(step, *row) for step, row in enumerate(rows, 1)]
    found = shown(records)
    assert list(found) == [each.step for each in records]
    for each in records:
        failure = found[each.step]
        values = [value for value in (each.loss, each.grad_norm) if value is not None]
        assert failure.symptom.endswith("_not_finite") == (not all(map(math.isfinite, values)))
        assert failure.seen_in(each) == (failure.symptom != "none")


def spiked():
    """A spike at 21, a NaN at 25, a second one at 26."""
    broken = (record(step, math.nan) for step in (25, 26))
    return shown([*calm(20), record(21, 9.0), *calm(3, 22), *broken, *calm(4, 27)])


def test_the_step_to_prove_is_the_first_that_fails_since_the_gravest_finding():
    assert choose_step(spiked(), diagnosed(3)) == 21
    assert choose_step(spiked(), diagnosed(22, 1)) == 25
    assert choose_step(spiked(), diagnosed(26)) == 26


def test_without_a_finding_it_is_the_first_non_finite_step_then_the_first_that_fails():
    assert choose_step(spiked(), diagnosed()) == 25
    assert choose_step(shown([*calm(20), record(21, 9.0), record(22, 9.0)]), diagnosed()) == 21


def test_a_finding_behind_which_nothing_fails():
    assert choose_step(spiked(), diagnosed(28)) == 25
    assert choose_step(shown(calm(20)), diagnosed(7)) == 7, "the finding's own step"


@pytest.mark.parametrize(("records", "finding"), [(20, ()), (20, (99,)), (0, ()), (0, (1,))])
def test_where_nothing_is_wrong_there_is_nothing_to_prove(records, finding):
    with pytest.raises(RunError, match="Nothing in the record failed"):
        choose_step(shown(calm(records)), diagnosed(*finding))
