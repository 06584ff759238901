"""Snapshots while training: the ring, what is kept of it, what becomes of a full disk, and that they restore."""

import errno
import threading
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import jinmaek
from broken_optimizer import broken_second_moments
from jinmaek.config.recipe import CaptureSection
from jinmaek.core.errors import ModelError, RunError
from jinmaek.replay.scene import opened
from jinmaek.store import RunDirectory, read_steps
from jinmaek.training import capture_file
from jinmaek.training import captures as module
from jinmaek.training.capture_file import ENDING, FORMAT, list_captures, read_capture, step_of, write_capture
from jinmaek.training.captures import KEPT, Captures
from jinmaek.training.checkpoint import list_checkpoints
from jinmaek.training.state import StateCopy, state_of
from jinmaek.training.step import run_step

FULL = OSError(errno.ENOSPC, "No space left on device")


class Ring:
    """Captures of a made-up training in ``folder``, and what they told."""

    def __init__(self, monkeypatch, folder, **section):
        monkeypatch.setattr(module, "state_of", lambda training, step: {"step": step, "x": torch.full((3,), step)})
        self.folder, self.told = folder, []
        section = CaptureSection(**({"every": 1, "keep": 3, "keep_found": 4} | section))
        self.captures = Captures(folder, section, lambda event, **facts: self.told.append((event, facts)))

    def steps(self, first, last):
        for step in range(first, last + 1):
            self.captures.after_step(None, step)
            self.wait()

    def wait(self):
        """Until the writing is over, as before a slow step; only the writer's own turn settles it."""
        if self.captures._writing is not None:
            self.captures._writing.exception(timeout=30)

    @property
    def ring(self):
        return [step_of(path) for path in list_captures(self.folder)]

    @property
    def kept(self):
        return [step_of(path) for path in list_captures(self.folder / KEPT)]


@pytest.fixture
def make_ring(monkeypatch, tmp_path):
    made = []

    def make(**section):
        made.append(Ring(monkeypatch, tmp_path / "captures", **section))
        return made[-1]

    yield make
    for ring in made:
        ring.captures.close()


@pytest.mark.parametrize(("every", "keep", "left"), [(1, 3, [8, 9, 10]), (3, 2, [6, 9]), (4, 1, [8]), (11, 2, [])])
def test_the_ring_keeps_the_last_of_every_so_many_steps(make_ring, every, keep, left):
    ring = make_ring(every=every, keep=keep)
    ring.steps(1, 10)
    assert ring.ring == left
    assert [read_capture(path)["x"].tolist() for path in list_captures(ring.folder)] == [[step] * 3 for step in left]
    assert ring.told == []


def test_with_every_0_nothing_is_written(make_ring):
    ring = make_ring(every=0)
    ring.steps(1, 10)
    ring.captures.close()
    assert not ring.folder.exists()


def test_a_draft_is_no_snapshot(make_ring):
    ring = make_ring(keep=2)
    ring.folder.mkdir()
    (ring.folder / "step-00000099.draft").write_bytes(b"half")
    ring.steps(1, 4)
    assert ring.ring == [3, 4]
    assert ring.captures.keep_before(200) == [3, 4]


def test_the_two_before_a_finding_are_kept_for_good(make_ring):
    ring = make_ring()
    ring.steps(1, 5)
    assert ring.captures.keep_before(5) == [3, 4]
    assert (ring.kept, ring.ring) == ([3, 4], [5])
    ring.steps(6, 20)
    assert (ring.kept, ring.ring) == ([3, 4], [18, 19, 20])
    assert read_capture(ring.folder / KEPT / f"step-00000003{ENDING}")["step"] == 3


def test_what_is_kept_already_takes_no_room_again(make_ring):
    ring = make_ring(keep=5, keep_found=3)
    ring.steps(1, 5)
    assert ring.captures.keep_before(4) == [2, 3]
    assert ring.captures.keep_before(4) == []
    assert ring.captures.keep_before(5) == [4], "3 is kept, 4 is new"
    assert ring.captures.keep_before(6) == [], "no room is left"
    assert (ring.kept, ring.ring) == ([2, 3, 4], [1, 5])


