"""Files that programs write: each format whole and damaged. The bytes of binary ones are built here."""

import io
import json
import math
from types import SimpleNamespace

import pytest

from jinmaek.core.codec import dump_line, encode_record
from jinmaek.core.record import StepRecord
from jinmaek.ingest import LogError, find_logs
from log_files import column, split, write

# jinmaek's own runs


def steps_text(*steps, loss=1.5):
    return "".join(dump_line(encode_record(StepRecord(step=step, loss=loss, lr=0.1))) + "\n" for step in steps)


def events_text(*events):
    return "".join(json.dumps({"event": kind, **facts}) + "\n" for kind, facts in events)


def make_run(folder, steps, events=""):
    manifest = {
        "max_steps": 6,
        "schedule_steps": 8,
        "versions": {"torch": "2.9", "triton": None},
        "data": {"num_examples": 12},
        "settings": {
            "train": {"precision": "fp16", "accumulation": 2, "max_grad_norm": 1.0},
            "optim": {"name": "adamw", "schedule": "linear", "lr": 2e-4, "warmup_steps": 1, "weight_decay": 0.0},
        },
    }
    write(folder / "run.json", json.dumps(manifest))
    write(folder / "steps.jsonl", steps)
    write(folder / "events.jsonl", events)
    return str(folder)


def test_a_run_of_jinmaek_with_all_that_happened(tmp_path):
    events = events_text(
        ("evaluation", {"step": 0, "loss": 3.5}),
        ("checkpoint", {"step": 2, "path": "checkpoints/step-00000002"}),
        ("evaluation", {"step": 2, "loss": "NaN"}),
        ("skipped_step", {"step": 3, "cause": "loss"}),
        ("end", {"end": "completed", "num_steps": 4}),
    )
    [source] = find_logs(make_run(tmp_path / "run", steps_text(1, 2, 3, 4, loss=math.nan), events))
    items = list(source.items())
    assert [type(item).__name__[0] + str(item.step) for item in items] == [
        "E0",
        "S1",
        "S2",
        "R2",
        "E2",
        "S3",
        "S4",
        "R4",
    ]
    assert math.isnan(items[1].loss)
    assert math.isnan(items[4].loss)
    assert items[3].text == "checkpoints/step-00000002"
    assert (items[-1].kind, items[-1].text) == ("end", "completed")
    facts = source.facts
    assert (facts.source, facts.filters_loss, facts.max_steps, facts.schedule_steps) == ("jinmaek", False, 6, 8)
    assert (facts.precision, facts.accumulation, facts.max_grad_norm, facts.optimizer) == ("fp16", 2, 1.0, "adamw")
    assert (facts.schedule, facts.peak_lr, facts.warmup_steps, facts.weight_decay) == ("linear", 2e-4, 1, 0.0)
    assert (facts.versions, facts.data) == ({"torch": "2.9", "triton": None}, {"num_examples": 12})


def test_steps_that_a_resumed_run_repeated_are_those_it_repeated(tmp_path):
    steps = steps_text(1, 2, 3, 4, 5) + steps_text(3, 4, loss=2.5) + steps_text(4, 5, 6, loss=3.5)
    events = events_text(
        ("checkpoint", {"step": 2, "path": "a"}),
        ("checkpoint", {"step": 4, "path": "b"}),
        ("end", {"end": "interrupted", "num_steps": 5}),
        ("resumed", {"step": 2}),
        ("resumed", {"step": 3}),
        ("end", {"end": "completed", "num_steps": 6}),
    )
    [source] = find_logs(make_run(tmp_path / "run", steps, events))
    records, _, remarks = split(source)
    assert column(records, "step") == [1, 2, 3, 4, 5, 6]
    assert column(records, "loss") == [1.5, 1.5, 2.5, 3.5, 3.5, 3.5]
    assert [(remark.kind, remark.step, remark.text) for remark in remarks] == [
        ("checkpoint", 2, "a"), ("resumed", 2, ""), ("resumed", 3, ""), ("end", 6, "completed"),
    ]  # fmt: skip


def test_a_torn_last_line_is_still_being_written(tmp_path):
    [source] = find_logs(make_run(tmp_path / "run", steps_text(1, 2) + '{"step":3,"lo', '{"event":"end'))
    assert column(split(source)[0], "step") == [1, 2]
    assert source.unread == 0


