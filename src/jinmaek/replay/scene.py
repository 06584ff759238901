"""A run, built up again as it was, ready to be taken to any of its steps as often as needed."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from jinmaek.config import recipe_from_dict
from jinmaek.core.errors import RunError
from jinmaek.core.record import StepRecord
from jinmaek.core.verdict import Difference
from jinmaek.store import RunDirectory, read_steps
from jinmaek.training.batches import Batch
from jinmaek.training.capture_file import list_captures, read_capture, step_of
from jinmaek.training.captures import KEPT
from jinmaek.training.checkpoint import list_checkpoints, read_checkpoint
from jinmaek.training.determinism import repeatable
from jinmaek.training.manifest import make_manifest
from jinmaek.training.model import choose_device
from jinmaek.training.session import Session, load_session_data, make_session
from jinmaek.training.state import State, StateCopy, bring_to, state_of
from jinmaek.training.step import Training, measure_step, run_step


@dataclass(frozen=True, slots=True)
class Start:
    """A state to replay from: the one after ``step``; 0 is the fresh adapter."""

    step: int
    kind: Literal["fresh", "capture", "checkpoint"]
    path: Path | None = None


@dataclass(slots=True)
class Scene:
    """A recorded run and a session that can repeat it.

    ``fresh`` is the state before step 1, on the host; ``differences`` is what is not as it was when recorded.
    """

    directory: RunDirectory
    manifest: Mapping[str, Any]
    session: Session
    records: Mapping[int, StepRecord]
    resumed: tuple[int, ...]
    fresh: State
    differences: tuple[Difference, ...]
    _states: dict[Start, State] = field(default_factory=dict)

    @property
    def training(self) -> Training:
        """What steps run on."""
        return self.session.training

    @property
    def step_seconds(self) -> float:
        """How long a step took when it was recorded (median)."""
        seconds = [record.seconds for record in self.records.values() if record.seconds]
        return statistics.median(seconds) if seconds else 0.0

    def starts(self, before: int) -> list[Start]:
        """States after steps earlier than ``before``, oldest first; of two of one step the snapshot."""
        found = {0: Start(0, "fresh")}
        for path in list_checkpoints(self.directory.checkpoints_path):
            step = int(path.name.removeprefix("step-"))
            found[step] = Start(step, "checkpoint", path)
        for folder in (self.directory.captures_path / KEPT, self.directory.captures_path):
            for path in list_captures(folder):
                found[step_of(path)] = Start(step_of(path), "capture", path)
        return [found[step] for step in sorted(found) if step < before]

    def state(self, start: Start) -> State:
        """The state of ``start``, on the host; it is read once.

        Raises:
            RunError: its file cannot be read.
        """
        if start not in self._states:
            if start.path is None:
                self._states[start] = self.fresh
            elif start.kind == "capture":
                self._states[start] = read_capture(start.path)
            else:
                self._states[start] = read_checkpoint(self.training, start.path)
        return self._states[start]

    def batches(self, step: int) -> list[Batch]:
        """The tensors of step ``step``, as it was trained on."""
        return self.session.plan.batches(step)

    def replay(self, state: State, last: int) -> Iterator[StepRecord]:
        """Steps from ``state`` up to ``last``, exactly as the training ran them."""
        bring_to(self.training, state)
        yield from self.go_on(int(state["step"]) + 1, last)

    def go_on(self, first: int, last: int) -> Iterator[StepRecord]:
        """Steps ``first`` … ``last`` from the present state."""
        self.training.model.train()
        for step in range(first, last + 1):
            yield run_step(self.training, step, self.batches(step)).record()

    def copy_state(self, step: int) -> State:
        """The present state, on the host, as the one after ``step``."""
        return StateCopy(state_of(self.training, step)).wait()

    def measure(self, state: State, step: int, batches: Sequence[Batch] | None = None) -> StepRecord:
        """Step ``step`` on the weights of ``state``, forward and backward, without an update."""
        training = self.training
        training.model.train()
        with torch.no_grad():
            for name, weight in training.params.items():
                weight.copy_(state["weights"][name])
        if training.loss_scale is not None and state["loss_scale"] is not None:
            training.loss_scale.load_state_dict(state["loss_scale"])
        return measure_step(training, step, self.batches(step) if batches is None else batches).record()

    def update(self, state: State, step: int) -> StepRecord:
        """Step ``step`` from ``state`` with its update."""
        bring_to(self.training, state)
        self.training.model.train()
        return run_step(self.training, step, self.batches(step)).record()


@contextmanager
def opened(run_dir: Path, base: Any = None) -> Iterator[Scene]:
    """The run in ``run_dir``, built up from its manifest; within, kernels are as the run had them.

    ``base`` saves loading the model (:func:`jinmaek.training.session.make_session`).

    Raises:
        RunError: no such run, or it cannot be read.
        JinmaekError: its data or model cannot be loaded any more.
    """
    directory = RunDirectory.open(run_dir)
    manifest = directory.read_manifest()
    if not directory.steps_path.exists():
        raise RunError("prove.no_steps", path=run_dir)
    recipe = recipe_from_dict(manifest["recipe"])
    with repeatable(recipe.train.deterministic, choose_device()) as determinism:
        session = make_session(recipe, load_session_data(recipe), base)
        # Now, before a step runs: 4-bit layers cast their biases in their first forward pass.
        changed = _differences(manifest, session, determinism)
        yield Scene(
            directory=directory,
            manifest=manifest,
            session=session,
            records={record.step: record for record in read_steps(directory.steps_path)},
            resumed=tuple(event["step"] for event in directory.read_events("resumed")),
            fresh=StateCopy(state_of(session.training, 0)).wait(),
            differences=changed,
        )


def _differences(manifest: Mapping[str, Any], session: Session, determinism: str) -> tuple[Difference, ...]:
    """What is not as it was when the run was recorded: settings, data, base, versions, device, determinism."""
    now = _facts(make_manifest(session, determinism))
    then = _facts(manifest)
    return tuple(
        Difference(name=name, recorded=_short(then[name]), now=_short(now.get(name)))
        for name in then
        if then[name] != now.get(name)
    )


def _facts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {
        **manifest["fingerprints"],
        **{name: str(version) for name, version in manifest["versions"].items()},
        **{f"device.{name}": str(fact) for name, fact in manifest["device"].items()},
        "settings": manifest["settings"],
        "determinism": manifest["determinism"],
    }


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"