def test_with_room_for_one_the_nearer_one_is_kept(make_ring):
    ring = make_ring(keep_found=1)
    ring.steps(1, 3)
    assert ring.captures.keep_before(4) == [3]
    assert ring.captures.keep_before(4) == []


@pytest.mark.parametrize(("keep_found", "step"), [(0, 4), (4, 1)])
def test_nothing_is_kept_without_room_or_before_the_first(make_ring, keep_found, step):
    ring = make_ring(keep_found=keep_found)
    ring.steps(1, 3)
    assert ring.captures.keep_before(step) == []
    assert (ring.kept, ring.ring) == ([], [1, 2, 3])


def test_a_snapshot_taken_again_after_a_resume_is_kept_once(make_ring):
    """Else it would take the place of the other neighbour."""
    ring = make_ring(keep_found=1)
    ring.steps(1, 3)
    assert ring.captures.keep_before(4) == [3]
    ring.captures.close()
    again = make_ring()
    again.captures.forget_after(2)
    again.steps(3, 3)
    assert (again.kept, again.ring) == ([3], [1, 2, 3])
    assert again.captures.keep_before(4) == [2]
    assert again.kept == [2, 3]


def test_the_snapshot_that_is_being_written_counts(make_ring, monkeypatch):
    ring, write, gate = make_ring(), module.write_capture, threading.Event()

    def slow(path, snapshot):
        gate.wait(30)
        write(path, snapshot)

    monkeypatch.setattr(module, "write_capture", slow)
    ring.captures.after_step(None, 1)
    threading.Timer(0.1, gate.set).start()
    assert ring.captures.keep_before(2) == [1]


def test_steps_that_run_again_are_forgotten_and_kept_ones_stay(make_ring):
    ring = make_ring(keep=6)
    ring.steps(1, 6)
    ring.captures.keep_before(6)
    ring.captures.forget_after(2)
    assert (ring.kept, ring.ring) == ([4, 5], [1, 2])
    ring.captures.forget_after(0)
    assert ring.ring == []


@pytest.mark.parametrize(
    ("error", "said"),
    [(FULL, "No space left"), (RuntimeError("no luck\nmore"), "no luck"), (MemoryError(), "MemoryError")],
    ids=["full disk", "several lines", "without words"],
)
def test_a_failed_writing_ends_the_capturing_and_leaves_no_draft(make_ring, monkeypatch, error, said):
    ring, write = make_ring(), capture_file._write

    def full(file, packed):
        file.write(b"half")
        raise error

    ring.steps(1, 2)
    monkeypatch.setattr(capture_file, "_write", full)
    ring.steps(3, 3)
    monkeypatch.setattr(capture_file, "_write", write)
    ring.steps(4, 8)
    ring.captures.close()
    [(event, facts)] = ring.told
    assert event == "capture_failed"
    assert said in facts["error"]
    assert "\n" not in facts["error"]
    assert sorted(path.name for path in ring.folder.iterdir()) == [f"step-0000000{step}{ENDING}" for step in (1, 2)]


def test_no_room_for_the_copy_ends_the_capturing_only(make_ring, monkeypatch):
    ring = make_ring()

    def no_room(state):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(module, "StateCopy", no_room)
    ring.steps(1, 5)
    assert ring.told == [("capture_failed", {"error": "CUDA out of memory"})]


def test_a_failure_of_the_last_writing_is_told_at_the_end(make_ring, monkeypatch):
    ring = make_ring()

    def full(path, snapshot):
        raise FULL

    monkeypatch.setattr(module, "write_capture", full)
    ring.steps(1, 1)
    assert ring.told == []
    ring.captures.close()
    assert [event for event, _ in ring.told] == ["capture_failed"]


def test_a_slow_disk_skips_snapshots_and_never_holds_two(make_ring, monkeypatch):
    ring, write = make_ring(keep=10), module.write_capture
    gate, begun, lock = threading.Event(), threading.Event(), threading.Lock()

    def slow(path, snapshot):
        assert lock.acquire(blocking=False), "two at a time"
        begun.set()
        gate.wait(30)
        write(path, snapshot)
        lock.release()

    monkeypatch.setattr(module, "write_capture", slow)
    ring.captures.after_step(None, 1)
    assert begun.wait(30)
    for step in range(2, 6):
        ring.captures.after_step(None, step)
    assert ring.told == [("capture_skipped", {"step": step}) for step in range(2, 6)]
    gate.set()
    ring.wait()
    ring.steps(6, 7)
    ring.captures.close()
    assert ring.ring == [1, 6, 7]
    assert len(ring.told) == 4


