"""Charts as PNG and SVG: what is drawn, Korean text, and what is refused."""

import struct

import numpy as np
import pytest

import page_runs
from jinmaek.core.errors import RunError
from jinmaek.report.page import gather_runs, picture
from jinmaek.report.page.series import curves, smooth, top_of, usual_window
from test_page import report

pytest.importorskip("matplotlib")


def test_a_picture_instead_of_the_page_or_beside_it(tmp_path):
    run = page_runs.broken(tmp_path / "망가진-실행")
    done = report(run, "--png", tmp_path / "a.png", "--svg", tmp_path / "a", "--chart", "loss_scale", "--lang", "ko")
    assert done.exit_code == 0, done.output
    header = (tmp_path / "a.png").read_bytes()[:24]
    assert header.startswith(b"\x89PNG")
    assert struct.unpack(">II", header[16:]) == (1600, 800)
    svg = (tmp_path / "a").read_text("utf-8")
    assert "<text" not in svg  # outlines: it looks the same where no Korean font is
    assert not (run / "report.html").exists()
    assert report(run, "--png", tmp_path / "b.png", "-o", tmp_path / "b.html").exit_code == 0
    assert (tmp_path / "b.html").is_file()


def test_hangul_is_drawn_with_a_font_that_has_it(recwarn, tmp_path):
    runs = gather_runs([page_runs.ordinary(tmp_path / "가"), page_runs.ordinary(tmp_path / "나")])
    for name in ("one", "two"):
        picture.draw_picture(runs, "loss", tmp_path / f"{name}.svg", "svg", "ko")
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_what_cannot_be_drawn_is_said(tmp_path, monkeypatch):
    run = page_runs.ordinary(tmp_path / "run")
    assert "there is no such chart" in str(report(run, "--png", tmp_path / "x.png", "--chart", "los").exception)
    assert "token accuracy is not recorded" in str(
        report(run, "--png", tmp_path / "x.png", "--chart", "token_accuracy").exception
    )
    assert "--png FILE" in str(report(run, "--chart", "loss").exception)
    assert "cannot be written" in str(report(run, "--png", run / "run.json" / "x.png").exception)
    monkeypatch.setattr(picture, "find_spec", lambda name: None)
    with pytest.raises(RunError, match=r"jinmaek\[pictures\]"):
        picture.draw_picture(gather_runs([run]), "loss", tmp_path / "x.png", "png", "en")


def test_every_chart_of_odd_runs_can_be_drawn(tmp_path):
    runs = gather_runs(
        [
            page_runs.odd(tmp_path / "odd"),
            page_runs.nothing_but_nan(tmp_path / "nan"),
            page_runs.write(tmp_path / "1", [page_runs.row(1)]),
        ]
    )
    for chart in ("loss", "grad_norm", "lr", "loss_scale", "update_ratio", "speed"):
        path = tmp_path / f"{chart}.svg"
        picture.draw_picture(runs, chart, path, "svg", "en")
        assert path.read_text("utf-8").rstrip().endswith("</svg>")


def test_curves_keep_what_was_seen(tmp_path):
    [run] = gather_runs([page_runs.odd(tmp_path / "odd")])
    [loss] = curves(run.columns, "loss")
    assert loss.steps.tolist() == [1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    assert loss.dense
    [speed] = curves(run.columns, "speed")
    assert set(speed.values) == {200.0}
    assert [one for chart in ("held_out", "token_accuracy") for one in curves(run.columns, chart)] == []


def test_smoothing_and_room_are_those_of_the_page():
    averages = smooth(np.array([2.0, np.nan, 2.0, np.inf, 4.0]), 4)
    assert averages[0] == 2.0
    assert np.isnan(averages[1])
    assert np.isinf(averages[3])
    assert 2.0 < averages[4] < 4.0
    assert top_of(np.array([2.0, 2.1, 1.9, 2.2, 1e5])) == 2.2
    assert [usual_window(size) for size in (1, 399, 400, 40_000)] == [1, 1, 10, 1000]
