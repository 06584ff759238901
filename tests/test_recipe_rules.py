"""Settings that a recipe would ignore, and settings that contradict each other: every rule with an example."""

from typing import Literal, get_args, get_origin

import pytest

from jinmaek.config import Recipe, recipe_from_dict
from jinmaek.config.load import defaults
from jinmaek.config.relevance import CONFLICTS, IGNORED, is_local
from jinmaek.core.errors import RecipeError

GOOD = {"model.name": "org/model", "data.source": "org/data", "train.max_steps": 10}

# (key, reader): a value of the key, a value of the reader that makes it idle, one that does not (None: not given).
IDLE = {
    ("model.double_quant", "model.quantization"): (True, "int8", "nf4"),
    ("model.keep_quantized", "model.quantization"): (True, "int8", "nf4"),
    ("model.compute_dtype", "model.quantization"): ("bf16", "none", "fp4"),
    ("model.revision", "model.name"): ("main", "builtin:tiny-ko", "org/model"),
    ("data.subset", "data.source"): ("ko", "rows.jsonl", "org/data"),
    ("data.split", "data.source"): ("test", "builtin:tiny-ko", "org/data"),
    ("data.question_column", "data.format"): ("ask", "text", "pairs"),
    ("data.answer_column", "data.format"): ("say", "text", "auto"),
    ("data.context_column", "data.format"): ("more", "text", "pairs"),
    ("data.text_column", "data.format"): ("body", "pairs", "text"),
    ("data.messages_column", "data.format"): ("talk", "pairs", "messages"),
    ("data.template", "data.format"): ("chat", "text", "messages"),
    ("data.system", "data.template"): ("Be kind.", "koalpaca", "chat"),
    ("data.held_out", "data.held_out_source"): (0.1, "test.jsonl", None),
    ("train.batch_size", "data.packing"): (4, True, False),
    ("kernels.memory_gib", "kernels.fused"): (24.0, False, True),
    ("kernels.cache_weights", "kernels.fused"): ("never", False, True),
    ("kernels.fp8", "kernels.fused"): (True, False, True),
    ("train.batch_tokens", "data.packing"): (4096, False, True),
    ("train.epochs", "train.max_steps"): (1.0, 10, None),
    ("train.loss_scale_init", "train.precision"): (1024.0, "bf16", "fp16"),
    ("train.loss_scale_min", "train.precision"): (1.0, "fp32", "fp16"),
    ("train.loss_scale_growth_steps", "train.precision"): (100, "bf16", "fp16"),
    ("train.keep_checkpoints", "train.checkpoint_every"): (2, 0, 50),
    ("capture.keep", "capture.every"): (2, 0, 50),
    ("capture.keep_found", "capture.every"): (2, 0, 50),
    ("optim.schedule_steps", "optim.schedule"): (100, "constant", "cosine"),
    ("samples.max_new_tokens", "samples.questions"): (32, [], ["무엇?"]),
}
# Of readers that choose among a few: all the choices that make the key idle.
IDLE_CHOICES = {
    "model.double_quant": {"int8", "none"},
    "model.keep_quantized": {"int8", "none"},
    "model.compute_dtype": {"int8", "none"},
    "data.question_column": {"text", "messages"},
    "data.answer_column": {"text", "messages"},
    "data.context_column": {"text", "messages"},
    "data.text_column": {"pairs", "messages"},
    "data.messages_column": {"pairs", "text"},
    "data.template": {"text"},
    "train.loss_scale_init": {"bf16", "fp32"},
    "train.loss_scale_min": {"bf16", "fp32"},
    "train.loss_scale_growth_steps": {"bf16", "fp32"},
    "optim.schedule_steps": {"constant"},
}
LIVE_NEEDS = {"data.messages_column": {"data.template": "chat"}}

