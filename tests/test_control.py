"""The untouched replay of small real runs, and what is made of one that is not the record."""

import json
import math
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import jinmaek
from conftest import make_pairs, write_jsonl
from jinmaek.core.verdict import Verdict
from jinmaek.explain import tell
from jinmaek.replay import control
from jinmaek.replay.control import run_control
from jinmaek.replay.scene import opened
from jinmaek.store import RunDirectory, read_steps
from jinmaek.training.batches import IGNORED, BatchPlan
from jinmaek.training.model import choose_device, load_base, load_tokenizer
from jinmaek.training.session import load_session_data
from partings import Probe

ROOT = Path(__file__).parents[1]
if str(ROOT) not in sys.path:  # bench is no installed package
    sys.path.insert(0, str(ROOT))
from bench.faults import injections  # noqa: E402

CAPTURED = {"capture": {"every": 4}}
NO_CAPTURES = {"capture": {"every": 0}}


@pytest.fixture
def train(make_recipe, tmp_path):
    """Train the small recipe with changes, and return the run's directory."""

    def run(listener=None, interrupted=lambda: False, base=None, **sections):
        recipe = make_recipe(**sections)
        path = tmp_path / "run"
        return jinmaek.train(recipe, run_dir=path, listener=listener, interrupted=interrupted, base=base).path

    return run


class StopsAfter(jinmaek.RunListener):
    def __init__(self, step):
        self.step, self.last = step, 0

    def on_step(self, record):
        self.last = record.step

    def interrupted(self):
        return self.last >= self.step


@pytest.fixture
def resumed(train):
    """A run that was stopped at step 6, changed, and resumed."""

    def run(change, more=None, **sections):
        more = more or {}
        probe = StopsAfter(6)
        # A checkpoint waits for its step's record, so the run stops right there.
        path = train(probe, probe.interrupted, train={"checkpoint_every": 6} | more, **sections)
        assert [record.step for record in read_steps(path / "steps.jsonl")][-1] == 6
        change(path)
        jinmaek.resume(path)
        return path

    return run


def tamper(run, step, **changes):
    """Change the record of one step."""
    steps = run / "steps.jsonl"
    rows = [json.loads(line) for line in steps.read_text("utf-8").splitlines()]
    rows = [row | changes if row["step"] == step else row for row in rows]
    steps.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def confirmed(verdict):
    return [cause.id for cause in verdict.confirmed()]


def told(verdict):
    """What is said in English; nothing may be missing in either language."""
    texts = {lang: repr(tell(verdict, lang)) for lang in ("en", "ko")}
    assert re.search("[가-힣]", texts["ko"])
    json.dumps(verdict.as_dict(), allow_nan=False)
    return texts["en"]


def exact(verdict, start_step, step):
    """The step was reached to the bit, and it is healthy."""
    assert verdict.control.reproduced == "bit_exact"
    assert (verdict.control.start_step, verdict.control.num_steps) == (start_step, step - start_step)
    assert verdict.control.first_departure is None
    assert (verdict.outcome, verdict.symptom, verdict.causes) == ("REFUTED", "none", ())
    return True


DROPOUT = {"adapter": {"dropout": 0.1}}


@pytest.mark.parametrize("step", [1, 2, 8, 12])
def test_a_healthy_step_is_reached_to_the_bit_from_the_beginning(train, step):
    verdict = jinmaek.prove(train(**DROPOUT, **CAPTURED), step=step)
    assert isinstance(verdict, Verdict)
    assert exact(verdict, 0, step)
    assert [trial.arm for trial in verdict.trials] == ["control"]
    assert verdict.trials[0].loss == verdict.recorded["loss"]
    assert verdict.differences == ()
    assert "to the bit" in told(verdict)


@pytest.mark.parametrize("sections", [CAPTURED, NO_CAPTURES], ids=["snapshot", "checkpoint"])
def test_a_late_step_is_reached_from_the_newest_state_that_is_near(train, monkeypatch, sections):
    monkeypatch.setattr(control, "MOST_HISTORY", 3)
    run = train(**DROPOUT, **sections)
    kind, start_step = ("capture", 8) if sections is CAPTURED else ("checkpoint", 5)
    with opened(run) as scene:
        for step in (start_step + 1, start_step + 3):
            found = run_control(scene, step)
            assert (found.start.kind, found.start.step) == (kind, start_step)
            assert (found.control.reproduced, found.control.num_steps) == ("bit_exact", step - start_step)
            assert found.reading.digest == scene.records[step].digest
            assert int(found.before["step"]) == step - 1


