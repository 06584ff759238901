"""What is printed, frozen. JINMAEK_UPDATE_GOLDEN=1 writes the files anew; look at the difference before keeping it."""

import io
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from diagnoses import FOUNDING, HEALTHY, SERIES
from jinmaek.core.version import VERSION
from jinmaek.explain import explain
from jinmaek.report import as_json, as_markdown, print_diagnosis
from jinmaek.report.curve import draw_curve
from test_explain import LANGS, PATHOLOGIES, diagnosis, finding, sample_evidence

GOLDEN = Path(__file__).parent / "golden"


def printed(told, series=(), width=100, **given):
    console = Console(file=io.StringIO(), width=width, color_system=None, highlight=False)
    print_diagnosis(told, console, series, **given)
    return console.file.getvalue()


def frozen(name, text):
    path = GOLDEN / name
    if os.environ.get("JINMAEK_UPDATE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
    assert text == path.read_text("utf-8")


@pytest.mark.parametrize("lang", LANGS)
def test_the_founding_case_on_a_terminal(lang):
    frozen(f"diagnose_founding.{lang}.txt", printed(explain(FOUNDING, lang), SERIES))


def test_the_founding_case_as_markdown():
    frozen("diagnose_founding.md", as_markdown(explain(FOUNDING, "en")))


def test_the_founding_case_as_json():
    row = as_json(FOUNDING, "en") | {"jinmaek": "0.x"}
    frozen("diagnose_founding.json", json.dumps(row, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def test_json_says_which_version_spoke_and_no_number_that_json_lacks():
    row = as_json(FOUNDING, "ko")
    assert row["jinmaek"] == VERSION
    assert row["notes"][0]["evidence"]["peak"] == "Infinity"
    assert row["causes"][0]["ruled_out"][1]["why"].startswith("외워서 줄어드는 손실은")
    assert row["causes"][0]["consequences"][0]["id"] == "masked-loss"


@pytest.mark.parametrize("lang", LANGS)
@pytest.mark.parametrize("width", [40, 80, 100, 200])
def test_no_line_is_wider_than_the_terminal_and_none_ends_with_blanks(width, lang):
    for whole in (False, True):
        for line in printed(explain(FOUNDING, lang), SERIES, width, whole=whole).splitlines():
            assert Console(width=999).measure(line).maximum <= max(width, 40) or "run_max_steps" in line
            assert line == line.rstrip()


@pytest.mark.parametrize("lang", LANGS)
@pytest.mark.parametrize("pathology", PATHOLOGIES)
def test_a_cause_is_short_enough_for_two_in_the_morning(pathology, lang):
    cause = finding(pathology, evidence=sample_evidence(pathology))
    story = printed(explain(diagnosis(cause), lang), width=100).split("\n\n")[1]
    assert len(story.splitlines()) <= 12
    assert all(f"{number}. " in story for number in range(1, len(explain(diagnosis(cause), lang).causes[0].measures)))


def test_all_tells_every_rule_and_every_lookalike():
    text = printed(explain(FOUNDING, "en"), SERIES, whole=True)
    for part in ("overfitting: a loss that is learnt away", "not checkable", "divergence", "near step 641", "a faulty"):
        assert part in text
    assert "--all" not in text


def test_what_the_log_says_is_no_markup():
    told = explain(replace(FOUNDING, source="[bold]run_*|x*", last_healthy_checkpoint="[red]out"), "en")
    assert "[bold]run_*|x*" in printed(told)
    assert "[red]out" in printed(told)
    assert "\\[bold\\]run\\_\\*\\|x\\*" in as_markdown(told)


def test_a_healthy_run_is_two_lines():
    lines = printed(explain(HEALTHY, "en")).splitlines()
    assert lines == [
        "run",
        "✓ Nothing wrong found.",
        "",
        "jinmaek, records: 40 · steps 1–40 · checks: 1 of 1 (--all tells the rest)",
    ]


def test_the_curve_marks_the_onset_and_what_was_not_finite():
    series = [(step, None if step == 30 else 2.0) for step in range(10, 200, 10)]
    *rows, axis = draw_curve(series, 100, 60)
    assert len(rows) == 4
    assert "×" in rows[-1]
    assert axis.index("▲ 100") == rows[0].index("█") + 9 * 3
    assert axis.strip().startswith("└10")
    assert axis.endswith("190")


def test_a_single_huge_loss_does_not_flatten_the_curve():
    rows = draw_curve([(step, 1e6 if step == 5 else 1.0) for step in range(10)], None, 60)
    assert rows[0].startswith("1 │")
    assert "↑" in rows[0]


def test_the_last_loss_before_the_zeros_is_seen_in_a_long_curve():
    rows = draw_curve([(step, 363.0 if step == 0 else 0.0) for step in range(278)], 0, 80)
    assert rows[0].endswith("│█")
    assert draw_curve([(step, 0.0) for step in range(50)], 0, 80) == []


@pytest.mark.parametrize("count", [1, 7, 3000])
@pytest.mark.parametrize("onset", [None, 0, 1, 5, 2999, 10**9])
def test_a_curve_fits_in_any_width(count, onset):
    for values in ([0.0], [1.0, None], [float("nan")], [-1.0, float("inf"), 1e-9]):
        series = [(step, values[step % len(values)]) for step in range(count)]
        for width in (30, 80):
            assert all(len(line) <= width for line in draw_curve(series, onset, width))
