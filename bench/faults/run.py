"""Train with a fault, prove it, compare with the truth."""

from __future__ import annotations

import time
from dataclasses import dataclass

from bench.faults.injections import lose_at_resume
from bench.faults.scenarios import SKIPPED, WORST, Fault
from bench.faults.stage import Stage

from jinmaek.core.record import StepRecord
from jinmaek.core.verdict import Verdict
from jinmaek.pulse import resume, train
from jinmaek.pulse.listener import RunListener
from jinmaek.replay import prove
from jinmaek.store import read_steps
from jinmaek.training.loop import StopReason


@dataclass(frozen=True, slots=True)
class Scored:
    """A verdict beside the truth."""

    fault: str
    seed: int
    verdict: Verdict
    right: bool
    false_causes: tuple[str, ...]
    train_seconds: float

    @property
    def line(self) -> str:
        """One line for a table."""
        said = ", ".join(cause.id for cause in self.verdict.confirmed()) or "-"
        mark = "ok   " if self.right else "WRONG"
        where = self.verdict.location
        place = "" if where is None else f" @ {where.module} {where.op}"
        return (
            f"{mark} {self.fault:<30} seed {self.seed} step {self.verdict.step:>3} {self.verdict.outcome:<14}"
            f" {said}{place}  [{len(self.verdict.trials)} trials, {self.verdict.seconds:.1f} s,"
            f" training {self.train_seconds:.1f} s]"
        )


class _StopsAt(RunListener):
    def __init__(self, step: int) -> None:
        self.step, self.last = step, 0

    def on_step(self, record: object) -> None:
        self.last += 1

    def stop_reason(self) -> StopReason | None:
        # The record of a step is told while the next one runs.
        return "interrupted" if self.last >= self.step - 1 else None


def _step_to_prove(fault: Fault, records: list[StepRecord]) -> int | None:
    if fault.step == SKIPPED:
        return next((record.step for record in records if not record.optimizer_stepped), None)
    if fault.step == WORST:
        return max(records[len(records) // 2 :], key=lambda record: record.loss or 0.0).step
    return fault.step


def run_fault(stage: Stage, fault: Fault, seed: int) -> Scored:
    """Train with the fault and prove it."""
    stage.prepare(stage.make_recipe(seed, stage.rows, fault.settings))
    rows = fault.rows(stage, stage.rows, seed)
    settings = [*fault.settings, f"train.max_steps={fault.steps}", "capture.every=4", "capture.keep=8"]
    recipe = stage.make_recipe(seed, rows, settings)
    run = stage.fresh_folder(fault.name)
    started = time.perf_counter()
    base = stage.prepare(recipe)
    with fault.there(stage, recipe):
        if fault.resume_without is None:
            train(recipe, run_dir=run, listener=fault.watching(), base=base)
        else:
            train(recipe, run_dir=run, listener=_StopsAt(fault.resume_at), base=base)
            lose_at_resume(run, fault.resume_without)
            resume(run, base=stage.prepare(recipe))
        train_seconds = time.perf_counter() - started
        step = _step_to_prove(fault, read_steps(run / "steps.jsonl"))
        # What a listener broke in memory is whole again in the process that proves.
        base = stage.prepare(recipe) if fault.watching is RunListener else stage.reloaded(recipe)
        verdict = prove(run, step=step, base=base)
    confirmed = {cause.id for cause in verdict.confirmed()}
    false = confirmed - fault.must - fault.may
    right = verdict.outcome == fault.outcome and fault.must <= confirmed and not false
    return Scored(fault.name, seed, verdict, right, tuple(sorted(false)), train_seconds)
