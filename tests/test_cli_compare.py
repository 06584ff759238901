"""`jinmaek compare` as a user types it: real runs of the small model, foreign logs, exit codes."""

import json

import pytest
from typer.testing import CliRunner

import jinmaek
from jinmaek.cli.main import app
from jinmaek.comparison import compare_paths
from jinmaek.core.errors import JinmaekError

LONG = {"max_steps": 24, "eval_every": 8, "checkpoint_every": 0}


def run(*arguments, lang="en"):
    return CliRunner().invoke(app, ["compare", *map(str, arguments), "--lang", lang], catch_exceptions=False)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, request):
    """Two microbatches a step, the same, twice as long, the same examples in one microbatch; and another seed."""
    folder = tmp_path_factory.mktemp("runs")
    make_recipe = request.getfixturevalue("recipe_maker")
    base = {**LONG, "accumulation": 2, "batch_size": 2}
    made = {
        "first": base,
        "again": base,
        "longer": {**base, "max_steps": 32},
        "whole": {**LONG, "accumulation": 1, "batch_size": 4},
        "seed": {**base, "seed": 7},
    }
    for name, train in made.items():
        jinmaek.train(make_recipe(train=train, data={"held_out": 0.25}), run_dir=folder / name)
    return folder


@pytest.fixture(scope="module")
def recipe_maker(model_dir, pairs_file):
    from jinmaek.config import recipe_from_dict

    def make(train, data):
        values = {
            "model": {"name": str(model_dir), "quantization": "none", "activation_checkpointing": False},
            "adapter": {"rank": 4},
            "data": {"source": str(pairs_file), **data},
            "train": {"precision": "fp32", **train},
            "optim": {"lr": 1e-3},
        }
        return recipe_from_dict(values)

    return make


def test_a_run_and_its_repetition_are_identical(trained):
    done = run(trained / "first", trained / "again", "--equivalent")
    assert done.exit_code == 0
    assert "are the same run" in done.stdout
    assert "Equivalent" in done.stdout


def test_the_same_examples_in_other_microbatches_part_by_rounding(trained):
    pair = compare_paths([str(trained / "first"), str(trained / "whole")]).pairs[0]
    assert pair.order_differs_at is None
    assert pair.split.rounding == "fits"
    assert set(pair.split.causes) == {"train.accumulation", "train.batch_size"}
    # The length-weighted mean of the loss is the same: they differ by far less than any margin.
    assert abs(pair.held_out.difference.value) < 1e-3
    assert run(trained / "first", trained / "whole", "--equivalent").exit_code == 0


def test_another_length_is_another_lr_and_said_so(trained):
    pair = compare_paths([str(trained / "first"), str(trained / "longer")]).pairs[0]
    assert pair.lr.cause == "schedule_steps"
    assert pair.split.rounding == "other_cause"
    text = run(trained / "first", trained / "longer").stdout
    assert "optim.schedule_steps" in text
    assert "optim.schedule_steps" in run(trained / "first", trained / "longer", lang="ko").stdout


def test_a_folder_of_runs_is_compared_as_a_whole_with_its_noise_floor(trained):
    row = json.loads(run(trained, "--json").stdout)
    assert [one["source"] for one in row["runs"]] == ["again", "first", "longer", "seed", "whole"]
    # Another seed holds out other examples here, so only the training loss says how far seeds lie apart.
    assert row["floor"]["basis"] == "train"
    assert row["floor"]["groups"] == [[0, 3]]
    assert all(pair["held_out"]["difference"] is not None for pair in row["pairs"] if pair["other"] != 3)


def test_a_run_named_twice_is_refused_however_it_is_named(trained, monkeypatch):
    monkeypatch.chdir(trained)
    for first, other in (("first", trained / "first"), (trained, "first")):
        with pytest.raises(JinmaekError, match="twice"):
            run(first, other)


def test_held_out_losses_by_example_and_the_first_gradient_are_on_disk(trained):
    records = jinmaek.read_steps(trained / "first" / "steps.jsonl")
    # The last step of an epoch may be one microbatch.
    several = [record for record in records if len(record.example_ids) == 4]
    assert len(several) > 15
    assert all(record.first_grad_norm > 0 for record in several)
    assert all(0 < record.first_loss_tokens < record.num_loss_tokens for record in several)
    (diagnosis,) = jinmaek.diagnose(trained / "first")
    assert diagnosis.limits.facts["held_out_change"] is not None
    assert diagnosis.limits.facts["prompt_loss"] > 0


LINE = "{{'loss': {loss}, 'learning_rate': {lr}, 'epoch': {epoch}}}\n"


@pytest.fixture
def logs(tmp_path):
    import numpy as np

    rng, paths = np.random.default_rng(0), []
    shared = 2 + rng.normal(0, 0.1, 60)
    for name, shift, length in (("a", 0.0, 1000), ("b", 0.1, 2000)):
        lines = [
            LINE.format(
                loss=round(loss + shift, 4), lr=1e-4 * (1 - 10 * (at + 1) / length), epoch=round((at + 1) / 1000, 2)
            )
            for at, loss in enumerate(shared)
        ]
        (tmp_path / f"{name}.log").write_text("".join(lines))
        paths.append(tmp_path / f"{name}.log")
    return paths


def test_pasted_logs_are_compared_by_the_steps_that_their_lr_tells(logs):
    done = run(*logs, "--equivalent")
    assert done.exit_code == 1
    assert "B is higher than A" in done.stdout
    assert "100 steps long in A and 200 in B" in " ".join(done.stdout.split())
    assert "not recorded by both" in " ".join(done.stdout.split())


def test_with_too_little_evidence_the_exit_code_says_so(logs, tmp_path):
    short = [tmp_path / "short-a.log", tmp_path / "short-b.log"]
    for path, log in zip(short, logs, strict=True):
        path.write_text("".join(log.read_text().splitlines(keepends=True)[:12]))
    assert run(*short, "--equivalent").exit_code == 3
    assert run(*short).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["--margin", "0.1"], "compare.margin_alone"),
        (["--equivalent", "--margin", "0"], "compare.bad_margin"),
        (["--equivalent", "--margin", "nan"], "compare.bad_margin"),
    ],
)
def test_a_margin_that_is_none_is_refused(logs, arguments, key):
    with pytest.raises(JinmaekError) as caught:
        run(*logs, *arguments)
    assert caught.value.problems[0].key == key


@pytest.mark.parametrize("lang", ["en", "ko"])
def test_no_line_is_wider_than_the_terminal(logs, lang, monkeypatch):
    from rich.console import Console

    monkeypatch.setenv("COLUMNS", "80")
    for line in run(*logs, lang=lang).stdout.splitlines():
        assert Console(width=999).measure(line).maximum <= 80 or ".log" in line
        assert line == line.rstrip()
