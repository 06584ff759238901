"""``python -m bench.web_cost [--steps 60] [--rounds 3]``: what five followers of `jinmaek web` cost a running training.

quickstart is trained in turn alone and with the server beside it and five clients on its live stream, each a process
of its own that unpacks every event; the order of the two changes from round to round. Printed: what of one core the
server took while the training went on, which other work on the machine does not change; the median step of each; and
how much longer a step took with followers, round by round (rounds that disagree say that other work decided).
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
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
def followed(folder: Path, num_clients: int, shares: list[float]) -> Iterator[None]:
    """The server and its clients, beside what is done within; appends the server's share of a core."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder.mkdir(parents=True)
    server = subprocess.Popen([sys.executable, "-m", "jinmaek", "web", str(folder), "--port", str(port)])
    loop = f"import time\nwhile True:\n  try:\n    exec({CLIENT!r})\n  except Exception: pass\n  time.sleep(0.5)"
    clients = [subprocess.Popen([sys.executable, "-c", loop, str(port)]) for _ in range(num_clients)]
    try:
        time.sleep(3)
        started, used = time.perf_counter(), cpu_seconds(server.pid)
        yield
        shares.append((cpu_seconds(server.pid) - used) / (time.perf_counter() - started))
    finally:
        for process in (*clients, server):
            process.terminate()
            process.wait()


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Train in turn, compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=5)
    args = parser.parse_args()
    alone: list[list[float]] = []
    watched: list[list[float]] = []
    shares: list[float] = []
    with tempfile.TemporaryDirectory() as temporary:
        for number in range(args.rounds):
            for with_server in (number % 2 == 0, number % 2 == 1):
                folder = Path(temporary) / f"{number}-{with_server}"
                if with_server:
                    with followed(folder, args.clients, shares):
                        watched.append(train(folder / "run", args.steps))
                else:
                    alone.append(train(folder / "run", args.steps))
    rounds = [statistics.median(two) / statistics.median(one) - 1 for one, two in zip(alone, watched, strict=True)]
    print(
        f"the server took {100 * statistics.fmean(shares):.1f} % of one core with {args.clients} followers; median step"
        f" alone {statistics.median(chain(*alone)):.3f} s, with them {statistics.median(chain(*watched)):.3f} s;"
        f" longer by {', '.join(f'{100 * each:+.1f} %' for each in rounds)}"
    )


if __name__ == "__main__":
    main()