def test_another_format_is_refused_with_its_path(tmp_path, monkeypatch):
    path = tmp_path / f"step-00000001{ENDING}"
    write_capture(path, StateCopy({"step": 1, "x": torch.ones(2)}))
    assert read_capture(path)["step"] == 1
    save_file({"x": torch.ones(2)}, tmp_path / "adapter.safetensors")
    with pytest.raises(RunError, match=rf"adapter.safetensors has format None; .* reads format {FORMAT}"):
        read_capture(tmp_path / "adapter.safetensors")
    monkeypatch.setattr(capture_file, "FORMAT", "jinmaek-capture-2")
    with pytest.raises(RunError, match=rf"{path} has format {FORMAT}; .* reads format jinmaek-capture-2"):
        read_capture(path)


def test_a_snapshot_is_a_safetensors_file_of_few_tensors(make_session, tmp_path):
    """What the library reads of it, without anything of ours."""
    session = make_session(adapter={"rank": 64}, optim={"name": "adamw_8bit"})
    run_step(session.training, 1, session.plan.batches(1))
    path = tmp_path / f"step-00000001{ENDING}"
    packed = StateCopy(state_of(session.training, 1)).packed()
    write_capture(path, StateCopy(state_of(session.training, 1)))
    rows = load_file(path)
    assert set(rows) == set(packed["rows"]) >= {"float32@cpu", "uint8@cpu"}
    assert all(torch.equal(rows[name], row) for name, row in packed["rows"].items())
    with safe_open(path, framework="pt") as file:
        assert file.metadata() == {"format": FORMAT, "layout": packed["layout"]}


DTYPES = list(capture_file._DTYPES)


@pytest.mark.parametrize("sizes", [(0, 1, 3), (5, 0, 0), (1, 1, 1)])
def test_every_dtype_and_odd_and_empty_rows_survive(tmp_path, sizes):
    state = {
        "한글": [(torch.arange(size) * 37 % 100).to(dtype) for dtype in reversed(DTYPES) for size in sizes],
        "scalar": torch.tensor(7.5),
        "nothing": [],
    }
    path = tmp_path / f"step-00000001{ENDING}"
    write_capture(path, StateCopy(state))
    found = read_capture(path)
    assert list(found) == list(state)
    for one, two in zip([*state["한글"], state["scalar"]], [*found["한글"], found["scalar"]], strict=True):
        assert (one.dtype, one.shape) == (two.dtype, two.shape)
        assert torch.equal(one, two)


def test_a_state_without_tensors_is_a_snapshot_too(tmp_path):
    path = tmp_path / f"step-00000001{ENDING}"
    write_capture(path, StateCopy({"step": 1, "optimizer": {"state": {}}}))
    assert read_capture(path) == {"step": 1, "optimizer": {"state": {}}}


