"""Every verdict has words, in both languages, whatever was measured; and they claim no more than it does."""

import io
import json
import re
from dataclasses import replace
from math import inf, nan
from string import Formatter
from typing import get_args

import pytest
from rich.cells import cell_len
from rich.console import Console

from jinmaek.core.text import catalogue
from jinmaek.core.verdict import Cause, Control, Location, Outcome, Status, Symptom, Trial, Verdict
from jinmaek.explain import tell, verdict_line
from jinmaek.explain.telling import CHANGING, SAFE
from jinmaek.explain.verdict_words import arm_name
from jinmaek.report import print_verdict, verdict_json, verdict_markdown
from jinmaek.report.trials import draw_trials
from test_report import frozen
from verdicts import ARMS, CAUSES, MOVED, OVERFLOW

LANGS = ("en", "ko")
RICH = {"overflow": OVERFLOW, "moved": MOVED}

REASONS = ("out_of_memory", "not_applicable", "budget", "no_earlier_state", "unavailable")
LOST = ("optimizer", "loss_scale", "schedule", "adapter", "data_order", "everything")
NEVER_SHOWN = {"transient", "environment"}
EXACT = Control(reproduced="bit_exact", start_step=460, num_steps=27)


def verdict(**given):
    facts = {"run": "runs/a", "step": 12345, "symptom": "loss_not_finite", "outcome": "CONFIRMED", "control": EXACT}
    return Verdict(**(facts | given))


def printed(told, width=80):
    console = Console(file=io.StringIO(), width=width, color_system=None, highlight=False)
    print_verdict(told, console)
    return console.file.getvalue()


def everything(given, lang):
    """All that a user can read of it."""
    told = tell(given, lang)
    text = "\n".join((printed(told), printed(told, 50), verdict_markdown(told)))
    json.dumps(verdict_json(given, lang), allow_nan=False)
    return text


def is_clean(text):
    """Nothing that a program says and a person does not."""
    return not re.search(r"None|\bnan\b|\{|\}|True|False|torch\.float|  \.|\(\)", text)


@pytest.mark.parametrize("lang", LANGS)
@pytest.mark.parametrize("status", get_args(Status))
@pytest.mark.parametrize("cause", CAUSES)
def test_every_cause_in_every_status(cause, status, lang):
    facts = CAUSES[cause]
    some = [dict(list(facts.items())[:count]) for count in range(len(facts))]
    others = [{name: None for name in facts}, {name: fact for name, fact in facts.items() if name != next(iter(facts))}]
    for given in (facts, *some, *others):
        one = verdict(causes=(Cause(id=cause, status=status, trials=("bf16",), facts=given),))
        assert is_clean(everything(one, lang))
        told = tell(one, lang).causes[0]
        assert told.title != cause or lang == "en"
        assert bool(told.measures) == (status == "confirmed" and cause not in NEVER_SHOWN)


@pytest.mark.parametrize("lang", LANGS)
@pytest.mark.parametrize("cause", CAUSES)
def test_every_number_of_a_cause_is_told(cause, lang):
    used = {
        name
        for key, entry in catalogue().items()
        if key.startswith(f"proof_cause.{cause}_")
        for _, name, _, _ in Formatter().parse(entry[lang])
        if name
    }
    yes_or_no = {name for name, fact in CAUSES[cause].items() if isinstance(fact, bool)}
    assert used | yes_or_no == set(CAUSES[cause])


@pytest.mark.parametrize("lang", LANGS)
@pytest.mark.parametrize("arm", ARMS)
def test_every_arm_has_a_name_with_and_without_its_facts(arm, lang):
    for facts in (ARMS[arm], {}, dict.fromkeys(ARMS[arm])):
        for outcome in ("fails", "heals", "matches", "differs"):
            trial = Trial(arm=arm, family="precision", outcome=outcome, loss=nan, grad_norm=None, facts=facts)
            assert is_clean(everything(verdict(trials=(trial,)), lang))
        name = arm_name(arm, facts, lang)
        assert name != arm or arm in ("bf16", "fp16", "fp32")
    assert all(str(fact) in arm_name(arm, ARMS[arm], lang) for name, fact in ARMS[arm].items() if name.endswith("step"))


def test_the_catalogue_names_exactly_what_a_replay_can_give():
    def names(section, endings):
        return {re.sub(endings, "", key.partition(".")[2]) for key in catalogue() if key.startswith(f"{section}.")}

    parts = r"_(title|link|confirmed|refuted|undecided|remedy|seen_.*)$"
    assert names("proof_cause", parts) == set(CAUSES)
    assert names("proof_arm", r"_(with|fresh)$") == set(ARMS)
    assert names("proof_not_run", "$^") == set(REASONS)
    assert names("proof_lost", "$^") == set(LOST)
    for cause in CAUSES:
        statuses = {status for status in get_args(Status) if f"proof_cause.{cause}_{status}" in catalogue()}
        assert statuses == ({"undecided"} if cause in NEVER_SHOWN else set(get_args(Status)))


