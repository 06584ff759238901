"""The two logs of the run that began it all, and a simulated twin that needs no data."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from jinmaek.detect import diagnose
from jinmaek.ingest import find_logs
from trainer_log import Trainer, diagnose_items, linear, noisy

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data" / "founding"
needs_logs = pytest.mark.skipif(not SHARED.is_dir(), reason="the founding logs are not here")
# total: first line, last healthy line, last line, skips before the first, skips in the two windows that half live
TWINS = {5000: (800, 930, 1010, 5, (1, 9)), 1000: (430, 470, 520, 2, (4, 9))}


def twin(total):
    """Lines without steps of a run that dies as the founding run of ``total`` steps did."""
    first, dying, last, before, (few, most) = TWINS[total]
    losses = noisy(last, start=1.95, end=1.85)
    for at in (*range(dying, dying + few), *range(dying + 20 - most, last)):
        losses[at] = math.nan
    losses[dying + 10] = 1.8
    trainer = Trainer(schedule=linear(1e-4, total), steps_per_epoch=10578.0)
    records = trainer.run(losses, range(1, before + 1))[first // 10 - 1 :]
    return [replace(each, step=line, num_steps=1) for line, each in enumerate(records, 1)]


def real(total):
    """The founding log of ``total`` steps."""
    [source] = find_logs(str(SHARED / f"run_max_steps_{total}.txt"))
    return source


def judged(kind, total, others=()):
    if kind == "twin":
        return diagnose_items(twin(total), others, steps_known=False, filters_loss=True)
    return diagnose(real(total), others)


KINDS = [pytest.param("real", marks=needs_logs), "twin"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("total", "first", "windows"), [(5000, 940, (10, 9, 1, 0)), (1000, 480, (10, 6, 1, 0))])
def test_the_founding_run_is_told_from_its_first_half_dead_window(kind, total, first, windows):
    diagnosis = judged(kind, total).diagnosis
    [cause] = diagnosis.causes
    assert (cause.id, cause.confidence, cause.severity) == ("nan-masked-scaler-skip", "established", "error")
    assert (diagnosis.verdict, diagnosis.weights) == ("faulty", "intact")
    assert (cause.first_step, diagnosis.last_healthy_step) == (first, first - 10)
    applied = {step: count for step, count, _ in cause.evidence["skipped_per_window"]}
    assert [applied[step] for step in range(first - 10, first + 30, 10)] == list(windows)
    assert {"nan-poisoned-weights", "overfitting", "convergence"} <= set(cause.ruled_out)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("total", [5000, 1000])
def test_the_founding_runs_steps_and_schedule_are_inferred(kind, total):
    one = judged(kind, total)
    evidence = one.diagnosis.causes[0].evidence
    assert one.diagnosis.steps_inferred
    assert (one.peak_lr, one.schedule_steps) == (1e-4, total)
    assert one.diagnosis.first_step == TWINS[total][0]
    assert evidence["skipped_before"] == TWINS[total][3]
    assert evidence["window"] == 10


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("total", "step"), [(5000, 950), (1000, 490)])
def test_the_true_loss_behind_the_drop_is_recovered(kind, total, step):
    evidence = judged(kind, total).diagnosis.causes[0].evidence
    true = {at: candidates for at, _, *candidates in evidence["true_losses"]}
    assert any(1.6 < loss < 2.2 for loss in true[step])
    if kind == "twin":
        assert any(loss == pytest.approx(1.8, abs=0.01) for loss in true[step])


@needs_logs
def test_the_founding_logs_print_these_true_losses():
    assert real_true_losses(1000) == [[490, 0.9884, 1.7971]]
    assert real_true_losses(5000) == [[950, 0.4589, 1.6687, 2.0859]]


def real_true_losses(total):
    return diagnose(real(total)).diagnosis.causes[0].evidence["true_losses"]


@needs_logs
def test_the_best_loss_of_the_page_is_named_as_a_masked_one():
    evidence = diagnose(real(1000)).diagnosis.causes[0].evidence
    assert (evidence["best_masked_loss"], evidence["best_masked_step"]) == (1.7542, 480)


@pytest.mark.parametrize("kind", KINDS)
def test_two_runs_of_other_lengths_show_the_hidden_change_of_schedule(kind):
    long = judged(kind, 5000)
    short = judged(kind, 1000, (long,))
    assert "hidden-schedule-change" not in {note.id for note in long.diagnosis.notes}
    [note] = [note for note in short.diagnosis.notes if note.id == "hidden-schedule-change"]
    assert note.severity == "note"
    assert (note.evidence["schedule_steps"], note.evidence["other_steps"]) == (1000, 5000)
    assert note.evidence["peak_lr"] == 1e-4
    outcome = {result.rule: result.outcome for result in short.diagnosis.rules}
    assert outcome["hidden-schedule-change"] == "found"


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_schedule_twice_is_no_hidden_change(kind):
    one = judged(kind, 1000)
    again = judged(kind, 1000, (one,))
    outcome = {result.rule: (result.outcome, result.missing) for result in again.diagnosis.rules}
    assert outcome["hidden-schedule-change"] == ("clear", ())
    assert "hidden-schedule-change" not in {note.id for note in again.diagnosis.notes}
    alone = {result.rule: (result.outcome, result.missing) for result in one.diagnosis.rules}
    assert alone["hidden-schedule-change"] == ("not_checkable", ("second_run",))


@needs_logs
def test_the_simulated_twin_dies_in_the_same_windows_as_the_real_run():
    for total in TWINS:
        true = [item.lr for item in real(total).items()]
        made = [item.lr for item in twin(total)]
        assert made == pytest.approx(true)


def test_a_healthy_end_of_the_same_run_is_healthy():
    records = Trainer(schedule=linear(1e-4, 1000), steps_per_epoch=10578.0).run(noisy(600))[42:]
    items = [replace(each, step=line, num_steps=1) for line, each in enumerate(records, 1)]
    diagnosis = diagnose_items(items, steps_known=False, filters_loss=True).diagnosis
    assert (diagnosis.verdict, diagnosis.causes, diagnosis.weights) == ("healthy", (), "intact")
