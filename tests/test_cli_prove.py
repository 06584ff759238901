"""``jinmaek prove`` as a user types it: what is printed where, what is written, and the exit codes."""

import json
import math
import re
import shutil
import sys
from subprocess import CompletedProcess

import pytest
import torch

import jinmaek
from jinmaek.cli import main
from jinmaek.cli.proof import EXIT_CODES, PARTING_EXIT_CODES
from jinmaek.replay import ProofListener
from jinmaek.store import RunDirectory
from test_cli import jinmaek as in_its_own_process


@pytest.fixture(scope="module")
def broken_model(model_dir, tmp_path_factory):
    """The small model with one number of its output layer that is none."""
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("broken") / "model"
    shutil.copytree(model_dir, folder)
    weights = load_file(folder / "model.safetensors")
    weights["embed_out.weight" if "embed_out.weight" in weights else "lm_head.weight"][3, 5] = torch.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def runs(model_dir, broken_model, pairs_file, tmp_path_factory):
    """A healthy run, its repetition, one with another lr, one on the broken model."""
    from jinmaek.config import recipe_from_dict

    folder = tmp_path_factory.mktemp("runs")

    def run(name, model=model_dir, lr=1e-3):
        recipe = recipe_from_dict(
            {
                "model": {"name": str(model), "quantization": "none", "activation_checkpointing": False},
                "adapter": {"rank": 4},
                "data": {"source": str(pairs_file), "held_out": 0},
                "train": {"precision": "fp32", "max_steps": 5, "batch_size": 2, "checkpoint_every": 0},
                "optim": {"lr": lr},
                "capture": {"every": 2},
            }
        )
        jinmaek.train(recipe, run_dir=folder / name)
        return folder / name

    return {
        "healthy": run("healthy"),
        "again": run("again"),
        "lr": run("lr", lr=2e-3),
        "broken": run("broken", broken_model),
    }


@pytest.fixture
def run_of(runs, tmp_path):
    """A copy of a run, to write into."""

    def copy(name):
        shutil.copytree(runs[name], tmp_path / name)
        return tmp_path / name

    return copy


@pytest.fixture
def command(monkeypatch, capsys):
    """The command within this process: torch is there already."""
    from transformers.utils import logging

    before = logging.get_verbosity()

    def call(*arguments, lang="en"):
        monkeypatch.setattr(sys, "argv", ["jinmaek", *map(str, arguments)])
        monkeypatch.setattr(main, "_LANG", lang)
        monkeypatch.setenv("COLUMNS", "200")
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main.run()
        return CompletedProcess(sys.argv, ended.value.code or 0, *capsys.readouterr())

    yield call
    logging.set_verbosity(before)
    logging.enable_progress_bar()


def check_said(done, code):
    """The exit code, and nothing that a user cannot read."""
    assert done.returncode == code, done.stderr
    for noise in ("Traceback", "Warning", "it/s"):
        assert noise not in done.stderr


def test_a_cause_that_is_shown_exits_with_1_and_is_kept(run_of):
    run = run_of("broken")
    done = in_its_own_process("prove", run)
    check_said(done, 1)
    assert "Step 1" in done.stdout
    assert "lm_head" in done.stdout or "embed_out" in done.stdout
    for trial in ("fresh adapter: fails", ".weight mended: healthy"):
        assert trial in done.stderr
    kept = json.loads((run / "captures" / "verdict-00000001.json").read_text("utf-8"))
    assert (kept["step"], kept["symptom"], kept["outcome"]) == (1, "loss_not_finite", "CONFIRMED")
    shown = [cause["id"] for cause in kept["causes"] if cause["status"] == "confirmed"]
    assert "bad_weight" in shown
    (event,) = RunDirectory.open(run).read_events("verdict")
    assert (event["step"], event["outcome"], event["causes"]) == (1, "CONFIRMED", shown)
    assert json.loads((run / event["path"]).read_text("utf-8")) == kept


