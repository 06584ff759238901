"""The run directory on disk: whole or absent, readable at any moment, and mended after a kill."""

import json
import threading

import pytest

from jinmaek.core.codec import dump_line, encode_record
from jinmaek.core.errors import RunError, StorageError
from jinmaek.core.record import StepRecord
from jinmaek.store import RunDirectory, StepWriter, read_steps


def record(step, name="7", loss=2.5):
    return StepRecord(step=step, loss=loss, lr=1e-4, example_ids=(name,), optimizer_stepped=True)


def line(step, name="7"):
    return (dump_line(encode_record(record(step, name))) + "\n").encode()


@pytest.fixture
def directory(tmp_path):
    return RunDirectory.create(tmp_path / "run")


@pytest.fixture
def full_disk(directory):
    """Every file that the run writes lies on a disk that takes nothing more."""
    for path in (directory.steps_path, directory.events_path, directory.path / ".run.json"):
        path.symlink_to("/dev/full")
    return directory


def test_a_new_run_has_a_folder_and_no_manifest_yet(tmp_path):
    directory = RunDirectory.create(tmp_path / "deep" / "down" / "run")
    assert directory.path.is_dir()
    with pytest.raises(RunError) as caught:
        RunDirectory.open(directory.path)
    assert str(caught.value) == f"{directory.path} is no run directory (no run.json)."
    assert "실행 폴더가 아닙니다" in caught.value.render("ko")


def test_a_folder_that_holds_a_run_is_not_begun_again(directory):
    directory.write_manifest({"name": "first"})
    with pytest.raises(RunError) as caught:
        RunDirectory.create(directory.path)
    assert str(caught.value).startswith(f"{directory.path} already holds a run.")
    assert RunDirectory.open(directory.path).read_manifest() == {"name": "first"}


def test_a_path_that_is_a_file_cannot_hold_a_run(tmp_path):
    (tmp_path / "run").write_text("mine", "utf-8")
    with pytest.raises(StorageError, match=r"run cannot be written: .*File exists"):
        RunDirectory.create(tmp_path / "run")
    assert (tmp_path / "run").read_text("utf-8") == "mine"


def test_the_manifest_comes_back_and_is_strict_json(directory):
    directory.write_manifest({"이름": "첫 실행", "loss": float("nan"), "seeds": (1, 2)})
    text = (directory.path / "run.json").read_text("utf-8")
    assert "첫 실행" in text
    assert directory.read_manifest() == {"이름": "첫 실행", "loss": "NaN", "seeds": [1, 2]}


def test_a_manifest_that_cannot_be_written_leaves_the_old_one(directory):
    directory.write_manifest({"version": 1})
    with pytest.raises(TypeError):
        directory.write_manifest({"version": object()})
    assert directory.read_manifest() == {"version": 1}


def test_a_full_disk_leaves_the_old_manifest(directory):
    directory.write_manifest({"version": 1})
    (directory.path / ".run.json").symlink_to("/dev/full")
    with pytest.raises(StorageError, match="disk is full"):
        directory.write_manifest({"version": 2})
    assert directory.read_manifest() == {"version": 1}


def test_a_reader_never_sees_half_a_manifest(directory):
    manifests = [{"fill": letter * 200_000} for letter in "ab"]
    directory.write_manifest(manifests[0])
    done = threading.Event()
    seen, broken = set(), []

    def read():
        while not done.is_set():
            try:
                seen.add(directory.read_manifest()["fill"][0])
            except RunError as error:
                broken.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(100):
        directory.write_manifest(manifests[number % 2])
    done.set()
    reader.join()
    assert broken == []
    assert seen <= {"a", "b"}
    assert seen


def test_a_broken_manifest_is_told(directory):
    (directory.path / "run.json").write_text('{"name": ', "utf-8")
    with pytest.raises(RunError, match=r"run\.json cannot be read"):
        directory.read_manifest()


def test_events_come_back_oldest_first_and_by_kind(directory):
    directory.append_event("evaluation", step=0, loss=3.0)
    directory.append_event("checkpoint", step=5)
    directory.append_event("evaluation", step=10, loss=float("inf"))
    assert [event["event"] for event in directory.read_events()] == ["evaluation", "checkpoint", "evaluation"]
    assert directory.read_events("evaluation")[1] == {"event": "evaluation", "step": 10, "loss": "Infinity"}
    assert directory.read_events("end") == []


def test_a_run_without_events_or_steps_has_none(directory):
    assert directory.read_events() == []
    assert read_steps(directory.steps_path) == []


def test_steps_come_back_in_order(directory):
    with StepWriter(directory.steps_path) as writer:
        for step in (1, 2, 3):
            writer.append(record(step))
    assert read_steps(directory.steps_path) == [record(1), record(2), record(3)]


def test_a_step_can_be_read_as_soon_as_it_is_written(directory):
    with StepWriter(directory.steps_path) as writer:
        for step in (1, 2):
            writer.append(record(step))
            assert read_steps(directory.steps_path)[-1] == record(step)


def test_a_step_that_is_being_written_is_not_read_yet(directory):
    whole = line(1) + line(2)
    with directory.steps_path.open("wb", buffering=0) as file:
        for at in range(0, len(whole), 9):
            file.write(whole[at : at + 9])
            read = read_steps(directory.steps_path)
            assert len(read) == whole[: at + 9].count(b"\n")
    assert read_steps(directory.steps_path) == [record(1), record(2)]


