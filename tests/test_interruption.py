"""kill -9 and Ctrl-C, on a real process."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

import jinmaek
from jinmaek.store import read_steps

STEPS = 30


@pytest.fixture
def recipe_file(model_dir, pairs_file, tmp_path):
    path = tmp_path / "small.toml"
    path.write_text(
        f"""
[model]
name = "{model_dir}"
quantization = "nf4"
[adapter]
rank = 4
dropout = 0.1
[data]
source = "{pairs_file}"
[train]
precision = "bf16"
max_steps = {STEPS}
batch_size = 2
checkpoint_every = 4
log_every = 1
[optim]
lr = 1e-3
""",
        "utf-8",
    )
    return path


def start(recipe_file, run):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "LANG": "C.UTF-8"}
    command = [sys.executable, "-m", "jinmaek", "train", str(recipe_file), "--run-dir", str(run)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_step(process, run, step):
    """Wait until ``step`` stands in the records."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if len(read_steps(run / "steps.jsonl")) >= step:
            return
        time.sleep(0.002)
    raise AssertionError(f"step {step} never came; exit {process.poll()}: {process.stderr.read()}")


def facts(run):
    return [(record.step, record.digest, record.update_ratio) for record in read_steps(run / "steps.jsonl")]


def test_kill_9_at_a_random_step_loses_nothing(recipe_file, tmp_path):
    whole = jinmaek.train(recipe_file, run_dir=tmp_path / "whole")
    step = random.Random().randint(1, STEPS - 3)
    with start(recipe_file, tmp_path / "killed") as process:
        wait_for_step(process, tmp_path / "killed", step)
        process.send_signal(signal.SIGKILL)
    with (tmp_path / "killed" / "steps.jsonl").open(encoding="utf-8") as file:
        lines = [json.loads(line) for line in file if line.endswith("\n")]
    assert len(lines) >= step, f"killed after step {step}"
    resumed = jinmaek.resume(tmp_path / "killed")
    assert facts(resumed.path) == facts(whole.path), f"killed after step {step}"
    assert (resumed.adapter / "adapter_model.safetensors").read_bytes() == (
        whole.adapter / "adapter_model.safetensors"
    ).read_bytes()


def test_ctrl_c_saves_and_says_how_to_go_on(recipe_file, tmp_path):
    run = tmp_path / "run"
    with start(recipe_file, run) as process:
        wait_for_step(process, run, 3)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert f"jinmaek train --resume {run}" in said
    assert "Traceback" not in said
    stopped = len(read_steps(run / "steps.jsonl"))
    assert 3 <= stopped < STEPS
    assert jinmaek.resume(run).num_steps == STEPS
