"""From the command line's words to arms and trials, and what else changes with them."""

import json

import pytest
import torch

from jinmaek.config import load_recipe
from jinmaek.core.errors import RecipeError, RunError
from jinmaek.lab.design import design_from_plan, parse_factor
from jinmaek.lab.side_effects import changes_held_out, lr_at, side_effects
from jinmaek.lab.sweep_directory import SweepDirectory, describe
from sweeps import design_of


def names(design):
    return [arm.name for arm in design.arms]


def effect_of(design, key):
    recipes = [arm.recipe for arm in design.arms]
    [effect] = side_effects([key], design.recipe, recipes)
    return effect


def test_commas_within_brackets_and_quotes_belong_to_the_value():
    assert parse_factor("optim.lr=1e-4, 3e-4").values == ("1e-4", "3e-4")
    factor = parse_factor('adapter.targets=["query_key_value","dense"],all-linear')
    assert factor.values == ('["query_key_value","dense"]', "all-linear")
    assert parse_factor('data.template="a,{answer}","b{answer}"').values == ('"a,{answer}"', '"b{answer}"')


@pytest.mark.parametrize(
    "text", ["optim.lr", "lr=1,2", "optim.lr=1e-4", "optim.lr=1e-4,", "optim.lr=1e-4,0.0001", "=1,2"]
)
def test_what_varies_nothing_is_refused(text):
    with pytest.raises(RecipeError):
        parse_factor(text)


def test_a_grid_has_every_combination_and_whole_pairs_come_first():
    design = design_of("quickstart", "optim.lr=1e-3,2e-3", "adapter.rank=4,16", seeds=2)
    assert len(design.arms) == 4
    assert names(design)[design.base] == "optim.lr=2e-3 adapter.rank=16", "the recipe as it stands"
    first = [(trial.arm, trial.seed) for trial in design.trials[:5]]
    assert first == [(design.base, 42), (0, 42), (1, 42), (2, 42), (design.base, 43)]
    assert design.recipe_of(design.trials[4])["train"]["seed"] == 43


def test_one_factor_at_a_time_starts_from_the_recipe():
    design = design_of("quickstart", "optim.lr=1e-3,2e-3", "adapter.rank=4,16", kind="one-factor")
    assert names(design) == ["recipe", "optim.lr=1e-3", "adapter.rank=4"]
    assert design.base == 0


def test_a_value_that_no_arm_can_have_is_refused_and_a_bad_combination_is_left_to_its_trial():
    with pytest.raises(RecipeError, match="optim.lr = -1"):
        design_of("quickstart", "optim.lr=-1,1e-3")
    settings = ["data.packing=true", "train.batch_size="]
    design = design_of("quickstart", "data.max_length=64,256", "train.batch_tokens=128,512", settings=settings)
    [bad] = [arm for arm in design.arms if arm.recipe is None]
    assert bad.name == "data.max_length=256 train.batch_tokens=128"
    assert "256" in bad.refusal["en"]
    assert "팩" in bad.refusal["ko"]


@pytest.mark.parametrize(
    ("vary", "options", "match"),
    [
        (["optim.lr=1e-3,2e-3", "optim.lr=3e-3,4e-3"], {}, "twice"),
        (["train.seed=1,2"], {"seeds": 2}, "train.seed goes alone"),
        (["train.seed=1,2", "optim.lr=1e-3,2e-3"], {}, "train.seed goes alone"),
        (["adapter.rnk=1,2"], {}, "adapter.rank"),
    ],
)
def test_designs_that_cannot_be_meant_are_refused(vary, options, match):
    with pytest.raises(RecipeError, match=match):
        design_of("quickstart", *vary, **options)


def test_the_founding_sweep_says_that_every_lr_changes_and_can_hold_them_still():
    values = "50,500,600,1000,2000,5000"
    design = design_of("koalpaca-polyglot-12.8b", f"train.max_steps={values}")
    effect = effect_of(design, "train.max_steps")
    assert effect.what.key == "lab.effect_schedule"
    assert "50 → 2.00e-06" in effect.what.params["lrs"]
    assert "5000 → 9.90e-05" in effect.what.params["lrs"]
    held = design_of("koalpaca-polyglot-12.8b", f"train.max_steps={values}", controlled=True)
    assert {arm.recipe.optim.schedule_steps for arm in held.arms} == {5000}
    assert [arm.recipe.train.max_steps for arm in held.arms] == [int(value) for value in values.split(",")]
    assert held.base == design.base == 0


@pytest.mark.parametrize("kind", ["linear", "cosine", "constant"])
def test_the_lrs_that_are_told_are_those_that_are_used(kind):
    from jinmaek.training.optim import make_optimizer, make_schedule

    section = load_recipe("quickstart", [f"optim.schedule={kind}", "optim.warmup_steps=3"]).optim
    optimizer = make_optimizer([torch.nn.Parameter(torch.zeros(1))], section)
    schedule = make_schedule(optimizer, section, 12)
    for step in range(1, 13):
        assert lr_at(section, step, 12) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        schedule.step()