@pytest.mark.parametrize("name", ["7", "고양이 🐈"], ids=["ascii", "korean"])
def test_steps_cut_at_any_byte_of_the_last_line_lose_that_line_only(directory, name):
    kept, last = line(1, name), line(2, name)
    for cut in range(len(last)):
        directory.steps_path.write_bytes(kept + last[:cut])
        assert read_steps(directory.steps_path) == [record(1, name)], f"cut after {cut} bytes"


@pytest.mark.parametrize("name", ["7", "고양이 🐈"], ids=["ascii", "korean"])
def test_a_writer_mends_a_file_cut_at_any_byte(directory, name):
    kept, last = line(1, name), line(2, name)
    for cut in range(len(last)):
        directory.steps_path.write_bytes(kept + last[:cut])
        with StepWriter(directory.steps_path) as writer:
            writer.append(record(2, name, loss=9.0))
        assert read_steps(directory.steps_path) == [record(1, name), record(2, name, loss=9.0)]


@pytest.mark.parametrize("question", ["what?", "고양이는?"], ids=["ascii", "korean"])
def test_events_cut_at_any_byte_of_the_last_line_are_read_and_mended(directory, question):
    directory.append_event("sample", question=question)
    kept = directory.events_path.read_bytes()
    for cut in range(len(kept)):
        directory.events_path.write_bytes(kept + kept[:cut])
        assert directory.read_events() == [{"event": "sample", "question": question}], f"cut after {cut} bytes"
        directory.append_event("end")
        assert [event["event"] for event in directory.read_events()] == ["sample", "end"]


def test_a_file_whose_only_line_is_torn_is_begun_again(directory):
    directory.steps_path.write_bytes(line(1)[:-1])
    with StepWriter(directory.steps_path) as writer:
        writer.append(record(1, loss=4.0))
    assert directory.steps_path.read_bytes() == (dump_line(encode_record(record(1, loss=4.0))) + "\n").encode()


def test_a_broken_line_in_the_middle_is_no_torn_line(directory):
    """Only the end can be torn by a kill; elsewhere it is damage, and is not passed over in silence."""
    directory.steps_path.write_bytes(line(1) + b'{"step": 2, "lo\n' + line(3))
    with pytest.raises(json.JSONDecodeError):
        read_steps(directory.steps_path)


def test_a_resumed_run_replaces_the_steps_after_its_checkpoint(directory):
    with StepWriter(directory.steps_path) as writer:
        for step in (1, 2, 3, 4, 5):
            writer.append(record(step, loss=1.0))
    with StepWriter(directory.steps_path) as writer:
        for step in (3, 4):
            writer.append(record(step, loss=2.0))
    assert [(seen.step, seen.loss) for seen in read_steps(directory.steps_path)] == [(1, 1.0), (2, 1.0), (3, 2.0), (4, 2.0)]  # fmt: skip
    assert len(directory.steps_path.read_bytes().splitlines()) == 7


def test_a_run_resumed_twice_keeps_the_last_telling_of_each_step(directory):
    with StepWriter(directory.steps_path) as writer:
        for telling, steps in enumerate([(1, 2, 3, 4), (2, 3), (3, 4, 5)]):
            for step in steps:
                writer.append(record(step, loss=float(telling)))
    told = [(seen.step, seen.loss) for seen in read_steps(directory.steps_path)]
    assert told == [(1, 0.0), (2, 1.0), (3, 2.0), (4, 2.0), (5, 2.0)]


def test_a_run_begun_again_from_step_one_forgets_everything(directory):
    with StepWriter(directory.steps_path) as writer:
        for step in (1, 2, 1):
            writer.append(record(step, loss=float(step)))
    assert read_steps(directory.steps_path) == [record(1, loss=1.0)]


def full(error, path):
    english = f"The disk is full: {path}. Everything written before is kept."
    return str(error).startswith(english) and error.render("ko").startswith(f"디스크가 가득 찼습니다: {path}.")


def test_a_step_that_the_full_disk_does_not_take_is_an_error(full_disk):
    with pytest.raises(StorageError) as caught, StepWriter(full_disk.steps_path) as writer:
        writer.append(record(1))
    assert full(caught.value, full_disk.steps_path)


def test_an_event_that_the_full_disk_does_not_take_is_an_error(full_disk):
    with pytest.raises(StorageError) as caught:
        full_disk.append_event("end")
    assert full(caught.value, full_disk.path)


def test_a_manifest_that_the_full_disk_does_not_take_is_an_error(full_disk):
    with pytest.raises(StorageError) as caught:
        full_disk.write_manifest({"name": "run"})
    assert full(caught.value, full_disk.path)
    assert not (full_disk.path / "run.json").exists()


def test_a_folder_that_is_gone_is_told_as_such(directory):
    directory.path.rmdir()
    with pytest.raises(StorageError) as caught:
        StepWriter(directory.steps_path)
    assert str(caught.value).startswith(f"{directory.steps_path} cannot be written: ")
    assert "쓸 수 없습니다" in caught.value.render("ko")
