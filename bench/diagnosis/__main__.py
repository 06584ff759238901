"""``python -m bench.diagnosis``: make the corpus, score the tools on it, or measure what a diagnosis costs."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from bench.diagnosis.cases import GROUPS

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def main() -> None:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser(prog="python -m bench.diagnosis", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("make", help="train the corpus (runs that exist are kept)")
    make.add_argument("--out", type=Path, default=Path("build/faults"))
    make.add_argument("--only", nargs="*", default=[], help="scenarios whose name holds one of these")
    make.add_argument("--seeds", type=int, default=3)
    score = commands.add_parser("score", help="judge jinmaek (and the rivals) on it")
    score.add_argument("--corpus", type=Path, default=Path("build/faults"))
    score.add_argument("--logs", type=Path, default=Path("../shared/data/logs"))
    score.add_argument("--rivals", action="store_true")
    score.add_argument("--rivals-venv", type=Path, default=Path("build/rivals"), help="where the rivals are installed")
    score.add_argument("--group", nargs="*", default=[], choices=list(GROUPS), help="only these groups of logs")
    score.add_argument("--json", type=Path)
    cost = commands.add_parser("cost", help="seconds, memory, microseconds a step")
    cost.add_argument("--records", type=int, default=1_000_000, help="length of the very long logs")
    given = parser.parse_args()
    if given.command == "make":
        import torch
        from bench.diagnosis.corpus import make as make_corpus

        torch.set_num_threads(1)
        make_corpus(given.out, given.only, given.seeds)
    elif given.command == "cost":
        from bench.diagnosis.cost import measure

        measure(given.records)
    else:
        from bench.diagnosis.score import score as score_tools

        logs = given.logs if given.logs.is_dir() else None
        score_tools(given.corpus, logs, given.rivals_venv if given.rivals else None, given.json, given.group)


if __name__ == "__main__":
    main()
