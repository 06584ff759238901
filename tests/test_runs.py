"""Whole runs: what they leave on disk, that they repeat to the bit, and how they end when they must stop."""

import json
import math
import shutil

import pytest
import torch

import jinmaek
from jinmaek.store import RunDirectory, read_steps
from jinmaek.training.checkpoint import list_checkpoints, write_whole


class Probe(jinmaek.RunListener):
    """Keeps the session, poisons the model at chosen steps, and stops the run when told to."""

    def __init__(self, stop_after=None, poison_from=None):
        self.stop_after = stop_after
        self.poison_from = poison_from
        self.steps = 0

    def on_ready(self, session, path):
        self.session = session

    def on_step(self, record):
        self.steps = record.step
        if self.poison_from is not None and record.step == self.poison_from - 1:
            self.session.training.model.get_output_embeddings().weight.data[0, 0] = math.nan

    def interrupted(self):
        # The record of a step is told one step later: stop_after counts what was told.
        return self.stop_after is not None and self.steps >= self.stop_after


def trained(recipe, path, probe=None):
    probe = probe or Probe()
    return jinmaek.train(recipe, run_dir=path, listener=probe, interrupted=probe.interrupted)


def facts(run):
    """Everything of a run's records but the clock."""
    return [
        {name: getattr(record, name) for name in record.__dataclass_fields__ if name != "seconds"}
        for record in read_steps(run / "steps.jsonl")
    ]


def adapter_bytes(folder):
    return (folder / "adapter_model.safetensors").read_bytes()


DROPOUT = {"adapter": {"dropout": 0.1}}


def test_a_run_leaves_adapter_truth_and_sentence(make_recipe, tmp_path):
    result = trained(make_recipe(samples={"questions": ["하늘 이야기"], "max_new_tokens": 5}), tmp_path / "run")
    assert result.end == "completed"
    assert result.held_out_after < result.held_out_before
    assert result.num_updates == result.num_steps == 12
    records = read_steps(result.path / "steps.jsonl")
    assert [record.step for record in records] == list(range(1, 13))
    assert all(record.optimizer_stepped and record.digest for record in records)
    manifest = json.loads((result.path / "run.json").read_text("utf-8"))
    assert set(manifest["fingerprints"]) == {"data", "order", "initial_adapter", "base"}
    assert manifest["versions"]["torch"] == torch.__version__
    assert manifest["settings"]["optim"]["lr"] == 1e-3
    assert [path.name for path in list_checkpoints(result.path / "checkpoints")] == [
        "step-00000005",
        "step-00000010",
        "step-00000012",
    ]
    assert result.samples[0][0] == "하늘 이야기"
    assert None not in result.samples[0]
    for lang in ("en", "ko"):
        assert f"{result.held_out_after:.3f}" in result.sentence(lang)


def test_two_runs_are_identical_to_the_bit(make_recipe, tmp_path):
    one, two = (trained(make_recipe(**DROPOUT), tmp_path / name) for name in ("one", "two"))
    assert facts(one.path) == facts(two.path)
    assert adapter_bytes(one.adapter) == adapter_bytes(two.adapter)
    assert one.held_out_after == two.held_out_after


def test_another_seed_is_another_run(make_recipe, tmp_path):
    one = trained(make_recipe(), tmp_path / "one")
    two = trained(make_recipe(train={"seed": 7}), tmp_path / "two")
    assert [row["digest"] for row in facts(one.path)] != [row["digest"] for row in facts(two.path)]