def test_a_history_may_take_only_so_long(train, monkeypatch):
    monkeypatch.setattr(control, "HISTORY_SECONDS", 0.0)
    run = train(**CAPTURED)
    assert exact(jinmaek.prove(run, step=10), 8, 10)
    shutil.rmtree(run / "captures")
    shutil.rmtree(run / "checkpoints")
    assert exact(jinmaek.prove(run, step=10), 0, 10), "where there is no newer state, it takes what it takes"


@pytest.mark.parametrize("step", [7, 9])
def test_a_record_that_no_replay_gives_is_not_reproduced_from_that_step_on(train, step):
    run = train(**NO_CAPTURES)
    tamper(run, 7, digest="0" * 16)
    verdict = jinmaek.prove(run, step=step)
    assert verdict.outcome == "NOT_REPRODUCED"
    assert (verdict.control.reproduced, verdict.control.first_departure, verdict.control.repeats) == ("no", 7, True)
    assert verdict.control.num_steps == 7
    assert [(cause.id, cause.status) for cause in verdict.causes] == [("transient", "undecided")]
    assert [trial.arm for trial in verdict.trials] == ["control"]
    assert "7" in told(verdict)


def test_a_newer_snapshot_carries_on_where_the_record_left_the_replay(train):
    run = train(**CAPTURED)
    tamper(run, 7, digest="0" * 16)
    verdict = jinmaek.prove(run, step=10)
    assert (verdict.control.reproduced, verdict.control.start_step) == ("bit_exact", 8)
    assert (verdict.outcome, confirmed(verdict)) == ("REFUTED", [])


def test_another_torch_is_named_where_the_record_is_not_reproduced(train):
    run = train(**NO_CAPTURES)
    manifest = json.loads((run / "run.json").read_text("utf-8"))
    manifest["versions"]["torch"] = "2.5.1"
    (run / "run.json").write_text(json.dumps(manifest), "utf-8")
    assert [(each.name, each.recorded, each.now) for each in jinmaek.prove(run, step=7).differences] == [
        ("torch", "2.5.1", torch.__version__)
    ]
    tamper(run, 7, digest="0" * 16)
    verdict = jinmaek.prove(run, step=7)
    assert verdict.outcome == "NOT_REPRODUCED"
    (cause,) = verdict.causes
    assert (cause.id, cause.status, cause.facts) == ("environment", "undecided", {"names": ["torch"]})
    assert "2.5.1" in told(verdict)


def test_weights_changed_between_steps_are_an_outside_change(train):
    verdict = jinmaek.prove(train(Probe(change_after=5), **NO_CAPTURES), step=9)
    assert (verdict.outcome, confirmed(verdict)) == ("CONFIRMED", ["outside_change"])
    facts = verdict.causes[0].facts
    # The record of step 5 is told while step 6 runs.
    assert (facts["step"], facts["tensor"]) == (verdict.control.first_departure, "query_key_value")
    assert facts["step"] in (6, 7)
    assert facts["before"] != facts["after"]
    told(verdict)


def test_another_initial_adapter_is_another_beginning_and_no_outside_change(train):
    run = train(**NO_CAPTURES)
    groups = json.loads((run / "steps.jsonl").read_text("utf-8").splitlines()[0])["groups"]
    changed = {name: stats | {"weight_norm": stats["weight_norm"] * 1.5} for name, stats in groups.items()}
    tamper(run, 1, digest="0" * 16, groups=changed)
    verdict = jinmaek.prove(run, step=1)
    assert (verdict.outcome, verdict.control.first_departure) == ("NOT_REPRODUCED", 1)
    assert [(cause.id, cause.status) for cause in verdict.causes] == [("transient", "undecided")]


