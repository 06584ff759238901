"""Two runs held against each other, where one is not what it was, begins late, or cannot be replayed."""

import gc
import json
import re
import shutil
import weakref

import pytest

import jinmaek
from conftest import make_pairs, write_jsonl
from jinmaek.replay import against_explain, against_runs, scene
from jinmaek.replay.against import prove_against
from jinmaek.training.session import load_session_data
from jinmaek.training.state import StateCopy, state_of
from partings import STEPS, Probe, check_told, outcomes, trainer, where


@pytest.fixture
def train(make_recipe, tmp_path):
    """Train the small recipe with changes, and return the run's directory."""
    return trainer(make_recipe, tmp_path)


def one_row_later(make_recipe, tmp_path, at_least):
    """A data file like the usual one but for a row that is first seen at or after a step; the file and the step."""
    usual = {"held_out": 0, "source": str(write_jsonl(tmp_path / "usual.jsonl", make_pairs(60)))}
    plan = load_session_data(make_recipe(data=usual))[2]
    ((example, *_),) = plan.microbatches(at_least)
    pairs = make_pairs(60)
    pairs[int(example.id)]["answer"] += " 끝."
    return usual, usual | {"source": str(write_jsonl(tmp_path / "edited.jsonl", pairs))}


def test_one_edited_row_parts_where_it_is_read(train, make_recipe, tmp_path):
    usual, edited = one_row_later(make_recipe, tmp_path, 5)
    parting = prove_against(train("bad", data=edited), train("good", data=usual))
    assert parting.outcome == "EXPLAINED"
    assert parting.first_step == 5
    assert where(parting)[:2] == (5, "input")
    assert [replay.start_step for replay in parting.replays] == [3, 3]
    assert outcomes(parting) == {"data.source": "explains"}
    assert parting.explained_by[0].start_step == 0


def test_a_late_parting_is_tried_from_the_runs_own_state(train, make_recipe, tmp_path, monkeypatch):
    usual, edited = one_row_later(make_recipe, tmp_path, 6)
    for module in (against_runs, against_explain):
        monkeypatch.setattr(module, "MOST_STEPS", 4)
    bad = train("bad", data=edited, optim={"schedule": "constant"})
    good = train("good", data=usual, optim={"schedule": "constant"}, train={"max_steps": 7}, adapter={"alpha": 32.0})
    parting = prove_against(bad, good)
    assert parting.first_step == 6
    assert outcomes(parting) == {"data.source": "explains", "train.max_steps": "does_not"}
    assert {each.start_step for each in parting.explained_by} == {3}
    monkeypatch.setattr(against_runs, "MOST_STEPS", 2)
    parting = prove_against(bad, good)
    assert parting.outcome == "PARTED"
    assert {replay.reason for replay in parting.replays} == {"too_far"}
    assert {each.reason for each in parting.explained_by} == {"not_replayed"}
    check_told(parting)


def test_a_state_carried_over_takes_lr_and_decay_from_the_changed_recipe(train, make_session):
    """What the recipe says goes before what the snapshot kept."""
    run = train("run")
    with scene.opened(run) as kept:
        state = kept.state(kept.starts(5)[-1])
    session = make_session(train={"max_steps": STEPS}, optim={"lr": 4e-3, "weight_decay": 0.5})
    with scene.opened(run) as changed:
        changed.session = session
        changed.fresh = StateCopy(state_of(session.training, 0)).wait()
        carried = against_explain._carried(changed, state)
    (group,) = carried["optimizer"]["param_groups"]
    assert (group["lr"], group["weight_decay"]) == (4e-3 * 0.5, 0.5)
    assert carried["schedule"]["base_lrs"] == [4e-3]
    assert state["optimizer"]["param_groups"][0]["lr"] == 1e-3 * 0.5
    with scene.opened(run) as changed:
        changed.session = make_session(adapter={"rank": 8})
        assert against_explain._carried(changed, state) is None


@pytest.mark.parametrize("changed", ["bad", "good"])
def test_a_weight_changed_from_outside_is_said_of_the_run_it_was_changed_in(train, changed):
    """Nothing differs in the manifests: one of the runs is not what its own recipe makes."""
    probe = {changed: Probe(change_after=3)}
    parting = prove_against(train("bad", probe.get("bad")), train("good", probe.get("good")))
    assert parting.outcome == "NOT_REPRODUCED"
    assert parting.differences == ()
    assert parting.place is None
    departed = {replay.side: replay for replay in parting.replays}["run" if changed == "bad" else "against"]
    (other,) = [replay for replay in parting.replays if replay is not departed]
    assert other.reproduced == "bit_exact"
    assert departed.reproduced == "no"
    assert departed.path.endswith(changed)
    assert departed.first_departure == parting.first_step == 4
    assert departed.repeats is True
    assert departed.changed_groups == ("query_key_value",)
    assert departed.environment == ()
    check_told(parting)


