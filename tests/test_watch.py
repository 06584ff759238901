"""Following a run of another process, and how it looks on a terminal."""

import io
import itertools
import json
import math

import pytest
from rich.console import Console
from typer.testing import CliRunner

import page_runs
from jinmaek.cli import watching
from jinmaek.cli.main import app
from jinmaek.core.codec import dump_line
from jinmaek.core.errors import RunError
from jinmaek.core.record import EvaluationRecord, Remark, StepRecord
from jinmaek.ingest.follow import Follower
from jinmaek.report.watch import Watched, draw_watched


def append(run, *rows, file="steps.jsonl"):
    with (run / file).open("a", encoding="utf-8") as stream:
        stream.write("".join(dump_line(row) + "\n" for row in rows))


def steps(items):
    return [item.step for item in items if isinstance(item, StepRecord)]


def shown(run, lang="en", width=80, height=40, quiet=0.0):
    watched = Watched(Follower(run))
    watched.look()
    console = Console(file=io.StringIO(), width=width, color_system=None, highlight=False)
    console.print(draw_watched(watched, lang, width, height, quiet_seconds=quiet))
    return console.file.getvalue()


def test_each_look_brings_what_is_new_and_a_torn_line_waits_until_it_is_whole(tmp_path):
    run = page_runs.write(tmp_path / "run", [page_runs.row(1), page_runs.row(2)])
    follower = Follower(run)
    assert steps(follower.poll()) == [1, 2]
    assert steps(follower.poll()) == []
    line = dump_line(page_runs.row(3, example_ids=["하늘"])).encode() + b"\n"
    cut = line.index("하".encode()) + 1  # within a Korean letter
    with (run / "steps.jsonl").open("ab") as stream:
        stream.write(line[:cut])
    assert steps(follower.poll()) == []
    with (run / "steps.jsonl").open("ab") as stream:
        stream.write(line[cut:])
    assert steps(follower.poll()) == [3]


def test_a_resumed_run_goes_back_and_is_no_longer_at_its_end(tmp_path):
    run = page_runs.write(
        tmp_path / "run",
        [page_runs.row(n) for n in (1, 2, 3)],
        [{"event": "end", "end": "interrupted", "num_steps": 3}],
    )
    follower = Follower(run)
    list(follower.poll())
    assert follower.end["end"] == "interrupted"
    append(run, {"event": "resumed", "step": 1}, file="events.jsonl")
    append(run, page_runs.row(2))
    items = list(follower.poll())
    assert follower.end is None
    assert items == [Remark(kind="resumed", step=1), items[1]]
    assert steps(items) == [2]


def test_a_run_that_is_not_there_yet_and_one_that_was_begun_anew(tmp_path):
    follower = Follower(tmp_path / "run")
    assert list(follower.poll()) == []
    run = page_runs.write(tmp_path / "run", [page_runs.row(n) for n in (1, 2, 3)])
    assert steps(follower.poll()) == [1, 2, 3]
    assert follower.facts.max_steps == 100
    (run / "steps.jsonl").write_text(dump_line(page_runs.row(1)) + "\n")
    assert [type(item) for item in follower.poll()] == [Remark, StepRecord]


def test_damaged_lines_are_passed_over(tmp_path):
    run = page_runs.write(tmp_path / "run", [page_runs.row(1)], [{"event": "evaluation", "step": 1, "loss": 2.0}])
    for name in ("steps.jsonl", "events.jsonl"):
        with (run / name).open("ab") as stream:
            stream.write(b'\xff\xfe{"step\n[]\n\n{"event": 3}\n')
    append(run, page_runs.row(2))
    items = list(Follower(run).poll())
    assert steps(items) == [1, 2]
    assert [item.loss for item in items if isinstance(item, EvaluationRecord)] == [2.0]


@pytest.mark.parametrize("lang", ["en", "ko"])
@pytest.mark.parametrize("width", [30, 44, 80, 200])
def test_no_line_is_wider_than_the_terminal(tmp_path, width, lang):
    text = shown(page_runs.broken(tmp_path / ("ordner-" * 6)), lang, width, quiet=100)
    from rich.cells import cell_len

    assert max(map(cell_len, text.splitlines())) <= width
    assert text.splitlines()[0].startswith("…" if width < 200 else "/")