def test_a_broken_line_within_is_counted(tmp_path):
    text = steps_text(1) + '{"step":2,"lo\n' + '{"step":3,"loss":1.0,"what":2}\n' + steps_text(4)
    path = write(tmp_path / "steps.jsonl", text)
    [source] = find_logs(path)
    assert column(split(source)[0], "step") == [1, 4]
    assert (source.unread, source.facts.source) == (2, "jinmaek")


def test_a_folder_of_runs(tmp_path):
    for name in ("b", "a"):
        make_run(tmp_path / name, steps_text(1, 2))
    make_run(tmp_path / "empty", "")
    assert [source.name for source in find_logs(str(tmp_path))] == ["a", "b"]


# CSV


@pytest.mark.parametrize("delimiter", [",", "\t", ";", "|"])
def test_tables_of_any_delimiter(tmp_path, delimiter):
    rows = [
        ("step", "train_loss", "lr-AdamW", "val_loss"),
        ("9", "2.5", "", ""),
        ("9", "", "0.5", ""),
        ("9", "", "", "2.25"),
        ("19", "nan", "0.25", ""),
    ]
    [source] = find_logs(write(tmp_path / "metrics.csv", "\r\n".join(delimiter.join(row) for row in rows)))
    records, evaluations, _ = split(source)
    assert (column(records, "step"), column(records, "lr"), column(records, "num_steps")) == (
        [9, 19],
        [0.5, 0.25],
        [1, 10],
    )
    assert math.isnan(records[1].loss)
    assert (column(evaluations, "step"), source.facts.filters_loss) == ([9], False)


def test_a_damaged_table(tmp_path):
    [source] = find_logs(write(tmp_path / "a.csv", "step,loss\n1,2.5\n2\n3,abc\nx,1\n4,1.5"))
    assert column(split(source)[0], "loss") == [2.5, 1.5]
    assert source.unread == 3


def test_wandbs_export_holds_several_runs(tmp_path):
    titles = ["Step", *(f"{run} - train/loss{end}" for run in ("red - fox", "b") for end in ("", "__MIN", "__MAX"))]
    rows = [titles, ["1", "2.5", "2", "3", "", "", ""], ["2", "2.25", "2", "3", "1.5", "1", "2"]]
    path = write(tmp_path / "export.csv", "\n".join(",".join(f'"{cell}"' for cell in row) for row in rows))
    found = {source.name: column(split(source)[0], "loss") for source in find_logs(path)}
    assert found == {"red - fox": [2.5, 2.25], "b": [1.5]}


# Standard input, and what is no log


@pytest.mark.parametrize(
    "text", ["{'loss': 1.5, 'epoch': 0.5}\n", '[{"loss": 1.5, "step": 3}]', steps_text(1, 2, 1), "step,loss\n1,1.5\n"]
)
def test_standard_input_is_read_once(monkeypatch, text):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(text.encode())))
    [source] = find_logs("-")
    assert split(source)[0]
    with pytest.raises(LogError, match="only once"):
        list(source.items())


def test_a_file_can_be_read_again(tmp_path):
    [source] = find_logs(write(tmp_path / "a", "step,loss\n1,1.5\nx,2\n"))
    assert list(source.items()) == list(source.items())
    assert source.unread == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8, "is not a log"),
        (b"\x80\x04\x95loss\x00\x01\x02\x03\x04\x05\x06\x07\x0e\x0f", "is not a log"),
        (b"hello world\n", "holds no training records"),
        (b'{"model": "a", "rank": 8}\n', "holds no training records"),
    ],
)
def test_what_is_no_log_is_told_what_it_is(tmp_path, content, message):
    with pytest.raises(LogError, match=message) as error:
        find_logs(write(tmp_path / "x", content))
    assert str(tmp_path) in str(error.value)
    assert max(error.value.render("ko")) > "\uac00"


def test_nothing_there(tmp_path):
    with pytest.raises(LogError, match="no such file"):
        find_logs(str(tmp_path / "none"))
    with pytest.raises(LogError, match="holds no log"):
        find_logs(str(tmp_path))
    with pytest.raises(LogError):
        find_logs("a\0b")


def test_a_file_that_vanishes(tmp_path):
    path = tmp_path / "log"
    [source] = find_logs(write(path, "{'loss': 1.5, 'epoch': 0.5}\n"))
    path.unlink()
    with pytest.raises(LogError, match="cannot be read"):
        list(source.items())