@pytest.mark.parametrize("content", ["nothing", "garbage", "half", "absent"])
def test_a_snapshot_that_cannot_be_read_is_named(tmp_path, content):
    path = tmp_path / f"step-00000001{ENDING}"
    write_capture(path, StateCopy({"step": 1, "x": torch.ones(500)}))
    whole = path.read_bytes()
    path.unlink()
    if content != "absent":
        path.write_bytes({"nothing": b"", "garbage": b"no snapshot at all", "half": whole[: len(whole) // 2]}[content])
    with pytest.raises(RunError) as raised:
        read_capture(path)
    for lang in ("en", "ko"):
        assert str(path) in raised.value.render(lang)


@pytest.mark.parametrize("file", ["training_state.pt", "adapter_model.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no checkpoint at all", None])
def test_a_checkpoint_that_cannot_be_read_is_named(make_session, tmp_path, file, content):
    from jinmaek.training.checkpoint import load_checkpoint, save_checkpoint

    session = make_session()
    path = save_checkpoint(session.training, tmp_path, 0, 1)
    whole = (path / file).read_bytes()
    (path / file).write_bytes(whole[: len(whole) // 2] if content is None else content)
    with pytest.raises(RunError, match="step-00000000"):
        load_checkpoint(session.training, path)


def trained(make_recipe, path, *, capture, listener=None, interrupted=lambda: False, **sections):
    recipe = make_recipe(capture=capture, **sections)
    return jinmaek.train(recipe, run_dir=path, listener=listener, interrupted=interrupted)


def facts(run):
    return [(record.step, record.digest, record.update_ratio) for record in read_steps(run / "steps.jsonl")]


class Slowly(jinmaek.RunListener):
    """Waits for each snapshot, so that none is skipped: these steps take less time than writing one."""

    def __init__(self, monkeypatch):
        own = Captures.after_step

        def after_step(captures, training, step):
            own(captures, training, step)
            if captures._writing is not None:
                captures._writing.exception(timeout=30)

        monkeypatch.setattr(Captures, "after_step", after_step)


CASES = {
    "fp32": {"adapter": {"dropout": 0.1}},
    "fp16 nf4 paged 8-bit, packed, accumulation": {
        "model": {"quantization": "nf4", "activation_checkpointing": True},
        "data": {"packing": True, "max_length": 96},
        "adapter": {"rank": 64, "dropout": 0.1},
        "train": {
            "precision": "fp16",
            "loss_scale_init": 2.0**22,
            "batch_size": None,
            "batch_tokens": 128,
            "accumulation": 2,
        },
        "optim": {"name": "paged_adamw_8bit"},
    },
}


@pytest.mark.parametrize("case", CASES)
def test_every_state_of_a_run_replays_what_was_recorded(make_recipe, tmp_path, monkeypatch, case):
    result = trained(
        make_recipe, tmp_path / "run", capture={"every": 2, "keep": 3}, listener=Slowly(monkeypatch), **CASES[case]
    )
    with opened(result.path) as scene:
        assert scene.differences == ()
        starts = scene.starts(12)
        assert [(start.step, start.kind) for start in starts] == [
            (0, "fresh"),
            (5, "checkpoint"),
            (8, "capture"),
            (10, "capture"),
        ]
        for start in [*starts, starts[0]]:
            replayed = list(scene.replay(scene.state(start), 12))
            recorded = [scene.records[step] for step in range(start.step + 1, 13)]
            assert [(each.step, each.digest, each.update_ratio) for each in replayed] == [
                (each.step, each.digest, each.update_ratio) for each in recorded
            ]
    assert [step_of(path) for path in list_captures(result.path / "captures")] == [8, 10, 12]


@pytest.mark.parametrize("case", CASES)
def test_a_run_is_the_same_with_and_without_snapshots(make_recipe, tmp_path, case):
    runs = {
        every: trained(make_recipe, tmp_path / str(every), capture={"every": every}, **CASES[case]) for every in (0, 1)
    }
    assert facts(runs[0].path) == facts(runs[1].path)
    assert runs[0].held_out_after == runs[1].held_out_after
    assert not (runs[0].path / "captures").exists()
    assert list_captures(runs[1].path / "captures")


def test_a_full_disk_under_the_snapshots_does_not_stop_the_run(make_recipe, tmp_path, monkeypatch):
    write = module.write_capture

    def full(path, snapshot):
        if step_of(path) >= 6:
            raise FULL
        write(path, snapshot)

    monkeypatch.setattr(module, "write_capture", full)
    result = trained(make_recipe, tmp_path / "run", capture={"every": 2}, listener=Slowly(monkeypatch))
    assert result.end == "completed"
    assert result.num_updates == 12
    [event] = RunDirectory.open(result.path).read_events("capture_failed")
    assert "No space left" in event["error"]
    assert [step_of(path) for path in list_captures(result.path / "captures")] == [2, 4]
    assert len(list_checkpoints(result.path / "checkpoints")) == 3


class Spoil(Slowly):
    """Poisons the frozen head once the record of a step is told."""

    def __init__(self, monkeypatch, step):
        super().__init__(monkeypatch)
        self.step = step

    def on_ready(self, session, path):
        self.session = session

    def on_step(self, record):
        if record.step == self.step:
            self.session.training.model.get_output_embeddings().weight.data[0, 0] = float("nan")


def test_a_finding_keeps_the_snapshots_before_it(make_recipe, tmp_path, monkeypatch):
    result = trained(
        make_recipe,
        tmp_path / "run",
        capture={"every": 2},
        listener=Spoil(monkeypatch, 6),
        train={"max_steps": 40, "checkpoint_every": 0},
    )
    assert result.end == "skipped_steps"
    records = read_steps(result.path / "steps.jsonl")
    broken = next(record.step for record in records if not record.optimizer_stepped)
    before = [step for step in range(2, broken, 2)][-2:]
    directory = RunDirectory.open(result.path)
    assert directory.read_events("captures_kept")[0]["captures"] == before
    kept = directory.captures_path / KEPT
    assert [step_of(path) for path in list_captures(kept)][:2] == before
    assert [step_of(path) for path in list_captures(directory.captures_path)][-1] > broken
    with opened(result.path) as scene:
        start = next(start for start in scene.starts(broken) if start.path and start.path.parent == kept)
        replayed = [each.digest for each in scene.replay(scene.state(start), broken - 1)]
        assert replayed == [scene.records[step].digest for step in range(start.step + 1, broken)]


def test_a_resume_removes_the_snapshots_of_steps_that_run_again(make_recipe, tmp_path, monkeypatch):
    import shutil

    steps = []
    listener = Slowly(monkeypatch)
    listener.on_step = lambda record: steps.append(record.step)
    broken = trained(
        make_recipe,
        tmp_path / "run",
        capture={"every": 2, "keep": 10},
        listener=listener,
        interrupted=lambda: len(steps) >= 8,
    )
    shutil.rmtree(broken.last_checkpoint)  # as after a power cut: step 5 is the newest
    before = [step_of(path) for path in list_captures(broken.path / "captures")]
    assert before[-1] >= 8
    seen = []

    class Look(jinmaek.RunListener):
        def on_step(self, record):
            if not seen:
                seen.extend(step_of(path) for path in list_captures(broken.path / "captures"))

    jinmaek.resume(broken.path, listener=Look())
    assert [step for step in seen if step > 7] == [], "told one step late"
    assert seen[:2] == [2, 4]
    whole = trained(make_recipe, tmp_path / "whole", capture={"every": 0})
    assert facts(broken.path) == facts(whole.path)
    with opened(broken.path) as scene:
        for start in scene.starts(12):
            replayed = [each.digest for each in scene.replay(scene.state(start), 12)]
            assert replayed == [scene.records[step].digest for step in range(start.step + 1, 13)]


@pytest.mark.parametrize("name", ["adamw_8bit", "paged_adamw_8bit"])
def test_an_unsound_optimizer_stops_a_run_before_its_first_step(make_recipe, tmp_path, name):
    phases = []
    listener = SimpleNamespace(on_phase=phases.append)
    with broken_second_moments(), pytest.raises(ModelError, match="does not do what AdamW does"):
        trained(make_recipe, tmp_path / "run", capture={}, listener=listener, optim={"name": name})
    assert phases == [], "before data and model are loaded"
    assert not (tmp_path / "run").exists()
    assert trained(make_recipe, tmp_path / "run", capture={}, optim={"name": name}).end == "completed"


def test_a_run_can_also_not_go_on_with_an_unsound_optimizer(make_recipe, tmp_path):
    run = trained(make_recipe, tmp_path / "run", capture={}, optim={"name": "adamw_8bit"}, interrupted=lambda: True)
    with broken_second_moments(), pytest.raises(ModelError, match="does not do what AdamW does"):
        jinmaek.resume(run.path)


def test_a_run_without_steps_has_no_scene(make_recipe, tmp_path):
    run = trained(make_recipe, tmp_path / "run", capture={})
    (run.path / "steps.jsonl").unlink()
    with pytest.raises(RunError, match="holds no recorded step yet"), opened(run.path):
        pass


def test_a_snapshot_holds_the_state_after_its_step(make_session, tmp_path):
    session = make_session()
    for step in (1, 2):
        run_step(session.training, step, session.plan.batches(step))
    write_capture(tmp_path / f"step-00000002{ENDING}", StateCopy(state_of(session.training, 2)))
    state = read_capture(tmp_path / f"step-00000002{ENDING}")
    assert state["step"] == 2
    assert all(torch.equal(state["weights"][name], weight) for name, weight in session.training.params.items())
    assert [path.name for path in tmp_path.iterdir()] == [f"step-00000002{ENDING}"]
