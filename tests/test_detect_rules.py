"""Each rule told, not told, and not checkable: the cases of :mod:`rule_cases_numbers` and :mod:`rule_cases_learning`."""

import random

import pytest

from jinmaek.core.record import Remark
from jinmaek.detect import RULES
from rule_cases_learning import CASES as LEARNING
from rule_cases_numbers import CASES as NUMERIC
from trainer_log import Trainer, cosine, linear, noisy, outcome_of, restarts, run

CASES = NUMERIC + LEARNING
IDS = [f"{case.rule}:{case.id}" for case in CASES]


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_the_rule_tells(case):
    outcome, _, ids = outcome_of(case.rule, case.trigger)
    assert outcome == "found"
    assert case.id in ids


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_the_rule_does_not_tell_its_look_alike(case):
    _, _, ids = outcome_of(case.rule, case.alike)
    assert case.id not in ids


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_the_rule_says_what_it_lacks(case):
    assert outcome_of(case.rule, case.unchecked) == ("not_checkable", case.missing, set())


def test_every_rule_has_a_case_and_every_rule_a_name_of_its_own():
    names = [rule.name for rule in RULES]
    assert len(set(names)) == len(names)
    assert {case.rule for case in CASES} == set(names)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_rule_declares_every_id_that_it_tells(rule):
    told = set()
    for case in CASES:
        for items in (case.trigger, case.alike, case.unchecked):
            told |= outcome_of(rule.name, items)[2]
    assert told
    assert told <= set(rule.ids)


@pytest.mark.parametrize("interval", [1, 2, 5, 10])
@pytest.mark.parametrize("cycles", [2, 3, 5])
@pytest.mark.parametrize("total", [60, 200, 500])
def test_restarts_of_a_cosine_are_no_lost_state(total, cycles, interval):
    items = Trainer(schedule=restarts(1e-3, total, cycles), interval=interval).run(noisy(total))
    assert outcome_of("lr-jump", (items, {}))[2] == set()


@pytest.mark.parametrize("schedule", [linear(1e-4, 600, 60), cosine(1e-4, 600, 60)])
def test_a_resume_that_kept_its_schedule_is_no_lost_state(schedule):
    rng = random.Random(1)
    items, facts = run(600, [Remark(kind="resumed", step=300)], lr=schedule, loss=lambda step: 1.8 + rng.gauss(0, 0.1))
    assert outcome_of("lr-jump", (items, facts))[2] == set()
    assert outcome_of("optimizer-reset", (items, facts))[2] == set()
