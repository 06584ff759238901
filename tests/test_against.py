"""Two runs held against each other: where they part, and which difference explains it."""

import gc
import io
import json
import math
import re
import shutil
import weakref
from typing import get_args

import pytest
import torch
from rich.console import Console

import jinmaek
from conftest import make_pairs, write_jsonl
from jinmaek.core.parting import Explanation, ExplanationReason, Parting, Place, PlaceKind, Replay
from jinmaek.core.verdict import Difference
from jinmaek.explain import tell_parting
from jinmaek.replay import against_explain, against_runs, scene
from jinmaek.replay.against import AgainstListener, prove_against
from jinmaek.replay.against_settings import mixed_values, other_content
from jinmaek.replay.against_trace import Entry, bits_of, distance, place_at
from jinmaek.report import parting_json, print_parting
from jinmaek.training.session import load_session_data
from jinmaek.training.state import StateCopy, state_of

STEPS = 6


class Probe(jinmaek.RunListener):
    """Moves one adapter weight behind everybody's back, once the record of a step is told."""

    def __init__(self, change_after=None):
        self.change_after = change_after

    def on_ready(self, session, path):
        self.session = session

    def on_step(self, record):
        if record.step == self.change_after:
            with torch.no_grad():
                next(iter(self.session.training.params.values())).view(-1)[0] += 0.5


class Notes(AgainstListener):
    """Keeps what it is told."""

    def __init__(self):
        self.phases, self.steps, self.explanations = [], [], []

    def on_phase(self, phase):
        self.phases.append(phase)

    def on_step(self, step):
        self.steps.append(step)

    def on_explanation(self, explanation):
        self.explanations.append(explanation)


@pytest.fixture
def train(make_recipe, tmp_path):
    """Train the small recipe with changes, and return the run's directory."""

    def run(name, probe=None, **sections):
        train = {"max_steps": STEPS, "checkpoint_every": 3} | sections.pop("train", {})
        recipe = make_recipe(train=train, **sections)
        return jinmaek.train(recipe, run_dir=tmp_path / name, listener=probe).path

    return run


def outcomes(parting):
    return {each.name: each.outcome for each in parting.explained_by}


def where(parting):
    return parting.place.step, parting.place.kind, parting.place.name


def check_told(parting):
    """Every way to say it, in both languages, without a hole."""
    shown = {}
    for lang in ("en", "ko"):
        json.dumps(parting_json(parting, lang), allow_nan=False)
        file = io.StringIO()
        print_parting(tell_parting(parting, lang), Console(file=file, width=100))
        shown[lang] = file.getvalue()
        assert "None" not in shown[lang]
        assert "{" not in shown[lang]
    assert not re.search("[가-힣]", shown["en"])
    assert re.search("[가-힣]", shown["ko"])
    return shown


def test_two_runs_of_one_recipe_are_alike(train):
    notes = Notes()
    parting = prove_against(train("one"), train("two"), listener=notes)
    assert (parting.outcome, parting.num_common_steps, parting.first_step) == ("ALIKE", STEPS, None)
    assert parting.differences == ()
    assert parting.place is None
    assert notes.phases == notes.steps == []
    check_told(parting)


def test_another_lr_parts_at_the_first_update(train):
    notes = Notes()
    parting = prove_against(train("bad", optim={"lr": 2e-3}), train("good"), listener=notes)
    assert parting.outcome == "EXPLAINED"
    assert parting.first_step == 2
    assert where(parting) == (1, "lr", "lr")
    assert (parting.place.run_value, parting.place.against_value) == (2e-3, 1e-3)
    assert parting.max_difference == 1e-3
    assert parting.differences == (Difference(name="optim.lr", recorded="0.002", now="0.001"),)
    assert outcomes(parting) == {"optim.lr": "explains"}
    assert [replay.reproduced for replay in parting.replays] == ["bit_exact", "bit_exact"]
    assert notes.phases == ["replaying_against", "replaying_run", "comparing", "explaining"]
    assert notes.steps == [2]
    assert notes.explanations == list(parting.explained_by)
    check_told(parting)


def test_another_length_bends_the_schedule_from_the_second_update_on(train):
    """The founding author's trap: a short trial run is not the beginning of the long one."""
    parting = prove_against(train("bad", train={"max_steps": STEPS + 2}), train("good"))
    assert parting.outcome == "EXPLAINED"
    assert parting.num_common_steps == STEPS
    assert parting.first_step == 3
    assert where(parting) == (2, "lr", "lr")
    assert outcomes(parting) == {"train.max_steps": "explains"}
    check_told(parting)