@pytest.mark.parametrize("cause", sorted(set(CAUSES) - NEVER_SHOWN))
def test_both_languages_agree_on_what_is_safe(cause):
    marks = [
        [line[:2] for line in catalogue()[f"proof_cause.{cause}_remedy"][lang].strip().splitlines()] for lang in LANGS
    ]
    assert marks[0] == marks[1]
    assert 1 <= len(marks[0]) <= 3
    assert marks[0] == sorted(marks[0], key=[SAFE, CHANGING].index), "what is safe comes first"


@pytest.mark.parametrize("lang", LANGS)
def test_every_outcome_symptom_and_control(lang):
    for outcome in get_args(Outcome):
        for symptom in get_args(Symptom):
            assert is_clean(everything(verdict(outcome=outcome, symptom=symptom), lang))
    for reproduced in ("bit_exact", "within_spread", "no"):
        for repeats in (True, False, None):
            for start in (0, 460):
                given = {"reproduced": reproduced, "repeats": repeats, "start_step": start, "num_steps": 2}
                for more in ({}, {"first_departure": 12001, "spread": 0.25}):
                    text = everything(verdict(control=Control(**given, **more)), lang)
                    assert is_clean(text)
                    assert ("12001" in text) == (reproduced == "no" and bool(more))


@pytest.mark.parametrize("lang", LANGS)
@pytest.mark.parametrize("reason", [*REASONS, None, "of its own"])
def test_what_was_not_run_says_why(reason, lang):
    trials = [Trial(arm=arm, family="precision", outcome="not_run", reason=reason) for arm in ("fp32", "bf16")]
    text = everything(verdict(trials=tuple(trials)), lang)
    assert is_clean(text)
    assert "fp32" in text
    assert reason is None or f"proof_not_run.{reason}" not in text


@pytest.mark.parametrize("lang", LANGS)
@pytest.mark.parametrize("true", [71200.0, 12.5, nan, inf, None])
def test_a_place_is_told_as_far_as_it_is_known(true, lang):
    for phase in ("forward", "backward"):
        bare = Location(
            module="",
            op="aten.mm",
            phase=phase,
            dtype="bfloat16",
            limit=3.3895313892515355e38,
            input_absmax=(),
            output_absmax=None,
            true_absmax=true,
            num_non_finite=0,
            num_values=10,
        )
        known = {"num_non_finite": 3, "weight": "w", "module": "model.norm"}
        for more in ({}, {"example_id": "k"}, {"position": 0}, {"position": 5, "token": "\x1b[2J가"}, {"token": "x"}):
            for one in (replace(bare, **more), replace(bare, **more, **known)):
                text = everything(verdict(location=one), lang)
                assert is_clean(text)
                assert "\x1b" not in text


def test_a_true_value_that_fits_is_not_called_an_overflow():
    fits = tell(verdict(location=replace(OVERFLOW.location, true_absmax=812.0)), "en").where[0]
    assert "the true value is 812 and would fit" in fits
    facts = OVERFLOW.causes[0].facts | {"true_absmax": 812.0}
    one = verdict(causes=(Cause(id="overflow", status="confirmed", facts=facts),))
    assert tell(one, "en").summary == "Numbers beyond the range of their dtype."


def test_nothing_is_claimed_where_the_replay_is_not_the_record():
    told = tell(replace(OVERFLOW, outcome="NOT_REPRODUCED", causes=()), "en")
    assert told.summary == "So the trials prove nothing about the recorded step."
    told = tell(replace(OVERFLOW, outcome="INCONCLUSIVE", causes=OVERFLOW.causes[3:]), "en")
    assert told.summary.startswith("Ruled out: a loss scale too large for this gradient, an operation that")
    assert told.summary.endswith("Still open: updates of the optimizer that are not Adam's, too high an lr.")
    assert not any(cause.measures for cause in told.causes)
    assert tell(verdict(outcome="REFUTED", symptom="none"), "en").summary is None


def test_what_nobody_has_named_keeps_its_id():
    trial = Trial(arm="moon_phase", family="state", outcome="matches")
    one = verdict(trials=(trial,), causes=(Cause(id="moon", status="confirmed", trials=("moon_phase",)),))
    told = tell(one, "ko")
    assert told.trials[0].change == "moon_phase"
    assert told.causes[0].title == "Moon"
    assert told.causes[0].rests_on == ("moon_phase: 기록과 같음",)


def test_a_cause_rests_on_the_trials_of_its_own_example():
    trials = tuple(
        Trial(arm="without_example", family="data", outcome="fails", facts={"example": name}) for name in "ab"
    )
    one = verdict(
        trials=trials,
        causes=(Cause(id="example", status="refuted", trials=("without_example",), facts={"example": "b"}),),
    )
    assert tell(one, "en").causes[0].rests_on == ("without example b: fails",)


