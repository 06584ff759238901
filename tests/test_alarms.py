"""The rules beside a running training: what they tell, when, and that a log of the run says the same."""

import json

import jinmaek
from jinmaek.core.record import RunFacts, StepRecord
from jinmaek.pulse.alarms import Alarms
from jinmaek.store import RunDirectory

HOT = {"optim": {"lr": 0.3, "schedule": "constant"}, "train": {"max_steps": 40, "checkpoint_every": 10}}


class Watcher(jinmaek.RunListener):
    """Keeps the findings with the step at which they were told."""

    def __init__(self, stop_after=None):
        self.stop_after = stop_after
        self.step = 0
        self.told = []

    def on_step(self, record):
        self.step = record.step

    def on_finding(self, finding):
        self.told.append((self.step, finding))

    def interrupted(self):
        return self.stop_after is not None and self.step >= self.stop_after


def train(recipe, path, watcher):
    return jinmaek.train(recipe, run_dir=path, listener=watcher, interrupted=watcher.interrupted)


def findings_on_disk(run):
    return [
        (event["id"], event["first_step"], event["confidence"]) for event in RunDirectory(run).read_events("finding")
    ]


def test_a_divergence_is_told_while_it_happens_and_kept_on_disk(make_recipe, tmp_path):
    watcher = Watcher()
    result = train(make_recipe(**HOT), tmp_path / "run", watcher)
    step, first = watcher.told[0]
    assert first.id == "lr-too-high-divergence"
    assert first.first_step <= step < 20
    assert findings_on_disk(result.path) == [(each.id, each.first_step, each.confidence) for _, each in watcher.told]
    assert result.diagnosis.verdict == "faulty"
    assert json.loads(json.dumps(result.as_dict()))["causes"][0] == "lr-too-high-divergence"


def test_the_log_of_a_run_says_what_its_alarms_said(make_recipe, tmp_path):
    result = train(make_recipe(**HOT), tmp_path / "run", Watcher())
    (read,) = jinmaek.diagnose(result.path)
    assert read == result.diagnosis


def test_a_healthy_run_raises_no_alarm(make_recipe, tmp_path):
    watcher = Watcher()
    result = train(make_recipe(train={"max_steps": 30, "eval_every": 10}), tmp_path / "run", watcher)
    assert watcher.told == []
    assert result.diagnosis.verdict == "healthy"
    assert result.diagnosis.causes == ()


def test_a_resumed_run_remembers_what_was_told(make_recipe, tmp_path):
    first = Watcher(stop_after=25)
    stopped = train(make_recipe(**HOT), tmp_path / "run", first)
    assert stopped.end == "interrupted"
    again = Watcher()
    whole = jinmaek.resume(tmp_path / "run", listener=again)
    assert {each.id for _, each in first.told} == {"lr-too-high-divergence"}
    assert again.told == []
    unbroken = train(make_recipe(**HOT), tmp_path / "other", Watcher())
    assert whole.diagnosis.causes == unbroken.diagnosis.causes


def test_a_finding_is_told_again_only_when_it_grows_surer():
    def step(number, loss, lr):
        return StepRecord(step=number * 10, num_steps=10, loss_reported=loss, lr=lr)

    alarms = Alarms(RunFacts(source="trainer_state", filters_loss=True, max_steps=2000))
    lines = [(2.0, 1e-4 * (1 - number / 200)) for number in range(1, 20)]
    lines += [(0.0, lines[-1][1])] * 30
    told = [finding for number, (loss, lr) in enumerate(lines, 1) for finding in alarms.observe(step(number, loss, lr))]
    assert [(each.id, each.confidence) for each in told] == [
        ("nan-masked-scaler-skip", "likely"),
        ("nan-masked-scaler-skip", "established"),
    ]
