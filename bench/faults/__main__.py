"""``python -m bench.faults [--only NAME …] [--seeds 3] [--gpu MODEL DATA]``: every fault, its verdict, the score."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
import warnings
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first handle is made

from bench.faults.run import Scored, run_fault
from bench.faults.scenarios import FAULTS
from bench.faults.stage import Stage

from jinmaek.core.errors import JinmaekError
from jinmaek.training import manifest


def main() -> None:
    """Run the faults and print a line for each, then the score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--gpu", nargs=2, metavar=("MODEL", "DATA"))
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seconds", type=float, default=1e9, help="start no new fault after so long")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    if args.gpu:
        # Hashing the base takes seconds a scenario, and this one base is the same in all of them.
        manifest.of_base = lambda model: "the stage's base"
    started = time.perf_counter()
    scored: list[Scored] = []
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        stage = Stage.on_gpu(Path(folder), args.gpu[0], Path(args.gpu[1])) if args.gpu else Stage.on_cpu(Path(folder))
        for seed in range(args.seeds):
            for fault in FAULTS:
                if args.gpu and fault.trained_only:
                    continue
                if (args.only and fault.name not in args.only) or time.perf_counter() - started > args.seconds:
                    continue
                try:
                    one = run_fault(stage, fault, seed)
                except JinmaekError as error:
                    print(f"WRONG {fault.name}: {error.problems}", flush=True)
                    missed += 1
                    continue
                print(one.line, flush=True)
                scored.append(one)
    right = sum(one.right for one in scored)
    false = sum(bool(one.false_causes) for one in scored)
    print(f"{right} of {len(scored) + missed} right, {false} with a cause confirmed that is not there")
    if args.json:
        rows = [{"fault": one.fault, "seed": one.seed, "right": one.right, **one.verdict.as_dict()} for one in scored]
        args.json.write_text(json.dumps(rows, ensure_ascii=False))


if __name__ == "__main__":
    main()