# message: settings that contradict each other, and the nearest ones that do not.
AT_ODDS = {
    "recipe.length_missing": ({"train.max_steps": None}, {"train.max_steps": None, "train.epochs": 1.0}),
    "recipe.steps_past_schedule": (
        {"train.max_steps": 11, "optim.schedule_steps": 10},
        {"train.max_steps": 10, "optim.schedule_steps": 10},
    ),
    "recipe.warmup_too_long": ({"optim.warmup_steps": 10}, {"optim.warmup_steps": 9}),
    "recipe.max_length_over_budget": (
        {"data.packing": True, "data.max_length": 2049, "train.batch_tokens": 2048},
        {"data.packing": True, "data.max_length": 2048, "train.batch_tokens": 2048},
    ),
    "recipe.answer_loss_of_text": (
        {"data.format": "text", "data.loss": "answer"},
        {"data.format": "text", "data.loss": "all"},
    ),
    "recipe.template_without_answer": (
        {"data.template": "{question} {anwser}"},
        {"data.template": "{question} {answer}"},
    ),
    "recipe.messages_need_chat": (
        {"data.format": "messages", "data.template": "koalpaca"},
        {"data.format": "messages", "data.template": "chat"},
    ),
    "recipe.loss_scale_bounds": (
        {"train.precision": "fp16", "train.loss_scale_min": 2.0, "train.loss_scale_init": 1.0},
        {"train.precision": "fp16", "train.loss_scale_min": 1.0, "train.loss_scale_init": 1.0},
    ),
    "recipe.eval_without_held_out": (
        {"train.eval_every": 5, "data.held_out": 0.0},
        {"train.eval_every": 5, "data.held_out_source": "test.jsonl"},
    ),
    "recipe.flash_not_repeatable": (
        {"model.attention": "flash_attention_2"},
        {"model.attention": "flash_attention_2", "train.deterministic": False},
    ),
}


def made(changes):
    """The good recipe with ``changes``; a value ``None`` takes a key out."""
    values = {}
    for key, value in (GOOD | changes).items():
        section, _, name = key.partition(".")
        table = values.setdefault(section, {})
        if value is not None:
            table[name] = value
    return recipe_from_dict(values)


def problems(changes):
    with pytest.raises(RecipeError) as caught:
        made(changes)
    return caught.value.problems


def idle_case(rule):
    value, idle, live = IDLE[rule.key, rule.reader]
    return value, idle, live, LIVE_NEEDS.get(rule.key, {})


@pytest.mark.parametrize("rule", IGNORED, ids=lambda rule: f"{rule.key}-{rule.reader}")
def test_a_setting_that_would_be_ignored_is_refused(rule):
    value, idle, _, _ = idle_case(rule)
    (problem,) = problems({rule.key: value, rule.reader: idle})
    assert problem.key == "recipe.ignored"
    assert problem.render("en").startswith(f"{rule.key} would have no effect because {rule.reader} = ")
    assert problem.render("ko").startswith(f"{rule.reader} = ")
    assert rule.key in problem.render("ko")


@pytest.mark.parametrize("rule", IGNORED, ids=lambda rule: f"{rule.key}-{rule.reader}")
def test_a_setting_that_counts_is_accepted(rule):
    value, _, live, needs = idle_case(rule)
    section, _, name = rule.key.partition(".")
    recipe = made({rule.key: value, rule.reader: live} | needs)
    assert getattr(getattr(recipe, section), name) == value


@pytest.mark.parametrize("rule", IGNORED, ids=lambda rule: f"{rule.key}-{rule.reader}")
def test_a_default_that_would_be_ignored_is_no_problem(rule):
    _, idle, _, _ = idle_case(rule)
    section, _, name = rule.reader.partition(".")
    read = getattr(getattr(made({rule.reader: idle}), section), name)
    assert read == (tuple(idle) if isinstance(idle, list) else idle)


