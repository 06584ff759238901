"""From the records of a run to columns and to the bytes in a page: nothing seen is lost, nothing unseen made up."""

import base64
import gzip
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jinmaek.core.record import EvaluationRecord, Remark, StepRecord
from jinmaek.report.page.columns import Columns
from jinmaek.report.page.decimate import keep
from jinmaek.report.page.embed import narrow, pack, script_json

LOSSES = st.none() | st.floats(width=64) | st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 1e300, 1e-300])


def columns_of(losses, steps=None):
    columns = Columns()
    for step, loss in zip(steps or range(1, len(losses) + 1), losses, strict=True):
        columns.observe(StepRecord(step=step, loss=loss))
    return columns


def unpacked(layout, text):
    """What numbers.js does, in Python."""
    block = gzip.decompress(base64.b64decode(text))

    def column(place):
        kind = np.dtype("<" + place["type"])
        raw = np.frombuffer(block, np.uint8, place["length"] * kind.itemsize, place["at"])
        return np.ascontiguousarray(raw.reshape(kind.itemsize, -1).T).view(kind).ravel()

    steps = layout["steps"]
    steps = steps["start"] + steps["stride"] * np.arange(layout["num_records"]) if "stride" in steps else column(steps)
    series = {}
    for name, packed in layout["series"].items():
        values = column(packed["values"])
        index = column(packed["index"]) if "index" in packed else np.arange(len(values))
        series[name] = dict(zip(index.tolist(), values.tolist(), strict=True))
    return steps, series, column


@given(st.lists(LOSSES, max_size=40))
def test_none_nan_and_zero_stay_three_facts_on_the_way_into_the_page(losses):
    steps, series, _ = unpacked(*pack(columns_of(losses)))
    assert steps.tolist() == list(range(1, len(losses) + 1))
    seen = series.get("loss", {})
    assert set(seen) == {number for number, loss in enumerate(losses) if loss is not None}
    for number, value in seen.items():
        assert value == pytest.approx(losses[number], rel=1e-6, abs=0, nan_ok=True)
        assert (value == 0) == (losses[number] == 0)
        assert math.isinf(value) == math.isinf(losses[number])


@given(st.lists(LOSSES, min_size=1, max_size=30), st.integers(0, 30))
def test_what_a_followed_run_grew_by_is_packed_alone(losses, first):
    first = min(first, len(losses))
    layout, text = pack(columns_of(losses), first)
    steps, series, _ = unpacked(layout, text)
    assert steps.tolist() == list(range(first + 1, len(losses) + 1))
    assert set(series.get("loss", {})) == {
        n - first for n, loss in enumerate(losses) if n >= first and loss is not None
    }


def test_a_run_that_goes_back_keeps_what_led_on():
    columns = columns_of([5.0, 4.0, 3.0, 2.0])
    columns.observe(EvaluationRecord(step=4, loss=9.0))
    columns.observe(Remark(kind="resumed", step=2))
    columns.observe(StepRecord(step=3, loss=7.0, optimizer_stepped=False))
    assert list(columns.steps) == [1, 2, 3]
    assert list(columns.series["loss"].values) == [5.0, 4.0, 7.0]
    assert columns.evaluations == []
    assert columns.resumed == [2]
    assert columns.num_replaced == 2
    assert list(columns.skipped) == [2]


def test_a_step_told_twice_without_a_resume_replaces_the_first():
    columns = columns_of([5.0, 4.0])
    columns.observe(StepRecord(step=2, loss=3.0))
    assert list(columns.series["loss"].values) == [5.0, 3.0]


def test_a_field_that_comes_late_has_no_value_before():
    columns = Columns()
    for step in range(1, 6):
        columns.observe(StepRecord(step=step, loss_scale=None if step < 3 else 4.0))
    _, series, _ = unpacked(*pack(columns))
    assert series["loss_scale"] == {2: 4.0, 3: 4.0, 4: 4.0}


def test_steps_with_gaps_are_kept_one_by_one():
    steps, _, _ = unpacked(*pack(columns_of([1.0, 1.0, 1.0], [10, 20, 35])))
    assert steps.tolist() == [10, 20, 35]


@pytest.mark.parametrize("value", [1e39, 1e-44, 1e-300])
def test_a_number_beyond_float32_travels_as_float64(value):
    assert narrow(np.array([1.0, value])).dtype == np.float64


def test_a_dying_loss_scale_fits_into_float32():
    assert narrow(np.array([2.0**-149, 65536.0, 0.0])).dtype == np.float32


def test_the_same_run_gives_the_same_bytes():
    assert pack(columns_of([1.0, math.nan])) == pack(columns_of([1.0, math.nan]))


def test_json_in_a_script_cannot_end_the_script():
    text = script_json({"a": "</script><!-- & \u2028\u2029", "b": "한글"})
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"a": "</script><!-- & \u2028\u2029", "b": "한글"}


@given(st.integers(1, 4000), st.integers(1, 50), st.integers(0, 2**32 - 1))
def test_no_spike_and_no_nan_vanishes_from_the_picture(length, columns, seed):
    rng = np.random.default_rng(seed)
    x = np.arange(1.0, length + 1)
    values = rng.normal(1, 0.1, length)
    spike, hole, endless = rng.integers(length, size=3)
    values[endless], values[hole], values[spike] = math.inf, math.nan, 1e6
    kept = keep(x, values, 1.0, float(length), columns)
    assert (np.diff(kept) > 0).all()
    assert len(kept) <= max(4 * columns, 7 * (columns + 2))
    assert spike in kept
    assert np.isnan(values[kept]).any() == np.isnan(values).any()
    assert np.isinf(values[kept]).any() == np.isinf(values).any()
    assert np.nanmin(values[kept]) == np.nanmin(values)


def test_a_zoom_brings_every_point():
    x = np.arange(100_000.0)
    kept = keep(x, np.ones(100_000), 500.0, 900.0, 700)
    assert kept.tolist() == list(range(499, 902))