def test_many_trials_alike_are_told_as_one():
    facts = [{"example": f"k-{place}"} for place in range(9)]
    trials = tuple(Trial(arm="without_example", family="data", outcome="fails", loss=7.5, facts=one) for one in facts)
    given = verdict(trials=trials, causes=(Cause(id="example", status="refuted", trials=("without_example",)),))
    told = tell(given, "en")
    assert told.causes[0].rests_on == ("without one example (× 9): fails",)
    assert len(told.trials) == 9
    rows = [line for line in printed(told).splitlines() if line.endswith("0.0") or "more of these" in line]
    assert [row.split("  ")[1] for row in rows] == [*(f"without example k-{n}" for n in range(3)), "… 6 more of these"]


def test_what_went_wrong_without_a_symptom_is_not_called_a_failure():
    one = verdict(symptom="none", causes=(Cause(id="wrong_resume", status="confirmed"),))
    assert tell(one, "en").headline == "It is shown what went wrong up to step 12345."


def test_a_hard_text_is_no_fault():
    one = verdict(
        symptom="loss_spike", causes=(Cause(id="hard_example", status="confirmed", facts=CAUSES["hard_example"]),)
    )
    assert printed(tell(one, "en")).splitlines()[1].startswith("· ")
    assert printed(tell(replace(OVERFLOW, causes=one.causes + OVERFLOW.causes), "en")).splitlines()[1].startswith("✗ ")


@pytest.mark.parametrize("lang", LANGS)
def test_one_line_for_a_diagnosis(lang):
    for outcome in get_args(Outcome):
        for causes in ([], ["overflow", "adapter"], ["unknown"], None):
            line = verdict_line({"step": 12345, "outcome": outcome, "causes": causes, "arms": ["bf16"]}, lang)
            assert is_clean(line)
            assert "12345" in line
            assert "\n" not in line
    line = verdict_line({"step": 7, "outcome": "CONFIRMED", "causes": ["overflow", "adapter"]}, "en")
    assert (
        line
        == "Proved at step 7: numbers beyond the range of their dtype, the trained adapter (jinmaek prove RUN --step 7)."
    )
    assert not verdict_line({"step": 7, "outcome": "CONFIRMED", "causes": []}, "en").startswith("Proved")


@pytest.mark.parametrize("lang", LANGS)
@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("name", RICH)
def test_a_rich_verdict_on_a_terminal(name, width, lang):
    frozen(f"verdict_{name}.{width}.{lang}.txt", printed(tell(RICH[name], lang), width))


@pytest.mark.parametrize("lang", LANGS)
@pytest.mark.parametrize("name", RICH)
def test_a_rich_verdict_as_markdown(name, lang):
    frozen(f"verdict_{name}.{lang}.md", verdict_markdown(tell(RICH[name], lang)))


def test_a_rich_verdict_as_json():
    row = verdict_json(OVERFLOW, "en") | {"jinmaek": "0.x"}
    frozen("verdict_overflow.json", json.dumps(row, ensure_ascii=False, indent=2, allow_nan=False) + "\n")
    assert set(OVERFLOW.as_dict()) <= set(row)
    assert row["recorded"]["loss"] == "NaN"


@pytest.mark.parametrize("lang", LANGS)
@pytest.mark.parametrize("width", [40, 60, 80, 200])
@pytest.mark.parametrize("name", RICH)
def test_no_line_is_wider_than_the_terminal_and_none_ends_with_blanks(name, width, lang):
    for line in printed(tell(RICH[name], lang), width).splitlines():
        assert cell_len(line) <= width
        assert line == line.rstrip()


@pytest.mark.parametrize("lang", LANGS)
@pytest.mark.parametrize("name", RICH)
def test_the_columns_of_the_table_stand_below_one_another(name, lang):
    told = tell(RICH[name], lang)
    run = [trial for trial in told.trials if trial.outcome != "not_run"]
    console = Console(file=io.StringIO(), width=100)
    for width, columns in ((100, 5), (50, 2)):
        lines = [line.plain for line in draw_trials((told.recorded, *run), lang, console, width)]
        assert len({cell_len(line) for line in lines if not line.endswith(" ") and "  " in line.strip()}) == 1
        assert max(len(re.split(" {2,}", line.strip())) for line in lines) >= columns


def test_what_a_run_says_is_no_markup():
    odd = replace(OVERFLOW, run="[bold]a_*|b*", location=replace(OVERFLOW.location, example_id="[red]|x", token="`|_"))
    assert "[bold]a_*|b*" in printed(tell(odd, "en"))
    assert "[red]|x" in printed(tell(odd, "en"))
    assert "\\[red\\]\\|x" in verdict_markdown(tell(odd, "en"))
