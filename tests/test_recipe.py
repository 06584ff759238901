"""Recipes: the built-in ones, loading, overrides, and every problem told at once."""

import re
import tomllib

import pytest

from jinmaek.config import builtin_recipes, load_recipe, recipe_from_dict
from jinmaek.config.load import _FOREIGN_NAMES, defaults
from jinmaek.core.errors import RecipeError
from jinmaek.core.manifest import flat

FOUNDING = "koalpaca-polyglot-12.8b"
FOUNDING_SETTINGS = {
    "model.name": "beomi/polyglot-ko-12.8b-safetensors",
    "model.quantization": "nf4",
    "model.double_quant": True,
    "model.compute_dtype": "bf16",
    "adapter.rank": 8,
    "adapter.alpha": 32,
    "adapter.dropout": 0.05,
    "adapter.targets": ["query_key_value"],
    "data.source": "beomi/KoAlpaca-v1.1a",
    "data.template": "koalpaca",
    "data.loss": "all",
    "train.precision": "fp16",
    "train.batch_size": 2,
    "train.accumulation": 1,
    "train.max_grad_norm": 1.0,
    "train.log_every": 10,
    "optim.name": "paged_adamw_8bit",
    "optim.lr": 1e-4,
    "optim.schedule": "linear",
}
GOOD = '[model]\nname = "org/model"\n[data]\nsource = "org/data"\n[train]\nmax_steps = 10\n'


@pytest.fixture
def good(tmp_path):
    """The smallest recipe that is right."""
    path = tmp_path / "good.toml"
    path.write_text(GOOD, "utf-8")
    return path


