"""``python -m bench.web_cost [--steps 60] [--rounds 3]``: what five followers of `jinmaek web` cost a running training.

quickstart is trained in turn alone and with the server beside it and five clients on its live stream, each a process
of its own that unpacks every event; the order of the two changes from round to round. Printed: the median step of each,
and the relative difference of the means (the slowest 5 % of both left out) with a 95 % interval (bootstrap over steps).
"""

from __future__ import annotations

import argparse
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jinmaek.store import read_steps

FIRST = 5  # steps that warm up
CLIENT = """
import base64, gzip, http.client, json, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]))
connection.request("GET", "/live?run=run&records=0")
for line in connection.getresponse():
    if line.startswith(b"data: "):
        for part in json.loads(line[6:]).get("parts", []):
            gzip.decompress(base64.b64decode(part["block"]))
"""


def train(run: Path, num_steps: int) -> list[float]:
    """Seconds of each step after the first few."""
    settings = [f"train.max_steps={num_steps}", "samples.questions=", "train.checkpoint_every=0"]
    command = [sys.executable, "-m", "jinmaek", "train", "quickstart", *settings, "--run-dir", str(run)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return [record.seconds or 0.0 for record in read_steps(run / "steps.jsonl")[FIRST:]]


@contextmanager
def followed(folder: Path, num_clients: int) -> Iterator[None]:
    """The server and its clients, beside what is done within."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir(parents=True)
    server = subprocess.Popen([sys.executable, "-m", "jinmaek", "web", str(folder), "--port", str(port)])
    loop = f"import time\nwhile True:\n  try:\n    exec({CLIENT!r})\n  except Exception: pass\n  time.sleep(0.5)"
    clients = [subprocess.Popen([sys.executable, "-c", loop, str(port)]) for _ in range(num_clients)]
    try:
        time.sleep(2)
        yield
    finally:
        for process in (*clients, server):
            process.terminate()
            process.wait()


def trimmed(values: list[float]) -> float:
    """Mean without the slowest 5 %."""
    kept = sorted(values)[: max(1, round(len(values) * 0.95))]
    return statistics.fmean(kept)


def main() -> None:
    """Train in turn, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=5)
    args = parser.parse_args()
    alone: list[float] = []
    watched: list[float] = []
    with tempfile.TemporaryDirectory() as temporary:
        for number in range(args.rounds):
            for with_server in (number % 2 == 0, number % 2 == 1):
                folder = Path(temporary) / f"{number}-{with_server}"
                if with_server:
                    with followed(folder, args.clients):
                        watched += train(folder / "run", args.steps)
                else:
                    alone += train(folder / "run", args.steps)
    rng = random.Random(0)
    ratios = sorted(
        trimmed(rng.choices(watched, k=len(watched))) / trimmed(rng.choices(alone, k=len(alone))) for _ in range(2000)
    )
    low, high = ratios[50], ratios[1949]
    print(
        f"median step alone {statistics.median(alone):.4f} s, with {args.clients} followers"
        f" {statistics.median(watched):.4f} s; mean {100 * (trimmed(watched) / trimmed(alone) - 1):+.1f} %"
        f" ({100 * (low - 1):+.1f} to {100 * (high - 1):+.1f} %)"
    )


if __name__ == "__main__":
    main()