def test_epochs_for_steps_is_one_difference_in_two_settings(train):
    """Neither can be swapped alone without contradiction, or it is enough to swap one."""
    bad = train("bad", train={"max_steps": None, "epochs": 1, "batch_size": 8})
    parting = prove_against(bad, train("good", train={"batch_size": 8}))
    assert parting.first_step == 3
    assert outcomes(parting) == {"train.max_steps": "explains", "train.epochs": "not_tested"}
    (epochs,) = [each for each in parting.explained_by if each.name == "train.epochs"]
    assert epochs.reason == "recipe"
    assert "max_steps" in epochs.said["en"]
    check_told(parting)


def test_another_seed_reads_other_examples(train):
    parting = prove_against(train("bad", train={"seed": 7}), train("good"))
    assert parting.outcome == "EXPLAINED"
    assert parting.first_step == 1
    assert where(parting) == (1, "input", "input_ids")
    assert outcomes(parting) == {"train.seed": "explains"}
    assert {"data", "order", "initial_adapter"} <= {each.name for each in parting.differences}
    check_told(parting)


def test_dropout_shows_in_the_first_dropout(train):
    parting = prove_against(train("bad", adapter={"dropout": 0.1}), train("good"))
    assert parting.first_step == 1
    step, kind, name = where(parting)
    assert (step, kind) == (1, "forward")
    assert name == "gpt_neox.layers.0.attention.query_key_value.lora_dropout"
    assert parting.place.num_different > 0.8 * parting.place.num_values
    assert parting.max_difference > 0
    assert outcomes(parting) == {"adapter.dropout": "explains"}
    check_told(parting)


def test_of_two_settings_the_one_that_matters_is_named(train):
    bad = train("bad", optim={"weight_decay": 0.1}, data={"max_length": 512}, capture={"every": 2})
    parting = prove_against(bad, train("good"))
    assert parting.outcome == "EXPLAINED"
    assert where(parting)[1] == "update"
    assert where(parting)[2].endswith("lora_A.weight")
    assert outcomes(parting) == {
        "optim.weight_decay": "explains",
        "data.max_length": "does_not",
        "capture.every": "not_tested",
    }
    reasons = {each.name: each.reason for each in parting.explained_by}
    assert reasons["data.max_length"] == "parts"
    assert reasons["capture.every"] == "no_part_of_a_step"
    check_told(parting)


def test_settings_that_only_explain_together(train):
    bad = train(
        "bad", optim={"schedule": "cosine"}, train={"max_steps": STEPS + 2, "log_every": 3}, data={"max_length": 512}
    )
    parting = prove_against(bad, train("good"))
    assert parting.outcome == "EXPLAINED"
    assert where(parting) == (2, "lr", "lr")
    assert outcomes(parting) == {
        "optim.schedule": "does_not",
        "train.max_steps": "does_not",
        "data.max_length": "does_not",
        "train.max_steps + optim.schedule": "explains",
        "train.log_every": "not_tested",
    }
    assert parting.explanations()[0].parts == ("train.max_steps", "optim.schedule")
    assert "train.max_steps + optim.schedule (together)" in check_told(parting)["en"]


def test_other_rows_are_other_inputs(train):
    parting = prove_against(train("bad", data={"limit": 40}), train("good"))
    assert parting.first_step == 1
    assert where(parting) == (1, "input", "input_ids")
    assert outcomes(parting) == {"data.limit": "explains"}
    check_told(parting)


def test_the_same_rows_in_another_order(train, tmp_path):
    pairs = make_pairs(60)
    shuffled = write_jsonl(tmp_path / "shuffled.jsonl", pairs[::-1])
    parting = prove_against(train("bad", data={"source": str(shuffled)}), train("good"))
    assert parting.outcome == "EXPLAINED"
    assert where(parting) == (1, "input", "input_ids")
    assert outcomes(parting) == {"data.source": "explains"}
    check_told(parting)


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