# bitsandbytes' 8-bit moments too: what is read back from a checkpoint is what was saved.
@pytest.mark.parametrize("optim", [{}, {"name": "adamw_8bit"}], ids=["adamw", "8-bit"])
def test_a_resumed_run_is_reproduced_across_the_resume(resumed, optim):
    run = resumed(lambda path: None, optim=optim, adapter={"rank": 64}, **CAPTURED)
    assert RunDirectory.open(run).read_events("resumed") == [{"event": "resumed", "step": 6}]
    for step in (6, 7, 12):
        assert exact(jinmaek.prove(run, step=step), 0, step)


def test_an_optimizer_lost_at_the_resume_is_found(resumed):
    run = resumed(lambda path: injections.lose_at_resume(path, "optimizer"), **NO_CAPTURES)
    verdict = jinmaek.prove(run, step=9)
    assert (verdict.outcome, confirmed(verdict)) == ("CONFIRMED", ["wrong_resume"])
    assert verdict.causes[0].facts == {"resumed_step": 6, "lost": "optimizer"}
    matching = [trial.arm for trial in verdict.trials if trial.outcome == "matches"]
    assert matching == ["lost_optimizer"] == list(verdict.causes[0].trials)
    assert "step 6" in told(verdict)


def test_a_loss_scale_lost_at_the_resume_is_found(resumed):
    scaled = {"precision": "fp16", "loss_scale_init": 1024.0, "loss_scale_growth_steps": 2}
    run = resumed(lambda path: injections.lose_at_resume(path, "loss_scale"), scaled, **CAPTURED)
    verdict = jinmaek.prove(run, step=10)
    assert (verdict.outcome, confirmed(verdict)) == ("CONFIRMED", ["wrong_resume"])
    assert verdict.causes[0].facts == {"resumed_step": 6, "lost": "loss_scale"}
    outcomes = {trial.arm: trial.outcome for trial in verdict.trials if trial.family == "state"}
    assert outcomes == {"lost_optimizer": "differs", "lost_schedule": "differs", "lost_loss_scale": "matches"}


def test_a_departure_after_a_right_resume_is_not_blamed_on_it(resumed):
    run = resumed(lambda path: None, **NO_CAPTURES)
    tamper(run, 7, digest="0" * 16)
    verdict = jinmaek.prove(run, step=8)
    assert (verdict.outcome, confirmed(verdict)) == ("NOT_REPRODUCED", [])
    assert {trial.outcome for trial in verdict.trials if trial.family == "state"} == {"differs"}


def test_what_happens_long_after_a_resume_is_none_of_its_matter(resumed):
    run = resumed(lambda path: None, **NO_CAPTURES)
    tamper(run, 10, digest="0" * 16)
    verdict = jinmaek.prove(run, step=10)
    assert [trial.arm for trial in verdict.trials] == ["control"]
    assert confirmed(verdict) == []


def test_a_step_that_does_not_repeat_itself_is_found(train, make_recipe, monkeypatch):
    # The noise is no function of the step, but the same in every run of this test.
    monkeypatch.setattr(injections.os, "urandom", lambda size: b"\1" * size)
    recipe = make_recipe()
    one, other = (load_base(recipe.model, "fp32", choose_device()) for _ in range(2))
    with injections.unrepeatable(one, "dense_4h_to_h", 1e-2):
        run = train(base=one)
    monkeypatch.setattr(injections.os, "urandom", lambda size: b"\2" * size)
    with injections.unrepeatable(other, "dense_4h_to_h", 1e-2):
        verdict = jinmaek.prove(run, step=5, base=other)
    assert (verdict.control.reproduced, verdict.control.repeats) == ("within_spread", False)
    assert 0 < verdict.control.spread < 0.1
    assert (verdict.outcome, confirmed(verdict)) == ("REFUTED", ["not_deterministic"])
    facts = verdict.causes[0].facts
    assert (facts["num_repeats"], facts["num_failing"], facts["spread"]) == (3, 0, verdict.control.spread)
    told(verdict)
    clean = load_base(recipe.model, "fp32", choose_device())
    verdict = jinmaek.prove(run, step=5, base=clean)
    assert (verdict.control.reproduced, verdict.control.repeats) == ("no", True)
    assert (verdict.outcome, confirmed(verdict)) == ("NOT_REPRODUCED", []), "here the device repeats itself"


