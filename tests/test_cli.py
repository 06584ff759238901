"""The commands as a user types them: what is printed where, and the exit codes."""

import json
import os
import subprocess
import sys

import pytest


def jinmaek(*arguments, lang="en_US.UTF-8", cwd=None):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LC_")}
    environment |= {"LANG": lang, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "jinmaek", *map(str, arguments)],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def recipe_file(model_dir, pairs_file, tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(
        f'[model]\nname = "{model_dir}"\nquantization = "none"\n[data]\nsource = "{pairs_file}"\n'
        "[train]\nprecision = 'fp32'\nmax_steps = 4\nbatch_size = 4\nlog_every = 2\n"
        '[samples]\nquestions = ["하늘은 무엇인가요?"]\nmax_new_tokens = 4\n',
        "utf-8",
    )
    return path


def test_train_tells_how_it_goes_and_where_the_adapter_is(recipe_file, tmp_path):
    done = jinmaek("train", recipe_file, "--run-dir", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "", "standard output is for --json"
    for part in ("4/4", "tok/s", "left", "Held-out loss", "before:", "after:", f"Adapter: {tmp_path}/run/adapter"):
        assert part in done.stderr
    assert "Every step updated the weights." in done.stderr
    for noise in ("Warning", "warning", "Traceback", "it/s"):
        assert noise not in done.stderr


def test_train_in_korean(recipe_file, tmp_path):
    done = jinmaek("train", recipe_file, "--run-dir", tmp_path / "run", lang="ko_KR.UTF-8")
    assert done.returncode == 0, done.stderr
    assert "학습을 마쳤습니다" in done.stderr
    assert "남은 시간" in done.stderr


def test_json_result_is_strict_json(recipe_file, tmp_path):
    done = jinmaek("train", recipe_file, "train.max_steps=2", "--run-dir", tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["end"], result["num_steps"], result["num_updates"]) == ("completed", 2, 2)
    assert result["held_out_after"] < result["held_out_before"]
    said = jinmaek("ask", tmp_path / "run", "하늘은 무엇인가요?", "--max-new-tokens", "4", "--json")
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout)["after"] == result["samples"][0]["after"]


def test_runs_go_to_the_runs_folder_by_default(recipe_file, tmp_path):
    done = jinmaek("train", recipe_file, "train.max_steps=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [run] = (tmp_path / "runs").iterdir()
    assert run.name.startswith("small-")


def test_a_run_that_learns_nothing_exits_with_3(recipe_file, tmp_path):
    done = jinmaek(
        "train", recipe_file, "train.precision=fp16", "train.loss_scale_init=1e30", "--run-dir", tmp_path / "run"
    )
    assert done.returncode == 3
    assert "step 1: fp16 overflow at loss scale 1e+30" in done.stderr
    assert "nothing was learnt" in done.stderr


BAD_INPUT = {
    "unknown recipe": (["quikstart"], "No recipe 'quikstart'"),
    "no recipe": ([], "Which recipe?"),
    "unknown key": (["{recipe}", "adapter.rnk=4"], "Did you mean adapter.rank?"),
    "key without effect": (["{recipe}", "model.double_quant=true"], "model.double_quant would have no effect"),
    "missing file": (["{recipe}", "data.source=nowhere.jsonl"], "No file nowhere.jsonl"),
    "column not found": (["{recipe}", "data.question_column=Frage"], "The data has: question, answer"),
    "target that matches nothing": (["{recipe}", "adapter.targets=['q_proj']"], "no module is called q_proj"),
    "model that is not there": (["{recipe}", "model.name=./nowhere"], "./nowhere cannot be loaded"),
    "resume of nothing": (["--resume", "nowhere"], "nowhere is no run directory"),
    "resume with a recipe": (["{recipe}", "--resume", "nowhere"], "leave out the recipe"),
    "language": (["{recipe}", "--lang", "fr"], "only ko and en"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_clear_message_and_exit_2(case, recipe_file, tmp_path):
    arguments, expected = BAD_INPUT[case]
    done = jinmaek("train", *(text.format(recipe=recipe_file) for text in arguments), cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert expected in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists(), "nothing is left behind"


def test_broken_json_names_its_line(recipe_file, tmp_path):
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"question": "가", "answer": "나"}\n{"question": "다"\n', "utf-8")
    done = jinmaek("train", recipe_file, f"data.source={broken}", cwd=tmp_path, lang="ko_KR.UTF-8")
    assert done.returncode == 2
    assert f"{broken} 2번째 줄" in done.stderr


def test_recipes_are_listed_and_shown_in_well_under_a_second_without_torch():
    program = "import sys; from jinmaek.cli.main import app; app(['recipes'], standalone_mode=False)"
    check = f"{program}; assert not {{'torch', 'transformers', 'peft', 'datasets'}} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "koalpaca-polyglot-12.8b" in done.stdout
    listed = json.loads(jinmaek("recipes", "--json").stdout)
    for name in listed:
        shown = jinmaek("recipes", "show", name)
        assert shown.returncode == 0
        assert "[model]" in shown.stdout


def test_help_speaks_the_locale():
    assert "미세조정" in jinmaek("train", "--help", lang="ko_KR.UTF-8").stdout
    assert "Fine-tune" in jinmaek("train", "--help").stdout
    assert "미세조정" in jinmaek("train", "--help", "--lang", "ko").stdout