def test_another_shape_and_what_only_one_has(train):
    good = train("good")
    parting = prove_against(train("rank", adapter={"rank": 8}), good)
    assert where(parting) == (1, "forward", "gpt_neox.layers.0.attention.query_key_value.lora_A")
    assert (parting.place.run_shape[-1], parting.place.against_shape[-1]) == (8, 4)
    assert parting.max_difference is None
    assert outcomes(parting) == {"adapter.rank": "explains"}
    check_told(parting)

    parting = prove_against(train("targets", adapter={"targets": ["query_key_value"]}), good)
    assert where(parting) == (1, "forward", "gpt_neox.layers.0.attention.dense.base_layer")
    assert parting.place.only_in == "against"
    assert outcomes(parting) == {"adapter.targets": "explains"}
    assert "Only" in check_told(parting)["en"]


def test_half_precision_shows_in_the_forward_pass_and_a_loss_scale_by_itself(train):
    bf16 = train("bf16", train={"precision": "bf16"})
    parting = prove_against(bf16, train("good"))
    assert where(parting)[:2] == (1, "forward")
    assert outcomes(parting) == {"train.precision": "explains"}
    small = train("small", train={"precision": "fp16", "loss_scale_init": 256.0})
    large = train("large", train={"precision": "fp16", "loss_scale_init": 512.0})
    parting = prove_against(small, large)
    assert parting.first_step == 1
    assert where(parting) == (1, "loss_scale", "loss_scale")
    assert (parting.place.run_value, parting.place.against_value) == (256.0, 512.0)
    assert outcomes(parting) == {"train.loss_scale_init": "explains"}
    # Without fp16 a loss scale means nothing: it is tried only together with it.
    parting = prove_against(bf16, small)
    assert [(each.name, each.outcome, each.reason) for each in parting.explained_by] == [
        ("train.precision", "does_not", "parts"),
        ("train.loss_scale_init", "does_not", "no_effect"),
        ("train.precision + train.loss_scale_init", "explains", None),
    ]
    check_told(parting)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_microbatches_and_recomputed_activations(train, checkpointing):
    """What checkpointing computes again in the backward pass is no other tensor."""
    same = {
        "model": {"activation_checkpointing": checkpointing},
        "train": {"batch_size": 2, "accumulation": 2},
        "adapter": {"dropout": 0.1},
    }
    usual = train("good", **same)
    parting = prove_against(train("bad", **same, data={"loss": "all"}), usual)
    assert where(parting) == (1, "input", "targets")
    assert parting.place.microbatch == 1
    assert parting.place.number == 2
    assert outcomes(parting) == {"data.loss": "explains"}
    assert "microbatch 1" in check_told(parting)["en"]


def test_checkpointing_itself_is_no_difference(train):
    good = train("good", adapter={"dropout": 0.1})
    bad = train("bad", adapter={"dropout": 0.1}, model={"activation_checkpointing": True})
    parting = prove_against(bad, good)
    assert parting.outcome == "ALIKE"
    assert [each.name for each in parting.differences] == ["model.activation_checkpointing"]
    check_told(parting)


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


def settings(**changed):
    """A manifest whose twenty settings ``optim.s0`` … have value 0, but for those changed."""
    values = {f"s{number}": 0 for number in range(20)} | changed
    return {"settings": {"name": "x", "model": {"name": "m"}, "data": {"source": "d"}, "optim": values}}


def trials_of(monkeypatch, num_differing, needed):
    """Trials in which a set of settings explains if it holds all of ``needed``; no recipe is made."""
    against = settings(**{f"s{number}": 1 for number in range(num_differing)})
    trials = against_explain.Trials(None, settings(), against, {}, 1, lambda explanation: None)

    def rebuilt(self, recipe, names):
        explains = {f"optim.{name}" for name in needed} <= set(names)
        return against_explain._result(names, "explains" if explains else "does_not")

    monkeypatch.setattr(against_explain.Trials, "_rebuilt", rebuilt)
    monkeypatch.setattr(against_explain, "recipe_from_dict", dict)
    return trials, trials.explain("lr")


@pytest.mark.parametrize("num_differing", [1, 2, 5, 8, 12, 20])
def test_no_more_is_rebuilt_than_allowed(monkeypatch, num_differing):
    last = f"s{num_differing - 1}"
    for needed in (["s0"], [last], sorted({"s0", last}), ["absent"]):
        trials, found = trials_of(monkeypatch, num_differing, needed)
        assert trials.num_rebuilds <= against_explain.MOST_REBUILDS
        shown = [each for each in found if each.outcome == "explains"]
        assert len(shown) == (needed != ["absent"])
        for each in shown:
            named = set(each.parts or [each.name])
            assert named >= {f"optim.{name}" for name in needed}
            assert num_differing > 5 or len(named) == len(needed), "with few settings there is time to find the fewest"