def test_progress_goes_to_standard_error_and_the_verdict_to_standard_output(run_of):
    done = in_its_own_process("prove", run_of("healthy"), "--step", "3")
    check_said(done, 0)
    assert re.search(r"\(\d+ s\)", done.stderr), "each phase with its time"
    assert not re.search(r"\(\d+ s\)", done.stdout)
    assert "…" in done.stderr
    assert "to the bit" in done.stdout
    assert "to the bit" not in done.stderr
    for escape in ("\x1b", "\r"):
        assert escape not in done.stdout + done.stderr


def test_json_is_one_strict_object(run_of, command):
    run = run_of("broken")
    done = command("prove", run, "--json")
    check_said(done, 1)
    row = json.loads(done.stdout, parse_constant=pytest.fail)
    assert done.stdout.count("\n") == 1
    assert (row["outcome"], row["recorded"]["loss"], row["told"]["lang"]) == ("CONFIRMED", "NaN", "en")
    assert row["jinmaek"]
    assert row["told"]["headline"]
    kept = json.loads((run / "captures" / "verdict-00000001.json").read_text("utf-8"))
    assert {name: row[name] for name in kept} == kept


def test_markdown(run_of, command):
    done = command("prove", run_of("broken"), "--markdown")
    check_said(done, 1)
    assert done.stdout.startswith("# ")
    assert "(`bad_weight`)" in done.stdout
    assert done.stdout.count("\n| ") > 5


def test_in_korean(run_of):
    done = in_its_own_process("prove", run_of("healthy"), "--step", "4", lang="ko_KR.UTF-8")
    check_said(done, 0)
    assert "4단계" in done.stdout
    assert re.search("[가-힣]", done.stderr)
    assert "Starting" not in done.stderr


@pytest.mark.parametrize("arguments", [(), ("--json",), ("--markdown",)])
def test_the_language_asked_for_goes_before_the_locale(run_of, command, arguments):
    run = run_of("healthy")
    done = command("prove", run, "--step", "4", "--lang", "ko", *arguments)
    check_said(done, 0)
    assert "4단계" in done.stdout
    assert re.search("[가-힣]", done.stderr)
    other = command("prove", run, "--step", "4", "--lang=en", *arguments, lang="ko")
    check_said(other, 0)
    assert not re.search("[가-힣]", other.stdout + other.stderr)


def test_a_step_that_is_not_reproduced_exits_with_3(run_of, command):
    run = run_of("healthy")
    steps = run / "steps.jsonl"
    rows = [json.loads(line) for line in steps.read_text("utf-8").splitlines()]
    rows[3]["digest"] = "0" * 16
    steps.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    done = command("prove", run, "--step", "4")
    check_said(done, 3)
    assert "step 4" in done.stdout.lower()
    (event,) = RunDirectory.open(run).read_events("verdict")
    assert (event["outcome"], event["causes"]) == ("NOT_REPRODUCED", [])


def test_every_outcome_has_its_exit_code():
    assert EXIT_CODES == {"REFUTED": 0, "CONFIRMED": 1, "INCONCLUSIVE": 3, "NOT_REPRODUCED": 3}
    assert PARTING_EXIT_CODES == {"ALIKE": 0, "EXPLAINED": 1, "PARTED": 3, "NOT_REPRODUCED": 3}