def refused(name, *overrides):
    """The problems of a recipe that must not load; each can be told in both languages."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(name, overrides)
    assert caught.value.render("ko") != caught.value.render("en")
    return caught.value


def keys(error):
    return [problem.key for problem in error.problems]


@pytest.mark.parametrize("name", builtin_recipes())
def test_a_built_in_recipe_loads_and_is_described_in_both_languages(name):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.about.en.strip()
    assert not re.search("[가-힣]", recipe.about.en)
    assert re.search("[가-힣]", recipe.about.ko)


def test_the_recipes_that_we_promise_are_there():
    promised = {f"koalpaca-polyglot-{size}" for size in ("12.8b", "5.8b", "3.8b", "1.3b")} | {"koalpaca-24gb"}
    assert promised <= set(builtin_recipes())


@pytest.mark.parametrize(("key", "value"), FOUNDING_SETTINGS.items())
def test_the_founding_recipe_is_as_its_author_ran_it(key, value):
    """Written down, not left to defaults: a default may move, the history may not."""
    section, _, name = key.partition(".")
    assert flat(tomllib.loads(builtin_recipes()[FOUNDING]))[key] == value
    assert load_recipe(FOUNDING).model_dump(mode="json")[section][name] == value


def test_the_founding_recipe_has_no_warmup_no_packing_and_nothing_held_out():
    recipe = load_recipe(FOUNDING)
    assert (recipe.optim.warmup_steps, recipe.optim.weight_decay) == (0, 0.0)
    assert recipe.data.packing is False
    assert (recipe.data.held_out, recipe.data.held_out_source) == (0.0, None)


@pytest.mark.parametrize("size", ["5.8b", "3.8b", "1.3b"])
def test_the_smaller_founding_recipes_differ_in_the_model_only(size):
    large, small = load_recipe(FOUNDING).model_dump(), load_recipe(f"koalpaca-polyglot-{size}").model_dump()
    assert small["model"]["name"].endswith(size)
    assert size in small["about"]["en"]
    for dump in (large, small):
        del dump["name"], dump["about"], dump["model"]["name"]
    assert small == large


def test_a_recipe_is_named_after_its_file_unless_it_says_otherwise(good, tmp_path):
    assert load_recipe(good).name == "good"
    named = tmp_path / "other.toml"
    named.write_text(f'name = "mine"\n{GOOD}', "utf-8")
    assert load_recipe(named).name == "mine"


def test_a_recipe_survives_its_own_dump(good):
    recipe = load_recipe(good, ["adapter.targets=['q', 'v']", "samples.questions=['질문?']"])
    assert recipe_from_dict(recipe.model_dump(mode="json", exclude_unset=True)) == recipe


def test_all_problems_are_told_at_once(good):
    error = refused(
        good, "train.batch_sise=4", "optim.lr=-1", "model.name=", "data.system=hello", "train.eval_every=5",
        "data.held_out=0", "nonsense", "optim.schedule=cosin",
    )  # fmt: skip
    text = str(error)
    assert text.startswith("7 problems:")
    assert error.render("ko").startswith("문제 7가지:")
    for part in (
        "train.batch_sise is unknown. Did you mean train.batch_size?",
        "optim.lr = -1:",
        "model.name is missing",
        "data.system would have no effect because data.template = koalpaca",
        "train.eval_every = 5, but nothing is held out",
        "'nonsense' is no override",
        "optim.schedule = 'cosin':",
    ):
        assert part in text


def test_a_value_that_fits_neither_form_is_one_problem(good):
    error = refused(good, "adapter.targets=3")
    assert keys(error) == ["recipe.bad_value"]
    assert "adapter.targets = 3:" in str(error)


@pytest.mark.parametrize(
    ("key", "close"),
    [
        ("train.max_step", "train.max_steps"),
        ("model.double_quany", "model.double_quant"),
        ("model.bnb_4bit_use_double_quant", "model.double_quant"),
        ("data.maxlength", "data.max_length"),
        ("optim.learning_rate", "optim.lr"),
        ("trian.max_steps", "train"),
    ],
)
def test_a_misspelt_key_gets_the_nearest_one(good, key, close):
    error = refused(good, f"{key}=1")
    assert f"{key.partition('.')[0] if close == 'train' else key} is unknown. Did you mean {close}?" in str(error)


def test_a_key_like_no_other_gets_the_list_of_its_section(good):
    text = str(refused(good, "samples.zzz=1"))
    assert "samples.zzz is unknown. Known here: samples.questions, samples.max_new_tokens." in text


@pytest.mark.parametrize("key", [key for key in defaults() if not key.startswith("about.")])
def test_a_key_in_the_wrong_section_is_sent_to_its_own(good, key):
    name = key.partition(".")[2]
    wrong = next(part for part in ("samples", "optim", "adapter") if f"{part}.{name}" not in defaults())
    homes = [known for known in defaults() if known.endswith(f".{name}")]
    (problem,) = refused(good, f"{wrong}.{name}=1").problems
    assert problem.key == "recipe.unknown_key_close"
    assert problem.params["close"] in homes


@pytest.mark.parametrize(("foreign", "ours"), _FOREIGN_NAMES.items())
def test_names_of_other_libraries_are_translated(good, foreign, ours):
    assert ours in defaults()
    assert f"train.{foreign} is unknown. Did you mean {ours}?" in str(refused(good, f"train.{foreign}=1"))


def test_2e_4_is_a_number(tmp_path):
    path = tmp_path / "lr.toml"
    path.write_text(f"{GOOD}[optim]\nlr = 2e-4\n", "utf-8")
    assert load_recipe(path).optim.lr == load_recipe(path, ["optim.lr=2e-4"]).optim.lr == 0.0002


@pytest.mark.parametrize(
    "text", [f"{GOOD}max_steps = 20\n", f'{GOOD}[model]\nname = "x"\n', f"{GOOD}lr: 2e-4\n"], ids=["key", "table", "yaml"]
)  # fmt: skip
def test_what_is_no_toml_is_refused_with_the_place(tmp_path, text):
    path = tmp_path / "broken.toml"
    path.write_text(text, "utf-8")
    error = refused(path)
    assert keys(error) == ["recipe.not_toml"]
    assert "broken.toml is not valid TOML:" in str(error)
    assert "line " in str(error)


@pytest.mark.parametrize(("name", "close"), [("koalpaca-polyglot-12b", FOUNDING), ("koalpaca-quen", "koalpaca-qwen")])
def test_a_misspelt_recipe_gets_the_nearest_one(name, close):
    assert f"No recipe '{name}'" in str(refused(name))
    assert f"Did you mean '{close}'?" in str(refused(name))


def test_a_file_that_is_no_utf8_is_told(tmp_path):
    path = tmp_path / "old.toml"
    path.write_bytes('# 한국어\n[model]\nname = "x"\n'.encode("cp949"))
    assert keys(refused(path)) == ["recipe.unreadable"]


@pytest.mark.parametrize(
    ("override", "section", "key", "value"),
    [
        ("train.max_steps=50", "train", "max_steps", 50),
        ("optim.lr=1e-4", "optim", "lr", 1e-4),
        ("data.packing=true", "data", "packing", True),
        ("optim.name=adamw_8bit", "optim", "name", "adamw_8bit"),
        ('optim.name="adamw_8bit"', "optim", "name", "adamw_8bit"),
        (" train.seed = 7 ", "train", "seed", 7),
        ("adapter.targets=['q_proj','v_proj']", "adapter", "targets", ("q_proj", "v_proj")),
        ("data.template=Q={question} A={answer}", "data", "template", "Q={question} A={answer}"),
        ("model.name=org/other-1.5b", "model", "name", "org/other-1.5b"),
        ("samples.questions=['왜?']", "samples", "questions", ("왜?",)),
    ],
)
def test_an_override_is_read_as_toml_and_else_as_text(good, override, section, key, value):
    assert getattr(getattr(load_recipe(good, [override]), section), key) == value


def test_an_empty_value_takes_the_key_out(good):
    assert load_recipe(FOUNDING, ["train.log_every=", "data.loss="]).train.model_fields_set.isdisjoint({"log_every"})
    assert keys(refused(good, "train.max_steps=")) == ["recipe.length_missing"]
    assert load_recipe(good, ["optim.lr="]) == load_recipe(good)


@pytest.mark.parametrize(
    "override", ["max_steps", "max_steps=5", "train.max_steps", "=5", ".max_steps=5", "train.=5", ""]
)
def test_a_malformed_override_is_named(good, override):
    error = refused(good, override)
    assert keys(error) == ["recipe.bad_override"]
    assert f"'{override}' is no override" in str(error)


def test_taking_a_key_out_of_what_is_no_table_is_told(tmp_path):
    path = tmp_path / "flat.toml"
    path.write_text('data = "org/data"\n[model]\nname = "m"\n[train]\nmax_steps = 1\n', "utf-8")
    assert "data = 'org/data':" in str(refused(path, "data.limit="))


def test_the_later_of_two_overrides_counts(good):
    assert load_recipe(good, ["train.seed=1", "train.seed=2"]).train.seed == 2


def test_max_steps_on_the_command_line_replaces_the_epochs_of_the_recipe():
    recipe = load_recipe("koalpaca-24gb", ["train.max_steps=70"])
    assert (recipe.train.max_steps, recipe.train.epochs) == (70, None)
    assert "epochs" not in recipe.train.model_fields_set


def test_epochs_on_the_command_line_replace_the_max_steps_of_the_recipe(good):
    assert load_recipe(good, ["train.epochs=2"]).train.max_steps is None


def test_both_lengths_on_the_command_line_contradict_each_other(good):
    assert keys(refused(good, "train.epochs=2", "train.max_steps=5")) == ["recipe.ignored"]


def test_a_held_out_source_on_the_command_line_replaces_the_share_of_the_recipe():
    recipe = load_recipe("koalpaca-24gb", ["data.held_out_source=test.jsonl"])
    assert "held_out" not in recipe.data.model_fields_set


@pytest.mark.parametrize(
    "override",
    [
        'train.batch_size="8"', "train.batch_size=true", "train.batch_size=8.0", "train.batch_size=0",
        "data.packing=1", "data.packing='true'", "optim.lr='2e-4'", "optim.lr=true", "optim.lr=0", "optim.beta2=1",
        "adapter.dropout=1.0", "adapter.rank=0", "adapter.targets=[1]", "adapter.targets=q_proj", "data.max_length=7",
        "data.held_out=1.0", "model.name=''", "model.quantization=nf8", "train.precision=bfloat16", "data.limit=0",
    ],
)  # fmt: skip
def test_a_value_of_another_type_or_out_of_bounds_is_no_value(good, override):
    error = refused(good, override)
    assert keys(error) == ["recipe.bad_value"]
    assert str(error).startswith(override.partition("=")[0])


@pytest.mark.parametrize("override", ["train.epochs=1", "optim.lr=1", "adapter.alpha=16", "data.held_out=0"])
def test_a_whole_number_is_good_where_a_real_one_is_wanted(good, override):
    assert load_recipe(good, [override]).name == "good"
