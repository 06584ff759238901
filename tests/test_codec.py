"""A step record and its JSON line: nothing is lost on the way, and every JSON parser can read it."""

import json
import math
from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jinmaek.core.codec import decode_record, dump_line, encode_record, number, plain
from jinmaek.core.record import GroupStats, StepRecord
from jinmaek.ingest.jinmaek_run import record_of

UNHURRIED = settings(deadline=None)  # other programs share the CPU
FLOATS = st.none() | st.floats()
COUNTS = st.none() | st.integers(min_value=0)
NAMES = st.text() | st.sampled_from(["질문-1", "NaN", "Infinity", 'tab\t"quote"\n', ""])
GROUPS = st.builds(GroupStats, **{field.name: FLOATS for field in fields(GroupStats)})
VALUES = {
    "step": st.integers(min_value=1),
    "loss": FLOATS,
    "loss_reported": FLOATS,
    "grad_norm": FLOATS,
    "clip_ratio": FLOATS,
    "lr": FLOATS,
    "num_tokens": COUNTS,
    "num_loss_tokens": COUNTS,
    "seconds": FLOATS,
    "optimizer_stepped": st.none() | st.booleans(),
    "loss_scale": FLOATS,
    "update_ratio": FLOATS,
    "example_ids": st.none() | st.lists(NAMES, max_size=4).map(tuple),
    "groups": st.none() | st.dictionaries(NAMES, GROUPS, max_size=3),
    "digest": st.none() | NAMES,
    "first_grad_norm": FLOATS,
    "first_loss_tokens": COUNTS,
    "memory_bytes": COUNTS,
    "num_steps": st.integers(min_value=1),
    "epoch": FLOATS,
    "token_accuracy": FLOATS,
}
RARE = {
    "first_grad_norm",
    "first_loss_tokens",
    "memory_bytes",
    "num_steps",
    "epoch",
    "token_accuracy",
}  # not spelt out as null
FLOAT_FIELDS = [field.name for field in fields(StepRecord) if field.type == "float | None" and field.name not in RARE]
OTHER_FIELDS = [field.name for field in fields(StepRecord) if field.name not in {"step", *FLOAT_FIELDS, *RARE}]


def strict(line):
    """What a parser reads that knows nothing but the JSON standard."""

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(line, parse_constant=refuse)


def through_json(record):
    return decode_record(strict(dump_line(encode_record(record))))


def exact(record):
    """Equal texts mean equal types and values; NaN equals NaN, and -0.0 does not equal 0.0."""
    return repr(record)


def test_every_field_is_tried_below():
    assert set(VALUES) == {field.name for field in fields(StepRecord)}


@UNHURRIED
@given(st.builds(StepRecord, **VALUES))
def test_a_record_comes_back_as_it_was(record):
    assert exact(through_json(record)) == exact(record)


@UNHURRIED
@given(st.builds(StepRecord, **VALUES))
def test_a_record_is_one_line(record):
    assert not set("\r\n") & set(dump_line(encode_record(record)))


@UNHURRIED
@given(st.floats())
def test_a_float_comes_back_to_the_bit(value):
    assert repr(number(strict(json.dumps(plain(value), allow_nan=False)))) == repr(value)


@pytest.mark.parametrize("name", FLOAT_FIELDS)
@pytest.mark.parametrize(
    ("value", "written"),
    [
        (None, "null"),
        (math.nan, '"NaN"'),
        (math.inf, '"Infinity"'),
        (-math.inf, '"-Infinity"'),
        (0.0, "0.0"),
        (2e-4, "0.0002"),
    ],
)
def test_not_observed_non_finite_and_zero_stay_different_facts(name, value, written):
    record = StepRecord(step=3, **{name: value})
    assert f'"{name}":{written}' in dump_line(encode_record(record))
    assert exact(getattr(through_json(record), name)) == exact(value)


@pytest.mark.parametrize("name", OTHER_FIELDS)
def test_not_observed_is_not_zero_or_empty(name):
    empty = {"optimizer_stepped": False, "example_ids": (), "groups": {}, "digest": ""}.get(name, 0)
    assert getattr(through_json(StepRecord(step=1, **{name: None})), name) is None
    assert exact(getattr(through_json(StepRecord(step=1, **{name: empty})), name)) == exact(empty)


def test_non_finite_group_statistics_stay_what_they_were():
    groups = {"query_key_value": GroupStats(grad_norm=math.inf, weight_norm=0.0, max_update=None)}
    assert through_json(StepRecord(step=1, groups=groups)).groups == groups


def test_an_id_that_looks_like_a_number_stays_text():
    assert through_json(StepRecord(step=1, example_ids=("NaN", "7"), digest="Infinity")) == StepRecord(
        step=1, example_ids=("NaN", "7"), digest="Infinity"
    )


def test_korean_stays_readable_on_disk():
    assert "고양이" in dump_line(encode_record(StepRecord(step=1, example_ids=("고양이",))))


def test_nested_facts_of_an_event_are_strict_json():
    line = dump_line({"event": "end", "losses": [1.5, math.nan], "by": {0: -math.inf}, "pair": (1, None)})
    assert strict(line) == {"event": "end", "losses": [1.5, "NaN"], "by": {"0": "-Infinity"}, "pair": [1, None]}


@pytest.mark.parametrize("row", [{"step": 1, "los": 2.0}, {"step": 1, "groups": {"a": {"norm": 1.0}}}])
def test_a_key_that_no_record_has_is_an_error(row):
    with pytest.raises(TypeError, match="los|norm"):
        decode_record(row)


def test_a_row_without_a_step_is_an_error():
    with pytest.raises(KeyError, match="step"):
        decode_record({"loss": 1.0})


def test_fields_that_an_older_file_lacks_are_not_observed():
    assert decode_record({"step": 4}) == StepRecord(step=4)


def test_a_line_that_another_program_wrote_again_is_read_the_same():
    record = StepRecord(
        step=1, loss=2.0, groups={"query_key_value": GroupStats(grad_norm=1.0, weight_norm=2.0, max_update=None)}
    )
    row = json.dumps(encode_record(record))
    assert record_of(row.encode()) == record_of(json.dumps(json.loads(row), separators=(",", ":")).encode()) == record
