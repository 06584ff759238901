"""Whatever a log holds, the rules answer; the answer is a function of the items; and it is reached in linear time."""

import math
import random
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jinmaek.core.record import EvaluationRecord, GroupStats, Remark, RunFacts, StepRecord
from jinmaek.detect import Panel, conclude
from trainer_log import (
    Trainer,
    constant,
    cosine,
    diagnose_items,
    inverse_sqrt,
    judge,
    linear,
    noisy,
    polynomial,
    restarts,
    stable_decay,
)

ODD = [math.nan, math.inf, -math.inf, 0.0, -0.0, -1.0, 1.0, 2.0, 1e-320, 1e300, -1e300, 1.7e308, math.sqrt(2)]
NUMBER = st.one_of(st.none(), st.sampled_from(ODD), st.floats())
COUNT = st.one_of(st.none(), st.integers(0, 10), st.just(10**12))
GROUPS = st.one_of(
    st.none(), st.dictionaries(st.sampled_from("abc"), st.builds(GroupStats, grad_norm=NUMBER, max_update=NUMBER))
)
RECORD = st.builds(
    StepRecord,
    step=st.one_of(st.integers(0, 60), st.integers(-5, 10**12)),
    num_steps=st.one_of(st.just(1), st.integers(0, 20), st.just(10**9)),
    loss=NUMBER, loss_reported=NUMBER, grad_norm=NUMBER, clip_ratio=NUMBER, lr=NUMBER, loss_scale=NUMBER,
    update_ratio=NUMBER, epoch=NUMBER, token_accuracy=NUMBER, num_tokens=COUNT, num_loss_tokens=COUNT,
    optimizer_stepped=st.one_of(st.none(), st.booleans()),
    example_ids=st.one_of(st.none(), st.tuples(st.sampled_from("ab"))), groups=GROUPS,
    first_grad_norm=NUMBER, first_loss_tokens=COUNT,
)  # fmt: skip
STEP = st.integers(0, 60)
KINDS = [
    "skipped",
    "scale_floor",
    "no_grad_inputs",
    "attention_kernel",
    "out_of_memory",
    "checkpoint",
    "resumed",
    "end",
]
REMARK = st.builds(
    Remark,
    kind=st.sampled_from(KINDS),
    step=st.one_of(st.none(), STEP),
    text=st.sampled_from(["", "loss=1.0 grad norm=nan"]),
)
EVALUATION = st.builds(
    EvaluationRecord, step=STEP, loss=st.floats(), example_losses=st.one_of(st.none(), st.just((1.0,) * 12))
)
ITEM = st.one_of(RECORD, RECORD, RECORD, EVALUATION, REMARK)
FACTS = st.fixed_dictionaries(
    {
        "steps_known": st.booleans(),
        "filters_loss": st.sampled_from([None, True, False]),
        "objective": st.sampled_from(["sft", "preference", "rl"]),
        "max_steps": st.sampled_from([None, 0, 60, 10**9]),
        "max_grad_norm": st.sampled_from([None, 0.0, 1.0]),
        "accumulation": st.sampled_from([None, 1, 8]),
        "weight_decay": st.sampled_from([None, 0.01]),
        "num_weights": st.sampled_from([None, 0, 1000]),
        "optimizer": st.sampled_from([None, "adamw"]),
    }
)
SLOW = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}


def fed(items, facts):
    panel = Panel(RunFacts(source="console", **facts))
    for item in items:
        panel.observe(item)
    return panel


def answered(items, facts):
    """Judged without raising, and every finding is of an id that its rule declares."""
    diagnose_items(items, **facts)
    panel = fed(items, facts)
    declared = {rule.name: set(rule.ids) for rule in panel.rules}
    assert all(finding.id in declared[finding.rule] for finding in panel.findings())


@settings(max_examples=500, **SLOW)
@given(st.lists(ITEM, max_size=40), FACTS)
def test_any_items_at_all_are_judged(items, facts):
    answered(items, facts)


SANE = {"grad_norm": 1.0, "first_grad_norm": 1.4, "first_loss_tokens": 50, "num_loss_tokens": 100}
WILD = ["loss", "grad_norm", "lr", "loss_scale", "update_ratio", "epoch", "token_accuracy", "first_grad_norm"]


@settings(max_examples=300, **SLOW)
@given(st.sampled_from(WILD), st.data())
def test_one_wild_column_beside_sane_ones_is_judged(name, data):
    wild = data.draw(
        st.lists(st.one_of(st.none(), st.sampled_from(ODD), st.floats(-1e3, 1e3)), min_size=5, max_size=60)
    )
    items = [
        StepRecord(step=step, **{**SANE, "loss": 2.0 + 0.01 * (step % 7), "lr": 1e-4 / step, name: value})
        for step, value in enumerate(wild, 1)
    ]
    answered([*items, EvaluationRecord(step=len(items), loss=2.0)], {"num_weights": 1000, "optimizer": "adamw"})


@settings(max_examples=200, **SLOW)
@given(st.integers(0, 10**6), st.sampled_from([0, 1, 10]))
def test_finite_numbers_of_any_size_over_a_long_run_are_judged(seed, width):
    rng = random.Random(seed)

    def huge():
        return rng.choice([1, -1, 1]) * 10 ** rng.uniform(-300, 308)

    items = [
        StepRecord(step=step * width, num_steps=width, loss=huge(), grad_norm=abs(huge()), lr=huge(), epoch=step / 13,
                   loss_scale=abs(huge()), update_ratio=abs(huge()), token_accuracy=rng.random())
        for step in range(80)
    ]  # fmt: skip
    answered([*items, *(EvaluationRecord(step=i, loss=huge()) for i in range(5))], {"max_steps": 80, "accumulation": 8})


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_steps", 0), ("num_steps", 10**12), ("step", 0), ("step", -7), ("update_ratio", 50.0), ("epoch", math.nan)],
)
def test_an_odd_constant_is_judged(name, value):
    items = [
        StepRecord(**{"step": step, "loss": 2.0, "lr": 1e-4 - 1e-7 * step, "update_ratio": 2.0, name: value})
        for step in range(1, 41)
    ]
    answered([*items, *(EvaluationRecord(step=step, loss=1.0) for step in (10, 20, 30))], {"accumulation": 4})


