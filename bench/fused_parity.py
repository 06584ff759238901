"""Does the fast path learn what the plain one learns? tiny-ko in NF4 and bf16, packed, on a GPU: plain, fused, fp8.

    PYTHONPATH=src:. python -m bench.fused_parity [--steps 200] [--seeds 3]

Every arm trains from the same adapters on the same order for each seed. Prints a JSON line a run, then what the arms
differ by: the held-out loss paired over the seeds with its 95 % interval (Student), the loss of the last 50 steps,
and how far the curves of two seeds lie apart, which is the band that the arms are to stay in.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import tempfile
from pathlib import Path
from typing import Any

from jinmaek import load_recipe, read_steps, train
from jinmaek.detect.student import student_quantile

SETTINGS = (
    "model.compute_dtype=bf16", "data.packing=true", "train.batch_size=", "train.batch_tokens=1024",
    "train.precision=bf16", "samples.questions=[]",
)  # fmt: skip
ARMS = {"plain": ("kernels.fused=false",), "fused": (), "fp8": ("kernels.fp8=true",)}
_WINDOW = 10  # steps that a point of a curve is the mean of
_LAST = 50


def run(arm: str, seed: int, steps: int) -> dict[str, Any]:
    """One training: its held-out losses and its curve."""
    recipe = load_recipe("quickstart", [f"train.seed={seed}", f"train.max_steps={steps}", *SETTINGS, *ARMS[arm]])
    with tempfile.TemporaryDirectory() as folder:
        result = train(recipe, run_dir=Path(folder) / "run")
        losses = [record.loss or math.nan for record in read_steps(result.path / "steps.jsonl")]
        kernels = json.loads((result.path / "run.json").read_text("utf-8"))["kernels"]
    return {
        "arm": arm,
        "seed": seed,
        "kernels": kernels,
        "held_out": [result.held_out_before, result.held_out_after],
        "last": statistics.fmean(losses[-_LAST:]),
        "curve": [statistics.fmean(losses[at : at + _WINDOW]) for at in range(0, len(losses), _WINDOW)],
    }


def compared(runs: list[dict[str, Any]], arm: str) -> dict[str, Any]:
    """``arm`` against the plain path, paired over the seeds, and beside what seeds differ by."""
    plain = {each["seed"]: each for each in runs if each["arm"] == "plain"}
    other = {each["seed"]: each for each in runs if each["arm"] == arm}
    differences = [other[seed]["held_out"][1] - plain[seed]["held_out"][1] for seed in plain]
    half = student_quantile(0.975, len(differences) - 1) * statistics.stdev(differences) / math.sqrt(len(differences))
    seeds = sorted(plain)
    return {
        "arm": arm,
        "held_out_difference": round(statistics.fmean(differences), 5),
        "interval_95": [round(statistics.fmean(differences) + sign * half, 5) for sign in (-1, 1)],
        "held_out_sd_over_seeds": round(statistics.stdev(each["held_out"][1] for each in plain.values()), 5),
        "curve_furthest_from_plain": round(max(_apart(plain[seed], other[seed]) for seed in seeds), 5),
        "curve_seeds_apart": round(min(_apart(plain[a], plain[b]) for a in seeds for b in seeds if a < b), 5),
    }


def _apart(one: dict[str, Any], other: dict[str, Any]) -> float:
    return max(abs(a - b) for a, b in zip(one["curve"], other["curve"], strict=True))


def main() -> None:
    """Train all arms with all seeds, then compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3, choices=range(2, 11))
    args = parser.parse_args()
    runs = []
    for seed in range(args.seeds):
        for arm in ARMS:
            runs.append(run(arm, seed, args.steps))
            shown = {key: value for key, value in runs[-1].items() if key != "curve"}
            print(json.dumps(shown, ensure_ascii=False), flush=True)
    for arm in ("fused", "fp8"):
        print(json.dumps(compared(runs, arm)), flush=True)


if __name__ == "__main__":
    main()
