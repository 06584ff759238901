"""The same trials on a real Ray on this machine. Left out where Ray is not installed."""

import importlib.util
import json

import pytest

from jinmaek.core.errors import RunError
from jinmaek.lab.ray_engine import RayEngine
from jinmaek.lab.sweep_directory import SweepDirectory
from jinmaek.lab.trial import run_trial
from jinmaek.store import read_steps
from sweeps import Inline, design_of, run, write_recipe
from test_cli import jinmaek

pytestmark = pytest.mark.ray
HERE = importlib.util.find_spec("ray") is not None


def test_without_ray_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(RunError, match=r"jinmaek\[sweep\]"):
        RayEngine(None)


@pytest.mark.skipif(not HERE, reason="Ray is not installed: pip install jinmaek[sweep]")
def test_trials_on_ray_are_the_trials_here_to_the_bit(model_dir, pairs_file, tmp_path):
    recipe = write_recipe(tmp_path, model_dir, pairs_file, train__max_steps=4)
    vary = ["optim.lr=1e-3,1e-2", 'adapter.targets=["dense"],["nope"]']
    arguments = [argument for text in vary for argument in ("--vary", text)]
    done = jinmaek(
        "sweep", recipe, *arguments, "--engine", "ray", "--jobs", 2, "--out", "rayed", "--json", cwd=tmp_path
    )
    assert done.returncode == 3, done.stderr
    ends = [trial["outcome"]["status"] for trial in json.loads(done.stdout)["trials"]]
    assert ends == ["completed", "failed", "completed", "failed"]
    design = design_of(recipe, *vary)
    run(design, tmp_path / "here", Inline(lambda directory, trial: run_trial(directory.path, trial) and 0))

    def digests(name, trial):
        steps = SweepDirectory(tmp_path / name).run_path(trial) / "steps.jsonl"
        return [record.digest for record in read_steps(steps)]

    for trial in (1, 3):
        assert digests("rayed", trial) == digests("here", trial)
        assert len(digests("here", trial)) == 4