def test_other_batches_see_as_many_examples_when_controlled():
    design = design_of("quickstart", "train.batch_size=4,16,32", controlled=True)
    seen = [
        (arm.recipe.train.batch_size, arm.recipe.train.max_steps, arm.recipe.optim.warmup_steps) for arm in design.arms
    ]
    assert seen == [(4, 920, 40), (16, 230, 10), (32, 115, 5)]
    assert (
        effect_of(design_of("quickstart", "train.batch_size=4,16"), "train.batch_size").what.key == "lab.effect_batch"
    )


def test_rank_keeps_the_multiplier_when_controlled():
    free = effect_of(design_of("quickstart", "adapter.rank=4,16"), "adapter.rank")
    assert free.what.params["scales"] == "4 → 8, 16 → 2"
    design = design_of("quickstart", "adapter.rank=4,16", controlled=True)
    assert [arm.recipe.adapter.alpha for arm in design.arms] == [8, 32]
    rooted = design_of("quickstart", "adapter.rank=4,16", settings=["adapter.rslora=true"], controlled=True)
    assert [arm.recipe.adapter.alpha for arm in rooted.arms] == [16, 32]


def test_what_cannot_be_held_still_together_is_not_said_to_be():
    vary = ("train.max_steps=10,20", "train.batch_size=2,4", "adapter.rank=4,8")
    design = design_of("quickstart", *vary, settings=["optim.warmup_steps=2"], controlled=True)
    keys = [factor.key for factor in design.factors]
    effects = side_effects(keys, design.recipe, [arm.recipe for arm in design.arms])
    assert [effect.key for effect in effects if effect.control is not None] == ["adapter.rank"]
    assert {setting.partition("=")[0] for arm in design.arms for setting in arm.controls} == {"adapter.alpha"}


def test_lr_and_weight_decay():
    assert effect_of(design_of("quickstart", "optim.lr=1e-3,2e-3"), "optim.lr").what.key == "lab.effect_alone"
    settings = ["optim.weight_decay=0.1"]
    design = design_of("quickstart", "optim.lr=1e-3,2e-3", settings=settings, controlled=True)
    assert [arm.recipe.optim.weight_decay for arm in design.arms] == pytest.approx([0.2, 0.1])


@pytest.mark.parametrize(
    ("key", "vary", "message"),
    [
        ("train.seed", "train.seed=1,2", "lab.effect_seed"),
        ("train.log_every", "train.log_every=1,2", "lab.effect_none"),
        ("train.deterministic", "train.deterministic=true,false", "lab.effect_rounding"),
        ("data.max_length", "data.max_length=64,128", "lab.effect_held_out"),
        ("data.limit", "data.limit=64,128", "lab.effect_train_data"),
        ("model.double_quant", "model.double_quant=true,false", "lab.effect_model"),
        ("train.max_grad_norm", "train.max_grad_norm=0.5,1", "lab.effect_alone"),
    ],
)
def test_what_else_changes(key, vary, message):
    assert effect_of(design_of("quickstart", vary), key).what.key == message


def test_losses_on_other_tokens_are_known_not_to_compare():
    own = load_recipe("quickstart")  # has a held-out file of its own
    shared = load_recipe("koalpaca-24gb")
    assert not changes_held_out(["data.limit", "optim.lr"], own)
    assert changes_held_out(["data.limit"], shared)
    assert changes_held_out(["data.template"], own)
    assert changes_held_out(["model.name"], own)


def test_a_design_comes_back_from_its_plan():
    settings = ["data.packing=true", "train.batch_size="]
    design = design_of("quickstart", "data.max_length=64,256", "train.batch_tokens=128,512", settings=settings, seeds=3)
    plan = json.loads(json.dumps(describe(design, "compare")))
    assert describe(design_from_plan(plan), "compare") == plan


def test_a_folder_takes_the_same_design_with_more_seeds_and_no_other(tmp_path):
    directory = SweepDirectory(tmp_path / "sweep")
    directory.create_or_check(design_of("quickstart", "optim.lr=1e-3,2e-3"), "compare")
    directory.create_or_check(design_of("quickstart", "optim.lr=1e-3,2e-3", seeds=3), "compare")
    assert len(directory.read_plan()["trials"]) == 6
    for other in (
        design_of("quickstart", "optim.lr=1e-3,3e-3", seeds=3),
        design_of("quickstart", "optim.lr=1e-3,2e-3"),
        design_of("quickstart", "optim.lr=1e-3,2e-3", settings=["train.max_steps=5", "optim.warmup_steps=0"], seeds=3),
    ):
        with pytest.raises(RunError, match="another sweep"):
            directory.create_or_check(other, "compare")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(RunError, match="no sweep"):
        SweepDirectory(tmp_path / "other").create_or_check(design_of("quickstart", "optim.lr=1e-3,2e-3"), "compare")
    for spoiled in ("{}", "[]"):
        (tmp_path / "sweep" / "sweep.json").write_text(spoiled)
        with pytest.raises(RunError, match="cannot be read"):
            directory.read_plan()
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="no sweep"):
        SweepDirectory(tmp_path / "file").check(design_of("quickstart", "optim.lr=1e-3,2e-3"), "compare")