def test_data_that_changed_after_one_of_the_runs_is_named(train, tmp_path):
    data = {"source": str(write_jsonl(tmp_path / "pairs.jsonl", make_pairs(60)))}
    bad = train("bad", data=data)
    write_jsonl(tmp_path / "pairs.jsonl", make_pairs(60, seed=1))
    parting = prove_against(bad, train("good", data=data))
    assert parting.outcome == "NOT_REPRODUCED"
    assert [replay.reproduced for replay in parting.replays] == ["no", "bit_exact"]
    assert parting.replays[0].first_departure == 1
    assert "data" in {difference.name for difference in parting.replays[0].environment}
    assert [(each.name, each.reason) for each in parting.explained_by] == [("data", "content")]
    check_told(parting)


def test_data_that_is_gone_leaves_the_runs_unreplayed(train, tmp_path):
    data = {"source": str(write_jsonl(tmp_path / "pairs.jsonl", make_pairs(60)))}
    bad, good = train("bad", data=data, optim={"lr": 2e-3}), train("good")
    (tmp_path / "pairs.jsonl").unlink()
    parting = prove_against(bad, good)
    assert parting.outcome == "PARTED"
    assert parting.place is None
    assert [(replay.reproduced, replay.reason) for replay in parting.replays] == [
        ("not_run", "cannot_load"),
        ("bit_exact", None),
    ]
    assert "pairs.jsonl" in parting.replays[0].said["ko"]
    assert set(outcomes(parting).values()) == {"not_tested"}
    check_told(parting)


def test_versions_that_differ_are_named_and_not_tried(train):
    bad, good = train("bad", optim={"lr": 2e-3}), train("good")
    manifest = json.loads((bad / "run.json").read_text("utf-8"))
    manifest["settings"]["optim"]["lr"] = 1e-3
    manifest["versions"]["torch"] = "2.5.1"
    manifest["device"]["num_threads"] = 64
    (bad / "run.json").write_text(json.dumps(manifest), "utf-8")
    parting = prove_against(bad, good)
    assert parting.outcome == "PARTED"
    assert where(parting) == (1, "lr", "lr")
    assert {(each.name, each.outcome, each.reason) for each in parting.explained_by} == {
        ("torch", "not_tested", "not_here"),
        ("device.num_threads", "not_tested", "not_here"),
    }
    assert "torch, device.num_threads" in check_told(parting)["en"]


def test_two_models_never_lie_in_memory_together(train, monkeypatch):
    models = []

    def watched(*given):
        gc.collect()
        assert all(model() is None for model in models)
        session = make_session(*given)
        models.append(weakref.ref(session.training.model))
        return session

    make_session = scene.make_session
    bad, good = train("bad", optim={"lr": 2e-3, "weight_decay": 0.1}), train("good")
    gc.collect()
    for module in (scene, against_explain):
        monkeypatch.setattr(module, "make_session", watched)
    assert prove_against(bad, good).outcome == "EXPLAINED"
    assert len(models) == 3 + 3, "two replays, one more to compare; two settings, and both"


def test_records_without_digests_are_compared_by_loss_and_gradient(train):
    runs = train("bad", optim={"lr": 2e-3}), train("good")
    for run in runs:
        steps = run / "steps.jsonl"
        steps.write_text(re.sub('"digest":"[0-9a-f]*"', '"digest":null', steps.read_text("utf-8")), "utf-8")
    parting = prove_against(*runs)
    assert (parting.outcome, parting.first_step) == ("EXPLAINED", 2)
    assert where(parting) == (1, "lr", "lr")


def test_what_cannot_be_held_against_each_other(train, tmp_path):
    run = train("run")
    with pytest.raises(jinmaek.RunError, match="against itself"):
        prove_against(run, run)
    with pytest.raises(jinmaek.RunError, match="no run directory"):
        prove_against(run, tmp_path / "nothing")
    shutil.copytree(run, tmp_path / "other")
    (tmp_path / "other" / "steps.jsonl").unlink()
    with pytest.raises(jinmaek.RunError, match="no recorded step in common"):
        prove_against(run, tmp_path / "other")