BAD_INPUT = {
    "no such run": (["nowhere"], "nowhere is no run directory"),
    "no such other run": (["{healthy}", "--against", "nowhere"], "nowhere is no run directory"),
    "no such step": (["{healthy}", "--step", "6"], "Step 6 is not in the record, which goes from 1 to 5"),
    "step 0": (["{healthy}", "--step", "0"], "--step"),
    "nothing is wrong": (["{healthy}"], "Nothing in the record failed"),
    "two forms": (["{healthy}", "--json", "--markdown"], "--json"),
    "a step of two runs": (["{healthy}", "--against", "{again}", "--step", "1"], "--against"),
    "two runs as Markdown": (["{healthy}", "--against", "{again}", "--markdown"], "--against"),
    "against itself": (["{healthy}", "--against", "{healthy}"], "against itself"),
    "language": (["{healthy}", "--lang", "fr"], "only ko and en"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_is_one_clear_message_and_exit_2(runs, command, case):
    arguments, expected = BAD_INPUT[case]
    before = (runs["healthy"] / "events.jsonl").read_text("utf-8")
    done = command("prove", *(text.format(**runs) for text in arguments))
    check_said(done, 2)
    assert expected in done.stderr
    assert done.stdout == ""
    assert (runs["healthy"] / "events.jsonl").read_text("utf-8") == before
    assert not list((runs["healthy"] / "captures").glob("verdict-*"))


def test_a_run_against_its_repetition_exits_with_0(runs, command):
    done = command("prove", runs["healthy"], "--against", runs["again"])
    check_said(done, 0)
    assert done.stdout.strip()
    row = json.loads(command("prove", runs["healthy"], "--against", runs["again"], "--json").stdout)
    assert (row["outcome"], row["num_common_steps"], row["first_step"]) == ("ALIKE", 5, None)


def test_a_run_against_one_with_another_lr_exits_with_1(runs):
    done = in_its_own_process("prove", runs["lr"], "--against", runs["healthy"], "--json", lang="ko_KR.UTF-8")
    check_said(done, 1)
    row = json.loads(done.stdout, parse_constant=pytest.fail)
    assert (row["outcome"], row["first_step"]) == ("EXPLAINED", 2)
    assert [(each["name"], each["outcome"]) for each in row["explained_by"]] == [("optim.lr", "explains")]
    assert "optim.lr" in done.stderr
    assert re.search("[가-힣]", json.dumps(row["told"], ensure_ascii=False))


class Notes(ProofListener):
    def __init__(self):
        self.phases, self.steps, self.trials = [], [], []

    def on_phase(self, phase):
        self.phases.append(phase)

    def on_step(self, step):
        self.steps.append(step)

    def on_trial(self, trial):
        self.trials.append(trial)


def test_the_function_says_what_the_command_says(run_of):
    notes, run = Notes(), run_of("broken")
    verdict = jinmaek.prove(run, listener=notes)
    assert isinstance(verdict, jinmaek.Verdict)
    assert (verdict.step, verdict.outcome, verdict.symptom) == (1, "CONFIRMED", "loss_not_finite")
    assert math.isnan(verdict.recorded["loss"])
    assert verdict.location.weight == next(
        cause.facts["weight"] for cause in verdict.confirmed() if cause.id == "bad_weight"
    )
    assert notes.steps == [1]
    assert notes.phases == ["loading_model", "control", "locating", "arms"]
    assert tuple(notes.trials) == verdict.trials
    assert json.loads((run / "captures" / "verdict-00000001.json").read_text("utf-8")) == verdict.as_dict()


def test_a_second_verdict_of_a_step_replaces_the_first_and_is_noted_too(run_of):
    run = run_of("healthy")
    one, two = jinmaek.prove(run, step=2), jinmaek.prove(str(run), step=2)
    assert one.as_dict() | {"seconds": 0, "trials": []} == two.as_dict() | {"seconds": 0, "trials": []}
    assert [path.name for path in (run / "captures").glob("verdict-*")] == ["verdict-00000002.json"]
    assert len(RunDirectory.open(run).read_events("verdict")) == 2


def test_ctrl_c_keeps_what_was_tried(run_of):
    """The first trial after the control is interrupted: a verdict is there all the same."""
    from jinmaek.replay import ProofListener

    class Interrupts(ProofListener):
        def on_trial(self, trial):
            if trial.family != "control":
                raise KeyboardInterrupt

    run = run_of("broken")
    verdict = jinmaek.prove(run, listener=Interrupts())
    assert verdict.interrupted is True
    assert verdict.trials[0].arm == "control"
    assert len(verdict.trials) == 2
    assert (run / f"captures/verdict-{verdict.step:08d}.json").is_file()
