"""`jinmaek sweep` as a user types it, its trials in processes of their own."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from jinmaek.lab.sweep_directory import SweepDirectory
from jinmaek.store import read_steps
from sweeps import write_recipe
from test_cli import jinmaek


@pytest.fixture
def recipe(model_dir, pairs_file, tmp_path):
    return write_recipe(tmp_path, model_dir, pairs_file, train__max_steps=40)


def test_the_plan_is_told_in_both_languages_without_torch(recipe, tmp_path):
    arguments = ["sweep", recipe, "optim.schedule=linear", "--vary", "train.max_steps=20,40", "--dry-run"]
    said = jinmaek(*arguments, cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    for part in (
        "2 arms × 1 seeds = 2 trials",
        "train.max_steps=40  (base)",
        "every lr changes",
        "--controlled",
        "One seed",
    ):
        assert part in said.stderr
    assert "조건 2개" in jinmaek(*arguments, lang="ko_KR.UTF-8", cwd=tmp_path).stderr
    planned = json.loads(jinmaek(*arguments, "--json", cwd=tmp_path).stdout)
    assert [trial["recipe"]["train"]["max_steps"] for trial in planned["trials"]] == [40, 20], "the base first"
    assert not (tmp_path / "runs").exists()
    program = "import sys; import jinmaek.cli.sweeping, jinmaek.cli.finding, jinmaek.cli.finding_batch; "
    check = program + "assert not {'torch', 'transformers', 'peft', 'datasets'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


BAD_INPUT = {
    "nothing varied": (["{recipe}"], "What is to be varied?"),
    "no recipe": (["--vary", "optim.lr=1,2"], "Which recipe?"),
    "misspelt key": (["{recipe}", "--vary", "optim.lrr=1,2"], "Did you mean optim.lr?"),
    "design": (["{recipe}", "--vary", "optim.lr=1,2", "--design", "random"], "only grid and one-factor"),
    "budget": (["{recipe}", "--vary", "optim.lr=1,2", "--budget", "soon"], "--budget soon"),
    "engine": (["{recipe}", "--vary", "optim.lr=1,2", "--engine", "slurm"], "only local and ray"),
    "resume and more": (["{recipe}", "--resume", "nowhere"], "leave out the recipe"),
    "resume of nothing": (["--resume", "nowhere"], "nowhere is no sweep"),
    "find": (["{recipe}", "--find", "rank"], "only lr and batch"),
    "steps without find": (["{recipe}", "--vary", "optim.lr=1,2", "--steps", "9"], "belong to --find lr"),
    "find and vary": (["{recipe}", "--find", "lr", "--vary", "optim.lr=1,2"], "leave out --vary"),
}


def test_bad_input_is_one_clear_message_and_exit_2(recipe, tmp_path):
    from typer.testing import CliRunner

    from jinmaek.cli.main import app
    from jinmaek.core.errors import JinmaekError

    for arguments, expected in BAD_INPUT.values():
        done = CliRunner().invoke(app, ["sweep", *(text.format(recipe=recipe) for text in arguments), "--out", str(tmp_path / "o")]
                                  if "--resume" not in arguments else ["sweep", *(text.format(recipe=recipe) for text in arguments)])  # fmt: skip
        assert isinstance(done.exception, JinmaekError), arguments
        assert expected in done.exception.render("en")
    assert not (tmp_path / "o").exists(), "nothing is left behind"


def wait_for(path, step, process):
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if len(read_steps(path / "steps.jsonl")) >= step:
            return
        time.sleep(0.005)
    raise AssertionError(f"step {step} never came; exit {process.poll()}: {process.stderr.read()}")


def test_ctrl_c_saves_resume_goes_on_and_a_killed_trial_stops_nothing(recipe, tmp_path):
    folder = tmp_path / "swept"
    directory = SweepDirectory(folder)
    command = [sys.executable, "-m", "jinmaek", "sweep", recipe, "--vary", "optim.lr=1e-5,1e-2", "--out", folder]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "LANG": "C.UTF-8"}
    with subprocess.Popen(map(str, command), env=environment, stderr=subprocess.PIPE, text=True) as process:
        wait_for(directory.run_path(1), 2, process)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert f"jinmaek sweep --resume {folder}" in said
    assert "Traceback" not in said
    kept = directory.outcome(1)
    assert kept.status == "interrupted"
    assert 2 <= kept.steps < 40

    command = [sys.executable, "-m", "jinmaek", "sweep", "--resume", folder, "--json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(map(str, command), env=environment, **pipes) as process:
        wait_for(directory.run_path(2), 2, process)
        [trial] = [pid for pid, parent in children() if parent == process.pid]
        os.kill(trial, signal.SIGKILL)
        out, said = process.communicate(timeout=60)
    assert process.returncode == 3, said
    assert "goes on from its checkpoint" in said
    result = json.loads(out)
    first, second = (trial["outcome"] for trial in result["trials"])
    assert (first["status"], first["steps"]) == ("completed", 40)
    assert (second["status"], result["end"]) == ("failed", "done")
    assert "killed from outside" in second["error"]["en"]
    assert len(read_steps(directory.run_path(1) / "steps.jsonl")) == 40


def children():
    """Process ids with their parents'."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    return [tuple(map(int, line.split())) for line in listed.splitlines()]