def test_a_broken_run_is_told_with_its_family(tmp_path):
    text = shown(page_runs.broken(tmp_path / "run"))
    assert "✗ numerics" in text
    assert "✓ data" in text
    assert "since step 80: masked NaN" in text
    assert "20 steps not applied" in text
    assert "overflowed (loss scale 0.125)" in text


@pytest.mark.parametrize(
    ("scale", "norm", "said"),
    [
        (64.0, 1.0, "can grow 1,000 times"),
        (65536.0, 10.0, "10 times the limit"),
        (0.0, 1.0, "loss scale is 0"),
        (None, 1.0, None),
        (64.0, math.nan, "overflowed"),
    ],
)
def test_room_before_overflow(tmp_path, scale, norm, said):
    text = shown(page_runs.write(tmp_path / "run", [page_runs.row(1, loss_scale=scale, grad_norm=norm)]), width=120)
    assert said in text if said else "fp16" not in text


def test_silence_is_told_but_not_after_the_end(tmp_path):
    assert "Nothing new for 1m40s" in shown(page_runs.odd(tmp_path / "odd"), quiet=100)
    assert "Nothing new" not in shown(page_runs.odd(tmp_path / "again"), quiet=30)
    assert "Nothing new" not in shown(page_runs.ordinary(tmp_path / "ended"), quiet=100)
    assert "No step yet." in shown(page_runs.write(tmp_path / "empty", []), quiet=100)


def test_the_command_shows_the_newest_run_once_without_a_terminal(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page_runs.ordinary(tmp_path / "runs" / "mine")
    done = CliRunner().invoke(app, ["watch"])
    assert done.exit_code == 0, done.output
    assert "mine" in done.output
    stopped = page_runs.write(
        tmp_path / "s", [page_runs.row(1)], [{"event": "end", "end": "skipped_steps", "num_steps": 1}]
    )
    assert CliRunner().invoke(app, ["watch", str(stopped)]).exit_code == 3
    page_runs.ordinary(tmp_path / "runs" / "sweeps" / "lr" / "trials" / "001")
    assert "001" in CliRunner().invoke(app, ["watch"]).output
    assert isinstance(CliRunner().invoke(app, ["watch", str(tmp_path / "no")]).exception, RunError)
    monkeypatch.chdir(tmp_path / "s")
    assert "no run in runs" in str(CliRunner().invoke(app, ["watch"]).exception)


def test_json_says_the_same_to_a_script(tmp_path):
    done = CliRunner().invoke(app, ["watch", str(page_runs.broken(tmp_path / "run")), "--json"])
    told = json.loads(done.stdout)
    assert (told["step"], told["loss"], told["skipped_steps"], told["end"]) == (99, "NaN", 20, None)
    assert told["causes"] == ["nan-masked-scaler-skip"]
    assert told["seconds_left"] == 0.5


def test_it_follows_to_the_end_through_a_resume(tmp_path, monkeypatch):
    run = page_runs.write(tmp_path / "run", [page_runs.row(1)])
    clock = itertools.count()
    happens = {
        2: lambda: append(run, page_runs.row(2)),
        3: lambda: append(run, {"event": "end", "end": "interrupted", "num_steps": 2}, file="events.jsonl"),
        4: lambda: append(run, {"event": "resumed", "step": 2}, file="events.jsonl"),
        9: lambda: append(run, {"event": "end", "end": "completed", "num_steps": 2}, file="events.jsonl"),
    }

    def sleep(seconds):
        happens.pop(next(clock), lambda: None)()

    now = itertools.count(100)
    monkeypatch.setattr(watching.time, "sleep", sleep)
    monkeypatch.setattr(watching.time, "monotonic", lambda: float(next(now)))
    watched = Watched(Follower(run))
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    watching._follow(watched, console, "en")
    assert happens == {}
    assert watched.last.step == 2
    assert "Completed." in console.file.getvalue()


def test_leaving_says_that_the_training_goes_on(tmp_path, monkeypatch, capsys):
    def interrupt(seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(watching.time, "sleep", interrupt)
    run = page_runs.write(tmp_path / "run", [page_runs.row(1)])
    watching._follow(Watched(Follower(run)), Console(file=io.StringIO(), width=80, force_terminal=True), "en")
    assert "training goes on" in capsys.readouterr().out