def test_a_swapped_recipe_leaves_out_what_it_would_refuse():
    def manifest(**sections):
        return {"settings": {"name": "x", "model": {"name": "m"}, "data": {"source": "d"}} | sections}

    run = manifest(train={"precision": "fp16", "loss_scale_init": 128.0, "max_steps": 9, "epochs": None})
    other = manifest(train={"precision": "bf16", "loss_scale_init": 65536.0, "max_steps": None, "epochs": 2.0})
    mixed = mixed_values(run, other, ["train.precision"])
    assert mixed["train"] == {"max_steps": 9}, "bf16 is the default; a loss scale would be ignored"
    assert mixed_values(run, other, ["train.epochs"])["train"].get("epochs") is None
    assert mixed_values(run, other, ["train.max_steps", "train.epochs"])["train"]["epochs"] == 2.0


def test_fingerprints_follow_from_settings_or_do_not():
    assert other_content("data", ["data", "optim.lr"])
    assert not other_content("data", ["data", "data.limit"])
    assert not other_content("order", ["data", "order"])
    assert other_content("base", ["base", "torch"])


def test_every_bit_and_its_place_is_hashed():
    given = torch.randn(3, 1000, generator=torch.Generator().manual_seed(0))
    seen = {bits_of(given)}
    assert bits_of(given.clone()) in seen
    for index in range(0, 3000, 7):
        other = given.clone()
        other.view(-1)[index] *= -1
        other.view(-1)[(index + 4) % 3000] *= -1
        seen.add(bits_of(other))
        seen.add(bits_of(given.roll(index + 1)))
    assert len(seen) == 1 + 2 * len(range(0, 3000, 7))
    assert bits_of(given.T) == bits_of(given.T.contiguous())
    assert bits_of(torch.zeros(0)) == 0
    assert bits_of(torch.tensor(True)) != bits_of(torch.tensor(False))
    large = torch.zeros((1 << 22) + 5, dtype=torch.uint8)
    before = bits_of(large)
    large[-1] = 1
    assert bits_of(large) != before


def test_distance_counts_what_differs_and_knows_nan():
    nan, inf = float("nan"), float("inf")
    assert distance(torch.tensor([1.0, nan, inf]), torch.tensor([1.5, nan, inf])) == (0.5, 1)
    assert distance(torch.tensor([3, 7]), torch.tensor([7, 7])) == (4.0, 1)
    largest, count = distance(torch.tensor([1.0, nan]), torch.tensor([1.0, 2.0]))
    assert (math.isnan(largest), count) == (True, 1)


def test_the_place_is_what_one_run_lacks_where_the_orders_differ():
    def entry(name, bits=0, step=1):
        return Entry(step, "forward", name, 1, (2,), bits, None)

    one, other = [entry("a"), entry("b"), entry("c")], [entry("a"), entry("c")]
    assert (place_at(1, one, other).name, place_at(1, one, other).only_in) == ("b", "run")
    assert (place_at(1, other, one).name, place_at(1, other, one).only_in) == ("b", "against")
    assert place_at(2, one, one[:2]).only_in == "run"
    late = place_at(3, [*one, entry("a", 1, 2)], [*one, entry("a", 2, 2)])
    assert (late.step, late.number, late.count) == (2, 1, 1)


@pytest.mark.parametrize("kind", get_args(PlaceKind))
def test_every_kind_and_reason_has_words(kind):
    parting = Parting(
        run="runs/bad",
        against="runs/good",
        outcome="PARTED",
        num_common_steps=1200,
        first_step=4,
        differences=(Difference(name="data", recorded="", now="0123"),),
        place=Place(step=4, kind=kind, name="", number=1, count=2, run_value=1.0, against_value=1.0 + 1e-12),
        max_difference=1e-12,
        explained_by=tuple(
            Explanation(name="a", outcome="not_tested", reason=reason, step=4, said={"en": "why.", "ko": "이유."})
            for reason in get_args(ExplanationReason)
        ),
        replays=tuple(
            Replay(side="run", path="runs/bad", reproduced="not_run", reason=reason, said={"en": "why.", "ko": "이유."})
            for reason in ("cannot_load", "out_of_memory", "too_far")
        ),
    )
    shown = check_told(parting)
    assert "1.000000000001" in shown["en"], "what differs is not rounded to be the same"