def choices(key):
    """What a setting chooses among; nothing where it is open-ended."""
    section, _, name = key.partition(".")
    kind = Recipe.model_fields[section].annotation.model_fields[name].annotation
    return get_args(kind) if get_origin(kind) is Literal else ()


def test_each_choice_of_a_reader_makes_the_right_keys_idle():
    found = {rule.key: set(filter(rule.when, choices(rule.reader))) for rule in IGNORED if choices(rule.reader)}
    assert found == IDLE_CHOICES


def test_a_reader_that_is_not_given_counts_with_its_default():
    (problem,) = problems({"train.loss_scale_init": 1024.0})
    assert problem.params == {"key": "train.loss_scale_init", "reader": "train.precision", "value": "bf16"}


def test_every_rule_speaks_of_settings_that_exist():
    spoken_of = {rule.key for rule in IGNORED} | {rule.reader for rule in IGNORED}
    assert spoken_of | {key for rule in CONFLICTS for key in rule.reads} <= set(defaults())


def test_no_example_is_left_of_a_rule_that_is_gone():
    assert set(IDLE) == {(rule.key, rule.reader) for rule in IGNORED}
    assert set(AT_ODDS) == {rule.message for rule in CONFLICTS}


@pytest.mark.parametrize("rule", CONFLICTS, ids=lambda rule: rule.message)
def test_settings_that_contradict_each_other_are_refused(rule):
    at_odds, _ = AT_ODDS[rule.message]
    (problem,) = problems(at_odds)
    assert problem.key == rule.message
    assert problem.render("en") != problem.render("ko")


@pytest.mark.parametrize("rule", CONFLICTS, ids=lambda rule: rule.message)
def test_settings_next_to_a_contradiction_are_accepted(rule):
    _, fine = AT_ODDS[rule.message]
    recipe = made(fine)
    for key, value in fine.items():
        section, _, name = key.partition(".")
        assert getattr(getattr(recipe, section), name) == value


def test_a_plain_good_recipe_triggers_no_rule():
    assert made({}).train.max_steps == 10


def test_a_rule_is_silent_about_a_setting_that_is_itself_wrong():
    (problem,) = problems({"data.packing": "yes", "train.batch_size": 4})
    assert problem.params["key"] == "data.packing"


def test_steps_past_a_constant_schedule_learn():
    recipe = made({"train.max_steps": 200, "optim.schedule": "constant", "optim.warmup_steps": 5})
    assert recipe.train.max_steps == 200


@pytest.mark.parametrize("length", [{"optim.schedule_steps": 5}, {}])
def test_warmup_is_measured_against_the_schedule_and_else_the_run(length):
    (problem,) = problems({"train.max_steps": 5, "optim.warmup_steps": 5} | length)
    assert problem.key == "recipe.warmup_too_long"


def test_warmup_as_long_as_the_run_is_fine_within_a_longer_schedule():
    assert made({"optim.warmup_steps": 10, "optim.schedule_steps": 100}).optim.warmup_steps == 10


@pytest.mark.parametrize(
    "source", ["rows.jsonl", "./rows", "/data/rows", "~/rows.csv", "builtin:tiny-ko", "a/b/rows.parquet", "rows.JSON"]
)
def test_a_file_is_local_before_it_exists(source):
    assert is_local(source)


@pytest.mark.parametrize("source", ["org/data", "squad", "beomi/KoAlpaca-v1.1a", "org/corpus-2.0", "org/web_v1.5.ko"])
def test_a_hub_name_is_not_local_even_with_a_dot_in_it(source):
    assert not is_local(source)


def test_whatever_exists_here_is_local(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not is_local("org/data")
    (tmp_path / "org").mkdir()
    (tmp_path / "org" / "data").write_text("[]", "utf-8")
    assert is_local("org/data")


def test_a_subset_of_the_founding_data_counts():
    assert made({"data.source": "beomi/KoAlpaca-v1.1a", "data.subset": "default"}).data.subset == "default"