def test_a_step_without_loss_tokens_is_reproduced_and_healthy(train, monkeypatch):
    batches = BatchPlan.batches

    def emptied(plan, step):
        found = batches(plan, step)
        if step != 4:
            return found
        return [replace(each, targets=torch.full_like(each.targets, IGNORED), num_loss_tokens=0) for each in found]

    monkeypatch.setattr(BatchPlan, "batches", emptied)
    run = train()
    record = read_steps(run / "steps.jsonl")[3]
    assert (record.loss, record.optimizer_stepped, record.num_loss_tokens) == (None, False, 0)
    verdict = jinmaek.prove(run, step=4)
    assert exact(verdict, 0, 4)
    assert verdict.trials[0].loss is None
    told(verdict)
    assert exact(jinmaek.prove(run, step=5), 0, 5)


def test_a_step_beyond_the_record_cannot_be_proved(train):
    run = train()
    with pytest.raises(jinmaek.RunError, match="Step 13 is not in the record, which goes from 1 to 12"):
        jinmaek.prove(run, step=13)
    with pytest.raises(jinmaek.RunError, match="Nothing in the record failed"):
        jinmaek.prove(run)
    assert not list((run / "captures").glob("verdict-*"))


def test_a_run_that_was_killed_before_its_first_step_has_nothing_to_prove(train):
    run = train()
    (run / "steps.jsonl").write_text("", "utf-8")
    for step in (None, 1):
        with pytest.raises(jinmaek.RunError, match="no recorded step"):
            jinmaek.prove(run, step=step)
    (run / "steps.jsonl").unlink()
    with pytest.raises(jinmaek.RunError, match="no recorded step"):
        jinmaek.prove(run)


def test_a_run_whose_data_is_gone_says_so(train, tmp_path):
    data = write_jsonl(tmp_path / "gone.jsonl", make_pairs(60))
    run = train(data={"source": str(data)})
    data.unlink()
    with pytest.raises(jinmaek.DataError, match=re.escape(str(data))):
        jinmaek.prove(run, step=3)


def test_a_snapshot_that_cannot_be_read_says_so(train, monkeypatch):
    monkeypatch.setattr(control, "MOST_HISTORY", 3)
    run = train(**CAPTURED)
    (snapshot,) = (run / "captures").glob("step-00000008.*")
    snapshot.write_bytes(b"no snapshot")
    with pytest.raises(jinmaek.RunError, match=re.escape(snapshot.name)):
        jinmaek.prove(run, step=10)


SIGN = "★"  # its first byte is in no other text here


@pytest.mark.parametrize("batch_size", [1, 4, 12])
def test_the_one_example_that_fails_is_named_whatever_the_size_of_the_batch(train, make_recipe, tmp_path, batch_size):
    """Alone in its step it is held against other steps; among many it is found by halves."""
    data = {"source": str(write_jsonl(tmp_path / "usual.jsonl", make_pairs(60))), "held_out": 0}
    sections = {"train": {"batch_size": batch_size}, "optim": {"schedule": "constant"}}
    recipe = make_recipe(data=data, **sections)
    ((chosen, *_),) = load_session_data(recipe)[2].microbatches(3)
    pairs = make_pairs(60)
    pairs[int(chosen.id)]["answer"] += SIGN
    write_jsonl(tmp_path / "usual.jsonl", pairs)
    base = load_base(recipe.model, "fp32", choose_device())
    token = load_tokenizer(recipe.model)(SIGN)["input_ids"][0]
    base.get_input_embeddings().weight.data[token] = math.nan
    run = train(base=base, data=data, **sections)
    again = load_base(recipe.model, "fp32", choose_device())
    again.get_input_embeddings().weight.data[token] = math.nan
    verdict = jinmaek.prove(run, base=again)
    assert (verdict.step, verdict.symptom, verdict.outcome) == (3, "loss_not_finite", "CONFIRMED")
    assert set(confirmed(verdict)) == {"bad_weight", "example"}
    example = next(cause for cause in verdict.causes if cause.id == "example")
    assert example.facts["example"] == chosen.id
    assert (example.facts["necessary"], example.facts["sufficient"]) == (True, True)
    parts = [str(trial.facts) for trial in verdict.trials if trial.arm.startswith("only_example")]
    assert len(set(parts)) == len(parts), "no part is run twice"
    assert (verdict.location.example_id, verdict.location.weight) == (chosen.id, "gpt_neox.embed_in.weight")
    told(verdict)
