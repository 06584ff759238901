"""numbers.js and plots.js, run by node: they read what embed.py packs, and thin out as decimate.py does."""

import json
import math
import shutil
import subprocess
from importlib.resources import files

import numpy as np
import pytest

from jinmaek.core.codec import number, plain
from jinmaek.core.record import StepRecord
from jinmaek.report.page.columns import Columns
from jinmaek.report.page.decimate import keep
from jinmaek.report.page.embed import pack

NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="needs node")
PAGE = files("jinmaek.report.page")
HEAD = """
const Data = require(process.argv[2]); global.Data = Data; const Plots = require(process.argv[3]);
const given = JSON.parse(require("fs").readFileSync(0, "utf-8"), (key, value) =>
  typeof value === "string" && /^(NaN|-?Infinity)$/.test(value) ? Number(value) : value);
const said = (value) => JSON.stringify(value, (key, item) =>
  typeof item === "number" && !Number.isFinite(item) ? String(item) : ArrayBuffer.isView(item) ? Array.from(item) : item);
(async () => { const answer = await (async () => { %s })(); console.log(said(answer)); })();
"""


def node(program, given, tmp_path):
    script = tmp_path / "program.cjs"
    script.write_text(HEAD % program, "utf-8")
    paths = []
    for name in ("numbers.js", "plots.js"):
        paths.append(tmp_path / name.replace(".js", ".cjs"))
        paths[-1].write_text(PAGE.joinpath(name).read_text("utf-8"), "utf-8")
    done = subprocess.run(
        [NODE, script, *paths], input=json.dumps(plain(given)), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def back(value):
    return [number(item) for item in value]


def columns_of(losses):
    columns = Columns()
    for step, loss in enumerate(losses, 1):
        columns.observe(
            StepRecord(step=step, loss=loss, num_tokens=10 * step, seconds=0.5, optimizer_stepped=step % 3 > 0)
        )
    return columns


def test_what_python_packs_is_what_the_page_reads(tmp_path):
    losses = [1.5, None, math.nan, 0.0, math.inf, -math.inf, 1e300, 2.0]
    layout, block = pack(columns_of(losses))
    run = node(
        "return Data.run(given.layout, await Data.inflate(given.block));", {"layout": layout, "block": block}, tmp_path
    )
    assert run["steps"] == list(range(1, 9))
    assert run["series"]["loss"]["index"] == [0, 2, 3, 4, 5, 6, 7]
    assert back(run["series"]["loss"]["values"]) == pytest.approx([x for x in losses if x is not None], nan_ok=True)
    assert run["skipped"] == [2, 5]


def test_python_and_the_page_choose_the_same_points(tmp_path):
    rng = np.random.default_rng(7)
    cases = []
    for length in (1, 2, 50, 3000, 20_000):
        x = np.cumsum(rng.integers(1, 9, length)).astype(float)
        values = rng.normal(2, 1, length)
        for odd in (math.nan, math.inf, -math.inf, 0.0, 1e9):
            values[rng.integers(0, length, max(1, length // 300))] = odd
        for columns in (1, 37, 700):
            for low, high in ((0.0, 1.0), (0.3, 0.31), (0.2, 0.9)):
                span = x[-1] - x[0] + 1
                cases.append((x, values, x[0] + low * span, x[0] + high * span, columns))
    told = [[x.tolist(), values.tolist(), x0, x1, columns] for x, values, x0, x1, columns in cases]
    chosen = node("return given.map((one) => Data.keep(...one));", told, tmp_path)
    assert chosen == [keep(*case).tolist() for case in cases]


def test_smoothing_steps_over_what_is_not_finite(tmp_path):
    values = [2.0, 2.0, math.nan, 2.0, math.inf, 4.0]
    smooth = back(node("return Data.smooth(given, 4);", values, tmp_path))
    assert smooth[:2] == pytest.approx([2.0, 2.0])
    assert math.isnan(smooth[2])
    assert smooth[4] == math.inf
    assert 2.0 < smooth[5] < 4.0


def test_axes_count_tokens_and_seconds_up_to_the_end_of_each_step(tmp_path):
    layout, block = pack(columns_of([1.0] * 4))
    program = """const run = Data.run(given.layout, await Data.inflate(given.block));
      return [Data.axis(run, "tokens"), Data.axis(run, "time"), Data.xOf(run, "tokens", 2), Data.xOf(run, "time", 0),
              Data.stepAt(run, "time", 1.5), Data.speed(run).values];"""
    tokens, seconds, at_two, at_start, step, speed = node(program, {"layout": layout, "block": block}, tmp_path)
    assert tokens == [10, 30, 60, 100]
    assert seconds == [0.5, 1.0, 1.5, 2.0]
    assert (at_two, at_start, step) == (30, 0, 3)
    assert speed == [20, 40, 60, 80]


@pytest.mark.parametrize("first", [0, 1, 3, 5])
def test_a_followed_run_is_the_run_read_at_once(tmp_path, first):
    losses = [None, 1.0, None, math.nan, 3.0, 0.0]
    start = columns_of(losses[:first])
    whole = columns_of(losses)
    parts = [pack(start), pack(whole, first), pack(whole)]
    program = """const [start, more, whole] = await Promise.all(given.map(async ([layout, block]) =>
        Data.run(layout, await Data.inflate(block))));
      const facts = (run) => Object.fromEntries(Object.entries(run.series).map(([name, series]) =>
        [name, Array.from(series.values, (value, i) => [series.index ? series.index[i] : i, value])]));
      const grown = Data.extend(start, more);
      return [[grown.steps, facts(grown), grown.skipped, grown.length], [whole.steps, facts(whole), whole.skipped, whole.length]];"""
    grown, read = node(program, parts, tmp_path)
    assert grown == read


def test_gaps_and_marks_tell_none_nan_and_zero_apart(tmp_path):
    one = {"x": [1, 2, 4, 5, 6, 7], "values": [1.0, math.nan, 2.0, 0.0, math.inf, 90.0], "dense": True}
    one["series"] = {"index": [0, 1, 3, 4, 5, 6]}
    program = "return [Plots.line(given, [0,1,2,3,4,5], 50, false), Plots.line(given, [0,1,2,3,4,5], Infinity, true)];"
    linear, log = node(program, one, tmp_path)
    assert linear["marks"] == [["nan", 2], ["plus", 6], ["clipped", 7]]
    assert [mark for mark in log["marks"] if mark[0] == "zero"] == [["zero", 5]]
    # After NaN at 2 the line is broken; so it is before 4, for step 3 was not recorded.
    assert linear["y"] == [1.0, None, None, 2.0, 0.0, None, 90.0]


def test_one_spike_does_not_flatten_the_rest(tmp_path):
    program = "return [Data.top(given), Plots.range(given, false, false).top, Plots.range(given, false, true).top];"
    low, clipped, full = node(program, [2.0, 2.1, 1.9, 2.2, 1e5], tmp_path)
    assert (low, clipped) == (2.2, 2.2)
    assert number(full) == math.inf


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (math.nan, "NaN"),
        (math.inf, "∞"),
        (0.0, "0"),
        (65536.0, "65,536"),
        (1.6666666, "1.6667"),
        (1e-5, "1e-5"),
        (5.25e-05, "5.25e-5"),
        (1234567.5, "1.235e6"),
    ],
)
def test_numbers_are_told_as_people_read_them(tmp_path, value, said):
    assert node("return Data.format(given[0]);", [value], tmp_path) == said
