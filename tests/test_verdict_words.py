"""Numbers, shares, bars and modules as a verdict prints them."""

import re
from math import inf, nan

import pytest

from jinmaek.core.verdict import Headroom
from jinmaek.explain import tell
from jinmaek.explain.verdict_words import module_name, number, percent, printable
from test_verdict_telling import LANGS, is_clean, printed, verdict
from verdicts import MODULE


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.0, "0"),
        (1234567, "1,234,567"),
        (50331648, "50,331,648"),
        (65504.0, "65,504"),
        (71203.4, "71,200"),
        (1.81234, "1.812"),
        (-0.25, "-0.25"),
        (0.0005, "5e-04"),
        (5.25e-05, "5.25e-05"),
        (3.3895313892515355e38, "3.39e+38"),
        (12345678.0, "1.235e+07"),
        (nan, "NaN"),
        (-inf, "-inf"),
        ("NaN", "NaN"),
        ("Infinity", "inf"),
    ],
)
def test_numbers(value, text):
    assert number(value) == text


def test_shares_below_the_limit_stay_below_it():
    assert [percent(share) for share in (0.0, 0.412, 0.99999, 1.0, 1.087, nan)] == [
        "0%",
        "41.2%",
        "99.9%",
        "100%",
        "109%",
        "NaN",
    ]


def test_modules_are_told_by_their_layer():
    assert module_name(MODULE, "en") == "layer 17, attention.query_key_value"
    assert module_name("model.layers.3", "ko") == "3번 층"
    assert module_name("model.layers.3.experts.7.w1", "en") == "layer 3, experts.7.w1"
    assert module_name("3.weight", "en") == "layer 3, weight"
    assert module_name("lm_head", "en") == "lm_head"
    assert module_name("", "ko") == "모델 전체"
    assert printable("가\n\x00…") == "가\\n\\x00…"


@pytest.mark.parametrize("lang", LANGS)
def test_headroom_draws_a_bar_for_some_steps_and_tells_the_pace(lang):
    def told(shares, left):
        return tell(verdict(headroom=Headroom(module=MODULE, limit=65504.0, shares=shares, steps_left=left)), lang)

    many = told({step: step / 200 for step in range(100)}, 101.2)
    assert [share.step for share in many.headroom.shares] == [0, 20, 40, 59, 79, 99]
    assert "101" in many.headroom.sentence
    assert told({}, None).headroom is None
    for shares in ({5: 0.5}, {5: 0.5, 6: nan}, {5: 0.5, 6: 1.25}, {5: 0.0, 6: 0.999999}, {5: 0.2, 6: inf}):
        for left in (None, 0.2, 40.4, inf, -3.0):
            one = told(shares, left)
            assert is_clean(printed(one))
            assert all(
                ("░" in line) == (share.share < 1) for share, line in zip(one.headroom.shares, bars(one), strict=True)
            )
    assert (
        "about 40 steps"
        in tell(
            verdict(headroom=Headroom(module="m", limit=1.0, shares={1: 0.1, 2: 0.2}, steps_left=40.4)), "en"
        ).headroom.sentence
    )


def bars(told):
    return [line for line in printed(told).splitlines() if re.search("[█░]{8}", line)]