# bitsandbytes keeps tensors of fewer than 4096 elements in 32 bits: rank 64 makes them large enough for 8.
LARGE = {"rank": 64, "dropout": 0.1}
CASES = {
    "fp32 adamw": DROPOUT,
    "fp16 paged 8-bit, packed": {
        "model": {"quantization": "nf4"},
        "data": {"packing": True, "max_length": 96},
        "train": {"precision": "fp16", "batch_size": None, "batch_tokens": 128, "loss_scale_init": 2.0**20},
        "adapter": LARGE,
        "optim": {"name": "paged_adamw_8bit"},
    },
    "bf16 8-bit, cosine, accumulation": {
        "train": {"precision": "bf16", "batch_size": 2, "accumulation": 2},
        "adapter": LARGE,
        "optim": {"name": "adamw_8bit", "schedule": "cosine", "warmup_steps": 3},
    },
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("stop_after", [1, 6])
def test_a_resumed_run_equals_an_unbroken_one(make_recipe, tmp_path, case, stop_after):
    recipe = make_recipe(**CASES[case])
    whole = trained(recipe, tmp_path / "whole")
    probe = Probe(stop_after=stop_after)
    first = trained(recipe, tmp_path / "broken", probe)
    states = [state for kept in probe.session.training.optimizer.state.values() for state in kept.values()]
    in_8_bits = any(torch.is_tensor(state) and state.dtype == torch.uint8 for state in states)
    assert in_8_bits == ("8-bit" in case)
    assert first.end == "interrupted"
    assert first.adapter is None
    assert stop_after <= first.num_steps < 12
    assert "--resume" in first.sentence("en")
    second = jinmaek.resume(tmp_path / "broken")
    assert second.end == "completed"
    assert facts(second.path) == facts(whole.path)
    assert adapter_bytes(second.adapter) == adapter_bytes(whole.adapter)
    assert second.held_out_before == whole.held_out_before
    assert second.held_out_after == whole.held_out_after


def test_steps_after_the_last_checkpoint_are_run_again(make_recipe, tmp_path):
    """As after a power cut: the newest checkpoint is gone, the records go on behind it."""
    whole = trained(make_recipe(), tmp_path / "whole")
    broken = trained(make_recipe(), tmp_path / "broken", Probe(stop_after=8))
    shutil.rmtree(broken.last_checkpoint)
    jinmaek.resume(broken.path)
    assert facts(broken.path) == facts(whole.path)
    lines = (broken.path / "steps.jsonl").read_text("utf-8").splitlines()
    assert len(lines) > 12, "the file is append-only: what was run twice stands there twice"


def test_a_complete_run_is_not_resumed(make_recipe, tmp_path):
    result = trained(make_recipe(), tmp_path / "run")
    with pytest.raises(jinmaek.RunError, match="complete"):
        jinmaek.resume(result.path)


def test_two_processes_do_not_train_one_run(make_recipe, tmp_path):
    result = trained(make_recipe(), tmp_path / "run", Probe(stop_after=3))
    before = (result.path / "steps.jsonl").read_bytes()
    run = RunDirectory(result.path)
    with run.locked():
        assert run.is_busy()
        with pytest.raises(jinmaek.RunError, match="Another process"):
            jinmaek.resume(result.path)
    assert not run.is_busy()
    assert (result.path / "steps.jsonl").read_bytes() == before
    assert jinmaek.resume(result.path).end == "completed"


def test_changed_data_stops_a_resume(make_recipe, pairs_file, tmp_path):
    data = tmp_path / "pairs.jsonl"
    shutil.copy(pairs_file, data)
    recipe = make_recipe(data={"source": str(data)})
    broken = trained(recipe, tmp_path / "run", Probe(stop_after=3))
    data.write_text(data.read_text("utf-8").replace("하늘", "바다"), "utf-8")
    with pytest.raises(jinmaek.RunError, match="data is not what this run began with"):
        jinmaek.resume(broken.path)


def test_a_second_run_does_not_overwrite_the_first(make_recipe, tmp_path):
    trained(make_recipe(), tmp_path / "run", Probe(stop_after=1))
    with pytest.raises(jinmaek.RunError, match="already holds a run"):
        trained(make_recipe(), tmp_path / "run")


def test_a_run_that_stopped_learning_ends_after_ten_steps(make_recipe, tmp_path):
    recipe = make_recipe(train={"max_steps": 100})
    result = trained(recipe, tmp_path / "run", Probe(poison_from=7))
    records = read_steps(result.path / "steps.jsonl")
    healthy = [record.step for record in records if record.optimizer_stepped]
    assert result.end == "skipped_steps"
    assert (result.streak.count, result.streak.cause) == (10, "loss")
    assert result.streak.first_step == healthy[-1] + 1
    assert result.num_steps == healthy[-1] + 10
    assert result.adapter is None
    assert not (result.path / "adapter").exists()
    assert {record.lr for record in records if not record.optimizer_stepped} == {records[-1].lr}
    assert str(result.last_checkpoint) in result.sentence("en")
    assert "NaN" in result.sentence("ko")
    skipped = RunDirectory.open(result.path).read_events("skipped_step")
    assert [event["step"] for event in skipped] == list(range(result.streak.first_step, result.num_steps + 1))
    assert {event["loss"] for event in skipped} == {"NaN"}


def test_the_number_of_skipped_steps_is_a_setting(make_recipe, tmp_path):
    recipe = make_recipe(train={"max_steps": 100, "max_skipped_steps": 3})
    result = trained(recipe, tmp_path / "run", Probe(poison_from=2))
    assert result.streak.count == 3


def test_a_run_without_a_single_update_writes_no_adapter(make_recipe, tmp_path):
    recipe = make_recipe(train={"max_steps": 3, "precision": "fp16", "loss_scale_init": 2.0**60})
    result = trained(recipe, tmp_path / "run")
    assert result.end == "no_updates"
    assert result.adapter is None
    assert "nothing was learnt" in result.sentence("en")


class SpoilWeights(jinmaek.RunListener):
    """Puts a NaN into the adapter behind everybody's back."""

    def on_ready(self, session, path):
        self.session = session

    def on_step(self, record):
        if record.step == 3:
            next(iter(self.session.training.params.values())).data[0, 0] = math.nan


def test_a_non_finite_adapter_is_never_written(make_recipe, tmp_path):
    recipe = make_recipe(train={"max_steps": 5, "max_skipped_steps": 50})
    with pytest.raises(jinmaek.ModelError, match="not finite"):
        jinmaek.train(recipe, run_dir=tmp_path / "run", listener=SpoilWeights())
    assert list((tmp_path / "run").rglob("adapter_model.safetensors")) == []
    assert len(read_steps(tmp_path / "run" / "steps.jsonl")) == 5


def test_too_small_a_disk_is_told_before_the_first_step(make_recipe, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(jinmaek.StorageError, match="Not enough room"):
        trained(make_recipe(), tmp_path / "run")


def test_a_disk_that_fills_up_loses_nothing_that_was_written(make_recipe, tmp_path, monkeypatch):
    save = torch.save

    def full(state, path, **options):
        if state["step"] >= 10:
            raise RuntimeError("PytorchStreamWriter failed writing file: No space left on device")
        save(state, path, **options)

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(jinmaek.StorageError, match="step-00000005"):
        trained(make_recipe(), tmp_path / "run")
    assert [path.name for path in list_checkpoints(tmp_path / "run" / "checkpoints")] == ["step-00000005"]
    assert len(read_steps(tmp_path / "run" / "steps.jsonl")) == 10
    monkeypatch.setattr(torch, "save", save)
    assert jinmaek.resume(tmp_path / "run").end == "completed"


def test_a_folder_is_whole_or_absent(tmp_path):
    def half(draft):
        (draft / "one").write_text("1")
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        write_whole(tmp_path / "thing", half)
    assert list(tmp_path.iterdir()) == []


def test_the_adapter_loads_in_plain_peft(make_recipe, model_dir, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    probe = Probe()
    result = trained(make_recipe(), tmp_path / "run", probe)
    base = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    tuned = PeftModel.from_pretrained(base, str(result.adapter)).eval()
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        ours = probe.session.training.model.eval()(input_ids=ids).logits
        assert torch.equal(tuned(input_ids=ids).logits, ours)
    card = (result.adapter / "README.md").read_text("utf-8")
    assert "library_name: peft" in card
    assert str(result.held_out_after) in card


def test_ask_uses_the_adapter(make_recipe, tmp_path):
    recipe = make_recipe(train={"max_steps": 60}, optim={"lr": 1e-2})
    result = trained(recipe, tmp_path / "run")
    said = jinmaek.ask(result.path, "하늘와 바다 이야기를 해 주세요. 1번", base=True, max_new_tokens=8)
    assert said.tuned != said.base


def test_ask_needs_something_to_ask(tmp_path):
    with pytest.raises(jinmaek.RunError, match="no run directory"):
        jinmaek.ask(tmp_path, "누구세요?")
