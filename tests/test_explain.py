"""Every finding has words for it, in both languages, whatever the evidence."""

import ast
import re
from dataclasses import replace
from pathlib import Path
from string import Formatter

import pytest

import jinmaek.detect
from diagnoses import FOUNDING, HEALTHY
from jinmaek.core.finding import Diagnosis, Finding
from jinmaek.core.text import catalogue, say
from jinmaek.detect import RULES
from jinmaek.explain import explain
from jinmaek.explain.evidence import details, general_details, own_details
from jinmaek.explain.pages import index, render_page, rule_pages
from jinmaek.explain.telling import CHANGING, SAFE, lookalike_name, need

LANGS = ("en", "ko")
PATHOLOGIES = sorted(key.removesuffix(".what") for key in catalogue() if key.endswith(".what"))
DETECT = Path(jinmaek.detect.__file__).parent
NODES = [node for path in DETECT.rglob("*.py") for node in ast.walk(ast.parse(path.read_text("utf-8")))]
ALWAYS = {"first_step", "last_step"}


def sample(spec):
    return {"d": 7, ",": 12345}.get(spec, 0.3456789 if spec.endswith(("g", "f", "%")) else "seven")


def sample_evidence(pathology):
    """A value for every name that the pathology's own sentences use."""
    evidence = {}
    for name, key in own_details(pathology).items():
        used = {field: spec for _, field, spec, _ in Formatter().parse(catalogue()[key]["en"]) if field}
        evidence |= {field: sample(spec) for field, spec in used.items() if field not in ALWAYS}
        flag = re.fullmatch(r"(odometer|said)_(.+)", name)
        evidence |= {flag[1]: flag[2]} if flag else {name: evidence.get(name, 1.5)}
    lists = {"skipped_per_window": [[10, 9, 10]], "true_losses": [[10, 0.45, 1.67, 2.09]], "dead": ["q_proj", "k_proj"]}
    return evidence | {name: value for name, value in lists.items() if name in evidence}


def finding(pathology, **given):
    facts = {"rule": "zero-loss", "severity": "error", "confidence": "established", "first_step": 3, "last_step": 9}
    return Finding(id=pathology, **(facts | given))


def diagnosis(*causes, **given):
    facts = {"source": "log", "format": "console", "verdict": "faulty", "weights": "unknown"}
    return Diagnosis(causes=causes, **(facts | given))


def mentioned(name):
    """Texts that detect gives as ids in an argument or a field of that name, and in the ids of rules."""
    return {
        constant.value
        for node in NODES
        if isinstance(node, ast.keyword) and node.arg == name
        for constant in ast.walk(node.value)
        if isinstance(constant, ast.Constant) and isinstance(constant.value, str)
    }


def named_by_detect():
    names = {one for rule in RULES for one in rule.ids}
    calls = [node for node in NODES if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Name"]
    return names | {call.args[0].value for call in calls if isinstance(call.args[0], ast.Constant)}


@pytest.mark.parametrize("lang", LANGS)
@pytest.mark.parametrize("pathology", PATHOLOGIES)
def test_every_pathology_is_told_with_all_its_numbers(pathology, lang):
    lookalikes = [key.partition(".not_")[2] for key in catalogue() if key.startswith(f"{pathology}.not_")]
    evidence = sample_evidence(pathology)
    told = explain(diagnosis(finding(pathology, evidence=evidence, ruled_out=tuple(lookalikes))), lang).causes[0]
    sentences = [told.title, told.what, told.why, told.sure, *told.details, *(one.why for one in told.ruled_out)]
    sentences += [measure.text for measure in told.measures]
    assert all(sentence.strip() and "{" not in sentence for sentence in sentences)
    odd = {"odometer", "said"} & set(evidence)
    assert len(told.details) >= len(own_details(pathology)) - len(odd)
    assert told.measures


@pytest.mark.parametrize("key", [f"{one}.{part}" for one in PATHOLOGIES for part in ("title", "what", "why", "sure")])
def test_the_frame_of_a_story_needs_no_numbers(key):
    names = {name for _, name, _, _ in Formatter().parse(catalogue()[key]["en"]) if name}
    assert names <= ALWAYS
    assert key.endswith(("what", "why", "sure")) or not names


@pytest.mark.parametrize("pathology", PATHOLOGIES)
def test_both_languages_agree_on_what_is_safe(pathology):
    marks = [[line[:2] for line in catalogue()[f"{pathology}.remedy"][lang].splitlines()] for lang in LANGS]
    assert marks[0] == marks[1]
    assert set(marks[0]) <= {SAFE, CHANGING}
    assert marks[0] == sorted(marks[0], key=[SAFE, CHANGING].index), "what is safe comes first"


@pytest.mark.parametrize("pathology", sorted(named_by_detect()))
def test_what_detect_names_has_its_story(pathology):
    assert pathology in PATHOLOGIES


def test_what_detect_hangs_below_a_cause_has_a_title():
    calls = [node for node in NODES if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "_consequence"]
    names = {call.args[1].value for call in calls}
    assert names
    assert all(f"{name}.title" in catalogue() for name in names)


def test_what_detect_rules_out_has_a_name():
    lookalikes = (mentioned("ruled_out") | mentioned("undecided")) - {"established"}
    lookalikes |= {key.partition(".not_")[2] for key in catalogue() if key.partition(".")[0] in PATHOLOGIES}
    named = {one for one in lookalikes if {f"lookalike.{one}", f"{one}.title"} & set(catalogue())}
    assert lookalikes - {""} == named
    assert lookalike_name("overfitting", "ko") == "과적합"
    assert lookalike_name("lr-zero", "en") == "the lr is 0 while it trains"
    assert lookalike_name("nobody-named-it", "en") == "nobody-named-it"


def test_every_number_that_has_a_sentence_is_one_that_detect_gives():
    given = {node.value for node in NODES if isinstance(node, ast.Constant)}
    given |= {node.arg for node in NODES if isinstance(node, ast.keyword)}
    given |= {f"{flag}_{word}" for flag in ("odometer", "said") for word in given if isinstance(word, str)}
    told = {name: one for one in named_by_detect() for name in own_details(one)}
    assert {name: one for name, one in told.items() if name not in given} == {}
    assert set(general_details()) <= given


def test_every_need_of_a_rule_has_a_name():
    needs = {one for rule in RULES for one in rule.needs}
    functions = [node for node in NODES if isinstance(node, ast.FunctionDef) and node.name == "missing"]
    returned = [node.value for function in functions for node in ast.walk(function) if isinstance(node, ast.Return)]
    tuples = [node for value in returned if value for node in ast.walk(value) if isinstance(node, ast.Tuple)]
    needs |= {part.value for node in tuples for part in node.elts if isinstance(part, ast.Constant)}
    assert [one for one in needs if any(part == need(part, "en") for part in one.split("|"))] == []


def test_a_sentence_is_told_only_if_all_its_numbers_were_seen():
    steps = {"first_step": 1, "last_step": 2}
    seen = {"best_masked_loss": 1.75, "best_masked_step": None, "lr": None, "window": 10}
    assert details("nan-masked-scaler-skip", seen, steps, "en") == ("Steps that a line of the log sums up: 10.",)


def test_a_number_without_a_sentence_of_its_own_is_told_in_general():
    assert "records" in general_details()
    assert details("lr-zero", {"records": 5}, {}, "ko") == (say("detail.records", "ko", records=5),)
    assert details("lr-zero", {"of_no_use": 5}, {}, "en") == ()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "a word", [1.5, 2], {"q": 1.25}, True, 10**30])
