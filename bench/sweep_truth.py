"""Sweeps whose truth is known, on the embedded model: what is told apart, and what is not.

    PYTHONPATH=src:. python -m bench.sweep_truth [--sweeps 4] [--seeds 3] [--steps 20]

Each sweep is the quickstart, shortened, at four rates over its own seeds: 2e-3 (the recipe's, the base), 2e-5 (a
hundred times too low: worse), 6e-2 (too high: worse) and 2.02e-3 (one per cent more: in so short a run a trifle better
in every seed, which only pairs within seeds can show). A second one varies model.attention, which changes nothing but
rounding: the same to six digits. A third varies train.log_every, which changes nothing at all: the same to the bit.
Prints a Markdown table; ten to twenty seconds a trial on one core.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RATES = ("2e-5", "2e-3", "2.02e-3", "6e-2")


def sweep(folder: Path, vary: str, settings: list[str], seeds: int) -> dict[str, Any]:
    """The result of one sweep."""
    command = [sys.executable, "-m", "jinmaek", "sweep", "quickstart", *settings, "--vary", vary]
    command += ["--seeds", str(seeds), "--out", str(folder), "--json"]
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": path}, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def told(arm: dict[str, Any]) -> str:
    """Difference and verdict."""
    difference = arm["difference"]
    if difference is None:
        return f"{arm['mean']:.4f} ± {arm['half_width']:.4f}"
    return f"{difference['mean']:+.4f} ± {difference['half_width']:.4f} {difference['verdict']}"


def verdict(result: dict[str, Any]) -> str:
    """Of the one arm that is not the base."""
    [difference] = [arm["difference"] for arm in result["arms"] if arm["difference"] is not None]
    return f"{difference['mean']:+.1e} {difference['verdict']}"


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sweeps", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=20)
    args = parser.parse_args()
    short = [f"train.max_steps={args.steps}", "optim.warmup_steps=2", "samples.questions=", "samples.max_new_tokens="]
    print("| first seed | " + " | ".join(RATES) + " | lowest, and not told from it | attention | log_every |")
    print("| ---: |" + " --- |" * (len(RATES) + 3))
    for number in range(args.sweeps):
        seed = 1000 + 100 * number
        settings = [*short, f"train.seed={seed}"]
        with tempfile.TemporaryDirectory() as folder:
            rates = sweep(Path(folder) / "rates", "optim.lr=" + ",".join(RATES), settings, args.seeds)
            rounded = sweep(Path(folder) / "rounded", "model.attention=sdpa,eager", settings, args.seeds)
            equal = sweep(Path(folder) / "equal", "train.log_every=10,20", settings, 2)
        best = [RATES[index] for index in (rates["lowest"], *rates["not_separated_from_lowest"])]
        others = [verdict(rounded), verdict(equal)]
        cells = [str(seed), *map(told, rates["arms"]), ", ".join(best), *others]
        print("| " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