def test_an_infinite_jump_of_the_lr_is_judged():
    for lr in (1e308, -1e308, 1.7e308, 5e-324):
        lrs = [1e-4, 9e-5, 8e-5, 7e-5, lr, -lr, lr, 6e-5, 5e-5, lr, -lr, -lr, lr]
        answered([StepRecord(step=step, loss=2.0, lr=value) for step, value in enumerate(lrs, 1)], {"max_steps": 100})


def test_an_all_nan_run_is_faulty():
    nan = math.nan
    items = [StepRecord(step=step, loss=nan, grad_norm=nan, lr=nan, epoch=nan) for step in range(1, 50)]
    diagnosis = judge(items)
    assert diagnosis.verdict == "faulty"
    assert diagnosis.weights != "intact"
    assert diagnosis.causes[0].first_step == 1
    assert diagnosis.last_healthy_step is None


def test_an_empty_run_is_undetermined():
    diagnosis = diagnose_items([]).diagnosis
    assert (diagnosis.verdict, diagnosis.weights, diagnosis.causes) == ("undetermined", "unknown", ())
    assert (diagnosis.num_records, diagnosis.first_step, diagnosis.last_step) == (0, None, None)
    assert not any(result.outcome == "found" for result in diagnosis.rules)


@pytest.mark.parametrize("loss", [2.0, None])
def test_a_run_of_one_record_is_undetermined(loss):
    diagnosis = diagnose_items([StepRecord(step=7, loss=loss, lr=1e-4)]).diagnosis
    assert (diagnosis.verdict, diagnosis.causes) == ("undetermined", ())
    assert (diagnosis.num_records, diagnosis.first_step, diagnosis.last_step) == (1, 7, 7)


SCHEDULES = {
    "linear": lambda total: linear(1e-4, total),
    "linear with a warm-up": lambda total: linear(2e-4, total, total // 20),
    "cosine": lambda total: cosine(1e-4, total, total // 30),
    "cosine with a floor": lambda total: cosine(1e-4, total, 0, 0.1),
    "constant": lambda total: constant(2e-4),
    "warm-up, constant": lambda total: constant(2e-4, total // 10),
    "polynomial": lambda total: polynomial(1e-4, total, 2.0),
    "inverse square root": lambda total: inverse_sqrt(1e-4, total // 20),
    "restarts": lambda total: restarts(1e-4, total, 4),
    "stable": lambda total: stable_decay(1e-4, total // 20, total // 2, total - total // 2 - total // 20),
}


@pytest.mark.parametrize("digits", [None, 5])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_sane_run_is_never_an_error(name, digits):
    @settings(max_examples=25, **SLOW)
    @given(
        st.integers(100, 1200),
        st.sampled_from([1, 5, 10, 20]),
        st.floats(0.5, 4.0),
        st.floats(0.005, 0.15),
        st.integers(0, 999),
        st.booleans(),
    )
    def check(total, interval, level, noise, seed, gradient):
        rng = random.Random(seed)
        losses = [level * (1 + noise * rng.gauss(0, 1) * 0.5) for _ in range(total)]
        trainer = Trainer(schedule=SCHEDULES[name](total), interval=interval, prints_gradient=gradient)
        items = [each for each in trainer.run(losses) if each.lr or each.step < total - interval]
        if digits:
            items = [StepRecord(step=each.step, num_steps=interval, loss_reported=each.loss_reported,
                                lr=float(f"{each.lr:.{digits - 1}e}")) for each in items]  # fmt: skip
        diagnosis = judge(items, filters_loss=True, source="console" if digits else "trainer_state")
        assert [cause for cause in diagnosis.causes if cause.severity == "error"] == []

    check()


@settings(max_examples=100, **SLOW)
@given(st.lists(ITEM, max_size=40), FACTS)
def test_the_same_items_give_the_same_diagnosis_and_asking_between_changes_nothing(items, facts):
    asked = Panel(RunFacts(source="console", **facts))
    for item in items:
        asked.observe(item)
        conclude(asked, "run", 0, steps_inferred=False)
    once, twice = (conclude(fed(items, facts), "run", 0, steps_inferred=False) for _ in range(2))
    # NaN is not equal to itself; what is written down is.
    assert repr(once) == repr(twice) == repr(conclude(asked, "run", 0, steps_inferred=False))


@pytest.mark.parametrize("dead", [False, True])
def test_thirty_thousand_records_take_seconds_not_minutes(dead):
    losses = noisy(30_000)
    if dead:
        losses[10_000:] = [math.nan] * 20_000
    trainer = Trainer(schedule=cosine(1e-4, 31_000), interval=1, prints_gradient=True, steps_per_epoch=1000.0)
    records = trainer.run(losses)
    before = time.process_time()
    diagnosis = judge(records, filters_loss=True)
    assert time.process_time() - before < 3.0
    assert diagnosis.verdict == ("faulty" if dead else "healthy")
    assert diagnosis.num_records == 30_000
