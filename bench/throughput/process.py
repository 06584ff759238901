"""An entry as a process of its own: its environment, its time limit, its line."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.throughput.entries import Entry

ROOT = Path(__file__).resolve().parents[2]
_TOLD = 15  # lines of a failed entry's stderr that are shown


def environment(caches: Path | None) -> dict[str, str]:
    """No network, jinmaek from this checkout, compile caches where ``caches`` says."""
    own = {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, ["src", ".", os.environ.get("PYTHONPATH")])),
    }
    if caches is not None:
        names = {"TORCHINDUCTOR_CACHE_DIR": "inductor", "TRITON_CACHE_DIR": "triton"}
        own |= {key: str(caches / name) for key, name in names.items()}
        own["UNSLOTH_COMPILE_LOCATION"] = str(caches / "unsloth_compiled_cache")
        own["HF_DATASETS_CACHE"] = str(caches / "datasets")
        own["JINMAEK_CACHE"] = str(caches / "jinmaek")
    return {**os.environ, **own}


def command_of(entry: Entry, args: argparse.Namespace) -> list[str]:
    """What is run for ``entry``."""
    rows = args.models / ("texts.jsonl" if entry.peer in ("trl", "unsloth") else "pairs.jsonl")
    common = [str(args.models / entry.model), str(rows), "--steps", str(args.steps), "--warmup", str(args.warmup)]
    return [sys.executable, "-m", f"bench.throughput.{entry.peer}", *common, *entry.arguments]


def run_entry(entry: Entry, args: argparse.Namespace) -> dict[str, Any]:
    """The entry's own line, or one with the error that it ended with."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        code = _run(command_of(entry, args), home, environment(args.caches or home), args.timeout)
        out, told = ((home / name).read_text("utf-8", errors="replace").splitlines() for name in ("out", "err"))
    line = _own_line(out) or {"error": None}
    told = [text for text in told if text.strip()]
    if code is None:
        line["error"] = f"stopped after {args.timeout:g} s"
    elif code != 0 and not line["error"]:
        line["error"] = f"exit code {code}: {told[-1].strip() if told else ''}"
    if line["error"]:
        print("\n".join(told[-_TOLD:]), file=sys.stderr, flush=True)
    return line | {"wall_s": round(time.perf_counter() - started, 1)}


def _run(command: list[str], home: Path, env: dict[str, str], limit: float) -> int | None:
    """Exit code, or ``None`` if it took too long; the compilers it started end with it."""
    with (home / "out").open("wb") as out, (home / "err").open("wb") as err:
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=out, stderr=err, start_new_session=True)
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            return None
        finally:
            if process.returncode is None:  # too late, or Ctrl-C
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _own_line(out: list[str]) -> dict[str, Any] | None:
    """The last line that is a peer's; libraries print beside it."""
    for text in reversed(out):
        if text.startswith('{"peer"'):
            line: dict[str, Any] = json.loads(text)
            return line
    return None
