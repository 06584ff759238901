"""Two runs held against each other: where they part, and which difference explains it."""

import pytest

from conftest import make_pairs, write_jsonl
from jinmaek.core.verdict import Difference
from jinmaek.replay.against import prove_against
from partings import STEPS, Notes, check_told, outcomes, trainer, where


@pytest.fixture
def train(make_recipe, tmp_path):
    """Train the small recipe with changes, and return the run's directory."""
    return trainer(make_recipe, tmp_path)


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


def test_clipping_shows_in_the_update_and_not_in_the_gradient(train):
    """Adam hardly minds the scale of a gradient: the moments differ from step 1 on, the weights perhaps later."""
    parting = prove_against(train("bad", train={"max_grad_norm": 0.01}), train("good"))
    assert parting.outcome == "EXPLAINED"
    step, kind, name = where(parting)
    assert (step, kind) == (parting.first_step - 1, "update")
    assert "lora_" in name
    assert 0 < parting.max_difference < 1e-3
    assert outcomes(parting) == {"train.max_grad_norm": "explains"}
    assert "updated weight of" in check_told(parting)["en"]


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