def test_no_value_stops_a_sentence(value):
    for name in ("lr", "level", "records"):
        assert details("lr-zero", {name: value}, {}, "en")


def test_lists_are_short_and_windows_alike_are_joined():
    rows = [[10, 10, 10], [20, 9, 10], [30, 0, 10], [40, 0, 10], [50, 0, 10]]
    told = details("nan-masked-scaler-skip", {"skipped_per_window": rows}, {}, "en")
    assert told == ("Steps applied per logging window: 10: 10/10 · 20: 9/10 · 30–50: 0/10.",)
    losses = [[950, 0.4589, 1.6826, 2.1033]]
    assert "950: 0.4589 → 1.68 또는 2.1." in details("nan-masked-scaler-skip", {"true_losses": losses}, {}, "ko")[0]
    many = details("partial-target-modules", {"dead": [f"m{number}" for number in range(99)]}, {}, "en")[0]
    assert many.endswith("m5, …, m98.")


def test_the_founding_case_in_one_sentence():
    assert explain(FOUNDING, "en").headline == (
        "Something is wrong since step 480: masked NaN, and the steps are thrown away."
    )
    assert explain(FOUNDING, "ko").headline == "480단계부터 이상이 있습니다: 가려진 NaN, 버려지는 단계."
    assert explain(HEALTHY, "en").headline == "Nothing wrong found."
    assert explain(HEALTHY, "en").weights_line is None


def test_causes_that_the_log_does_not_separate_are_named_together():
    rivals = [finding(one, confidence="possible") for one in ("labels-all-masked", "nan-poisoned-weights")]
    told = explain(diagnosis(*rivals, verdict="undetermined"), "en")
    assert told.headline.startswith("Not certain, but since step 3 it looks like this: no token counts in the loss or")
    assert told.causes[0].what.startswith("If so: ")
    assert explain(diagnosis(*rivals), "en").headline.startswith("Something is wrong since step 3, possibly this:")
    later = replace(rivals[1], first_step=7)
    assert explain(diagnosis(rivals[0], later), "en").headline.endswith("(1 more below)")


def test_records_are_not_called_steps_where_the_log_names_none():
    told = explain(diagnosis(finding("nan-poisoned-weights"), steps_known=False, last_healthy_step=2), "en")
    assert told.headline.startswith("Something is wrong since record 3:")
    assert told.last_healthy == "Last healthy: record 2."
    assert told.causes[0].span == "records 3–9"
    assert told.causes[0].measures[0].text.endswith("since step 3 (counted).")
    assert told.coverage.endswith("no steps in the log · checks: 0 of 0")


def test_what_could_not_be_checked_says_what_it_needs():
    told = explain(FOUNDING, "en")
    assert told.gaps is not None
    assert told.gaps.startswith("This log does not allow 2 checks; they need: the fp16 loss scale")
    assert told.rules[-1].needs == (need("update_ratio", "en") + " or " + need("grad_norm", "en"),)
    assert explain(HEALTHY, "en").gaps is None


@pytest.mark.parametrize("name", sorted(rule_pages()))
def test_the_rule_pages_are_current(name):
    docs = Path(__file__).parents[1] / "docs" / "rules"
    assert (docs / f"{name}.md").read_text("utf-8") == render_page(name), "python -m jinmaek.explain.pages"
    assert "{" not in re.sub(r"```.*?```", "", render_page(name, "ko"), flags=re.DOTALL)


def test_every_rule_has_a_page_and_every_page_a_rule():
    docs = Path(__file__).parents[1] / "docs" / "rules"
    names = {rule.name for rule in RULES} | {"hidden-schedule-change"}
    assert set(rule_pages()) == names
    assert {path.stem for path in docs.glob("*.md")} == names | {"README"}
    assert (docs / "README.md").read_text("utf-8") == index()
    for page in rule_pages().values():
        assert page.ids
        assert page.example
        assert page.sources
        assert page.triggers
        assert page.silent
