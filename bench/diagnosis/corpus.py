"""Make the corpus: every scenario, every seed, one run at a time."""

from __future__ import annotations

import json
import shutil
import time
import traceback
from pathlib import Path

from bench.diagnosis import jinmaek_run, trainer_run
from bench.diagnosis.catalogue import all_scenarios
from bench.diagnosis.scenario import HEALTHY, Scenario

LABEL = "label.json"


def make(out: Path, names: list[str], num_seeds: int) -> None:
    """Run what is missing, seed after seed, so that the corpus is whole early and deep late."""
    chosen = [scenario for scenario in all_scenarios() if not names or any(name in scenario.name for name in names)]
    todo = [
        (scenario, seed)
        for seed in range(num_seeds)
        for scenario in chosen
        if seed < scenario.notes.get("seeds", num_seeds) and not (_folder(out, scenario, seed) / LABEL).exists()
    ]
    # More seeds of the faults before more seeds of what is healthy.
    todo.sort(key=lambda pair: (pair[0].healthy and pair[1] > 0, pair[1]))
    started = time.monotonic()
    failed = []
    for done, (scenario, seed) in enumerate(todo):
        began = time.monotonic()
        try:
            _make_one(scenario, seed, _folder(out, scenario, seed))
        except Exception:  # noqa: BLE001 - one scenario that fails must not cost the others
            traceback.print_exc()
            failed.append(f"{scenario.name} ({scenario.trainer}, seed {seed})")
        spent = time.monotonic() - started
        left = spent / (done + 1) * (len(todo) - done - 1)
        took = time.monotonic() - began
        what = f"{scenario.trainer} {scenario.name} seed {seed}"
        print(f"{done + 1}/{len(todo)} {what}: {took:.0f} s; {left / 60:.0f} min left", flush=True)
    if failed:
        raise SystemExit("failed: " + ", ".join(failed))


def _folder(out: Path, scenario: Scenario, seed: int) -> Path:
    return out / scenario.name / f"{scenario.trainer}-seed{seed}"


def _make_one(scenario: Scenario, seed: int, folder: Path) -> None:
    draft = folder.with_name(folder.name + ".part")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    draft.mkdir(parents=True)
    job = scenario.job(seed)
    truths = trainer_run.run(job, draft) if scenario.trainer == "trainer" else jinmaek_run.run(job, draft)
    onset = _eval_minimum(draft) if scenario.notes.get("onset") == "eval_minimum" else scenario.onset_of(truths)
    label = {
        "pathology": scenario.pathology,
        "also": list(scenario.also),
        "onset": onset and onset[0],
        "onset_until": onset and onset[1],
        "logging_steps": trainer_run.logging_steps(draft) if scenario.trainer == "trainer" else 1,
        "seed": seed,
        "how": scenario.how,
        "truth": {
            "num_steps": len(truths),
            "skipped": [truth.step for truth in truths if not truth.applied],
            "non_finite": [truth.step for truth in truths if not (truth.finite_loss and truth.finite_gradient)],
        },
    }
    if scenario.pathology != HEALTHY and label["onset"] is None:
        raise RuntimeError(f"{scenario.name} seed {seed}: the fault did not happen")
    (draft / LABEL).write_text(json.dumps(label, ensure_ascii=False, indent=1) + "\n", "utf-8")
    draft.rename(folder)


def _eval_minimum(folder: Path) -> tuple[int, int] | None:
    """Overfitting begins behind the best evaluation; it shows in the next one."""
    evaluations = _evaluations(folder)
    best = min(evaluations, key=lambda pair: pair[1])[0]
    later = [step for step, _ in evaluations if step > best]
    return (best, later[0]) if later else None


def _evaluations(folder: Path) -> list[tuple[int, float]]:
    state = folder / "trainer_state.json"
    if state.exists():
        history = json.loads(state.read_text("utf-8"))["log_history"]
        return [(entry["step"], entry["eval_loss"]) for entry in history if "eval_loss" in entry]
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text("utf-8").splitlines()]
    return [(event["step"], event["loss"]) for event in events if event.get("event") == "evaluation"]
