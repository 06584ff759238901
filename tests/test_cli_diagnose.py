"""`jinmaek diagnose` and `jinmaek rules` as a user types them."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

import jinmaek.cli.diagnosis
from jinmaek.cli.main import app
from jinmaek.core.errors import LogError
from jinmaek.core.record import RunFacts, StepRecord

LINE = "{{'loss': {loss}, 'learning_rate': {lr}, 'epoch': 0.1}}\n"


class FakeSource:
    def __init__(self, name, losses, broken=False):
        self.name = name
        self.facts = RunFacts(source="fake")
        self.unread = 0
        self._losses = losses
        self._broken = broken

    def items(self):
        for step, loss in enumerate(self._losses, 1):
            yield StepRecord(step=step, loss=loss, lr=1e-4 * (1 - step / 1000))
        if self._broken:
            raise LogError("ingest.read_twice")


GOOD = [2.0 - 0.01 * step + 0.05 * (-1) ** step for step in range(30)]
BAD = [*GOOD, *[float("nan")] * 10]


@pytest.fixture
def logs(monkeypatch):
    """Path -> sources; a path that is not there cannot be read."""
    known = {
        "good": [FakeSource("good", GOOD)],
        "bad": [FakeSource("bad", BAD)],
        "both": [FakeSource("a", GOOD), FakeSource("b", BAD)],
        "torn": [FakeSource("torn", GOOD, broken=True)],
    }

    def find(path):
        if path == "forbidden":
            raise PermissionError(13, "Permission denied")
        if path not in known:
            raise LogError("ingest.missing", path=path)
        return known[path]

    monkeypatch.setattr(jinmaek.cli.diagnosis, "find_logs", find)


def run(*arguments):
    return CliRunner().invoke(app, [*arguments, "--lang", "en"], catch_exceptions=False)


@pytest.mark.parametrize(("paths", "code"), [(["good"], 0), (["bad"], 1), (["both"], 1), (["good", "bad"], 1)])
def test_the_exit_code_says_whether_something_was_found(logs, paths, code):
    done = run("diagnose", *paths)
    assert done.exit_code == code
    assert done.stderr == "", "no bar where nobody looks"


@pytest.mark.parametrize("broken", ["nowhere", "forbidden", "torn"])
def test_a_path_that_cannot_be_read_stops_no_other(logs, broken):
    done = run("diagnose", broken, "bad", "good")
    assert done.exit_code == 2
    assert done.stderr.startswith("Error: ")
    assert "Something is wrong since step 31" in done.stdout
    assert "Nothing wrong found." in done.stdout


def test_several_runs_are_told_one_after_the_other(logs):
    text = run("diagnose", "both", "good").stdout
    assert [line for line in text.splitlines() if line in ("a", "b", "good")] == ["a", "b", "good"]
    rows = [json.loads(line) for line in run("diagnose", "both", "good", "--json").stdout.splitlines()]
    assert [(row["source"], row["verdict"]) for row in rows] == [("a", "healthy"), ("b", "faulty"), ("good", "healthy")]
    assert run("diagnose", "both", "--markdown").stdout.count("# Diagnosis of ") == 2


def test_all_tells_every_rule(logs):
    assert "gradient-sentinel" in run("diagnose", "good", "--all").stdout
    assert "gradient-sentinel" not in run("diagnose", "good").stdout


def test_json_and_markdown_exclude_each_other(logs):
    done = CliRunner().invoke(app, ["diagnose", "good", "--json", "--markdown"])
    assert "exclude each other" in str(done.exception)


def test_the_bar_comes_only_when_reading_takes_long(logs, monkeypatch):
    seen = []
    monkeypatch.setattr(jinmaek.cli.diagnosis, "PATIENCE_SECONDS", 0.0)
    monkeypatch.setattr(jinmaek.cli.diagnosis.Progress, "start", lambda self: seen.append("start"))
    console = jinmaek.cli.diagnosis.Console(force_terminal=True, stderr=True)
    with jinmaek.cli.diagnosis.patience(console, "log", "en") as progress:
        progress(4096)
    monkeypatch.setattr(jinmaek.cli.diagnosis, "PATIENCE_SECONDS", 60.0)
    with jinmaek.cli.diagnosis.patience(console, "log", "en"):
        pass
    assert len(seen) <= 1


def test_rules_are_listed_and_explained():
    listed = run("rules")
    assert listed.exit_code == 0
    assert "zero-loss" in listed.stdout
    page = run("rules", "zero-loss")
    assert page.stdout.startswith("# zero-loss\n")
    assert "nan-masked-scaler-skip" in page.stdout
    korean = CliRunner().invoke(app, ["rules", "zero-loss", "--lang", "ko"])
    assert "가려진 NaN" in korean.stdout


@pytest.mark.parametrize(("typed", "meant"), [("zero-los", "zero-loss"), ("constant-bach", "constant-batch")])
def test_a_misspelt_rule_is_told_with_the_nearest_one(typed, meant):
    done = CliRunner().invoke(app, ["rules", typed])
    assert f"Did you mean '{meant}'?" in str(done.exception)


def test_the_id_of_a_pathology_leads_to_its_rule():
    done = CliRunner().invoke(app, ["rules", "nan-masked-scaler-skip"])
    assert "Did you mean 'zero-loss'?" in str(done.exception)


def test_a_real_log_is_diagnosed_without_torch(tmp_path):
    log = tmp_path / "log.txt"
    good = [LINE.format(loss=1.9 + 0.01 * (step % 5), lr=1e-4 - 2e-7 * step) for step in range(1, 30)]
    log.write_text("".join([*good, *[LINE.format(loss=0.0, lr=1e-4 - 2e-7 * 29)] * 5]), "utf-8")
    heavy = "{'torch', 'transformers', 'peft', 'datasets', 'bitsandbytes', 'numpy'}"
    program = f"""
import sys
from jinmaek.cli.main import app
code = app(['diagnose', {str(log)!r}, '--lang', 'en'], standalone_mode=False)
assert not {heavy} & set(sys.modules), {heavy} & set(sys.modules)
sys.exit(code)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "masked NaN" in done.stdout
    assert "Weights: intact." in done.stdout
