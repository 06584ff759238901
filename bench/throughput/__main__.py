"""Speed and memory of jinmaek beside the founding script, TRL and Unsloth on one NVIDIA GPU, as one table.

    PYTHONPATH=src:. python -m bench.throughput --models DIR --rows ROWS.jsonl --tokenizer TOKENIZER.json

Each entry is a process of its own, with compile caches of its own (so that a cold start is one), and prints a line of
JSON. The inputs are made in DIR where absent: up to 43 GB, only the shapes that the chosen entries need.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from bench.throughput.entries import ENTRIES, SMOKE, Entry
from bench.throughput.process import ROOT, environment, run_entry
from bench.throughput.table import table


def parser() -> argparse.ArgumentParser:
    """The command's arguments."""
    made = argparse.ArgumentParser(
        prog="python -m bench.throughput",
        description=__doc__,
        epilog="entries: " + " ".join(entry.name for entry in ENTRIES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--models", type=Path, required=True, metavar="DIR", help="where models and rows lie or are made")
    made.add_argument("--rows", type=Path, metavar="ROWS.jsonl", help="KoAlpaca's text-only file, to make the rows")
    made.add_argument("--tokenizer", type=Path, metavar="TOKENIZER.json", help="polyglot-ko's, to make the models")
    made.add_argument("--only", nargs="+", metavar="NAME", default=["*"], help="entries, by name or by jinmaek-*")
    made.add_argument("--steps", type=int, default=50, help="steps that are timed (50)")
    made.add_argument("--warmup", type=int, default=10, help="steps before them (10)")
    made.add_argument("--seconds", type=float, default=1e9, metavar="LIMIT", help="start no new entry after so long")
    made.add_argument("--timeout", type=float, default=300, help="seconds that an entry may take (300)")
    made.add_argument("--caches", type=Path, metavar="DIR", help="keep compile caches here: warm starts")
    made.add_argument("--json", type=Path, metavar="OUT", help="write all lines here, after each entry")
    made.add_argument("--smoke", action="store_true", help="a tiny model in all peers, also without a GPU")
    return made


def chosen(entries: tuple[Entry, ...], patterns: list[str]) -> list[Entry]:
    """The entries that a pattern names.

    Raises:
        ValueError: a pattern names none.
    """
    for pattern in patterns:
        if not any(fnmatchcase(entry.name, pattern) for entry in entries):
            raise ValueError(f"no entry {pattern}; there are {', '.join(entry.name for entry in entries)}")
    return [entry for entry in entries if any(fnmatchcase(entry.name, pattern) for pattern in patterns)]


def make_inputs(args: argparse.Namespace, entries: list[Entry]) -> None:
    """In a process of its own: this one never holds memory of the GPU that is measured."""
    shapes = sorted({entry.model for entry in entries})
    given = [
        word for key in ("rows", "tokenizer") if (value := getattr(args, key)) for word in (f"--{key}", str(value))
    ]
    command = [sys.executable, "-m", "bench.throughput.inputs", str(args.models), *shapes, *given]
    if code := subprocess.run(command, cwd=ROOT, env=environment(None), check=False).returncode:
        sys.exit(code)


def measure(args: argparse.Namespace, entries: list[Entry], started: float) -> list[dict[str, Any]]:
    """Run the entries one after the other, and print each one's line; ``started``: when the command did."""
    lines = []
    for entry in entries:
        if time.perf_counter() - started > args.seconds:
            line: dict[str, Any] = {"error": "not started: out of time"}
        else:
            line = run_entry(entry, args)
        lines.append({"entry": entry.name, "peer": entry.peer, "shape": entry.model, **line})
        print(json.dumps(lines[-1], ensure_ascii=False), flush=True)
        if args.json:
            args.json.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in lines), "utf-8")
    return lines


def main() -> None:
    """Make the inputs, run the entries, print the table."""
    arguments, started = parser(), time.perf_counter()
    args = arguments.parse_args()
    # The entries run in the repository's root, wherever this was started.
    for key in ("models", "rows", "tokenizer", "caches", "json"):
        if (given := getattr(args, key)) is not None:
            setattr(args, key, given.resolve())
    try:
        entries = chosen(SMOKE if args.smoke else ENTRIES, args.only)
    except ValueError as error:
        arguments.error(str(error))
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
    make_inputs(args, entries)
    print("\n" + table(measure(args, entries, started)))


if __name__ == "__main__":
    main()
