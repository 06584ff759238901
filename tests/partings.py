"""Small runs to hold against each other, and what is looked at of the answer."""

import io
import json
import re

import torch
from rich.console import Console

import jinmaek
from jinmaek.explain import tell_parting
from jinmaek.replay.against import AgainstListener
from jinmaek.report import parting_json, print_parting

STEPS = 6


class Probe(jinmaek.RunListener):
    """Moves one adapter weight behind everybody's back, once the record of a step is told."""

    def __init__(self, change_after=None):
        self.change_after = change_after

    def on_ready(self, session, path):
        self.session = session

    def on_step(self, record):
        if record.step == self.change_after:
            with torch.no_grad():
                next(iter(self.session.training.params.values())).view(-1)[0] += 0.5


class Notes(AgainstListener):
    """Keeps what it is told."""

    def __init__(self):
        self.phases, self.steps, self.explanations = [], [], []

    def on_phase(self, phase):
        self.phases.append(phase)

    def on_step(self, step):
        self.steps.append(step)

    def on_explanation(self, explanation):
        self.explanations.append(explanation)


def outcomes(parting):
    return {each.name: each.outcome for each in parting.explained_by}


def where(parting):
    return parting.place.step, parting.place.kind, parting.place.name


def check_told(parting):
    """Every way to say it, in both languages, without a hole."""
    shown = {}
    for lang in ("en", "ko"):
        json.dumps(parting_json(parting, lang), allow_nan=False)
        file = io.StringIO()
        print_parting(tell_parting(parting, lang), Console(file=file, width=100))
        shown[lang] = file.getvalue()
        assert "None" not in shown[lang]
        assert "{" not in shown[lang]
    assert not re.search("[가-힣]", shown["en"])
    assert re.search("[가-힣]", shown["ko"])
    return shown


def trainer(make_recipe, tmp_path):
    """A function that trains the small recipe with changes, and returns the run's directory."""

    def run(name, probe=None, **sections):
        train = {"max_steps": STEPS, "checkpoint_every": 3} | sections.pop("train", {})
        recipe = make_recipe(train=train, **sections)
        return jinmaek.train(recipe, run_dir=tmp_path / name, listener=probe).path

    return run
