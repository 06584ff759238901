"""How often the answers of compare and of "why no improvement" are right, on cases whose truth is known.

    python -m bench.experiments coverage [--tries 1000]   # of the 95 % intervals, on autocorrelated noise
    python -m bench.experiments rates [--tries 1000]      # of compare's verdicts, on simulated pairs
    python -m bench.experiments limits [--seeds 100]      # of the named limit, on bowls (bench/experiments/bowls.py)
    python -m bench.experiments runs [--seeds 2]          # the same on real trainings of tiny-ko, minutes on the CPU

Each prints the Markdown table that docs/compare.md holds.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def main() -> None:
    """Read the command line and do it."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.experiments", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("coverage", "rates"):
        commands.add_parser(name).add_argument("--tries", type=int, default=1000)
    commands.add_parser("limits").add_argument("--seeds", type=int, default=100)
    runs = commands.add_parser("runs")
    runs.add_argument("--seeds", type=int, default=2)
    runs.add_argument("--out", type=Path, default=Path("build/experiments"))
    given = parser.parse_args()
    if given.command == "runs":
        from bench.experiments.trainings import print_runs

        print_runs(given.out, given.seeds)
        return
    from bench.experiments import simulated

    if given.command == "coverage":
        simulated.print_coverage(given.tries)
    elif given.command == "rates":
        simulated.print_rates(given.tries)
    else:
        simulated.print_limits(given.seeds)


if __name__ == "__main__":
    main()
