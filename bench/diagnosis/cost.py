"""What a diagnosis costs: seconds and memory of ``jinmaek diagnose`` on long logs, microseconds a step online.

``python -m bench.diagnosis cost``. The logs are written first (noise around a falling loss, linear lr); only the
command is timed, in a process of its own, from its start to its end.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from jinmaek.core.codec import dump_line, encode_record
from jinmaek.core.record import GroupStats, RunFacts, StepRecord
from jinmaek.detect import Panel

LONG = 30_000
_GROUPS = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")


def records(count: int) -> Iterator[StepRecord]:
    """Steps as jinmaek records them, every field filled."""
    rng = random.Random(0)
    for step in range(1, count + 1):
        groups = {
            name: GroupStats(grad_norm=rng.random(), weight_norm=3.2, max_update=1e-4 * rng.random())
            for name in _GROUPS
        }
        yield StepRecord(
            step=step,
            loss=1.5 + step**-0.5 + rng.gauss(0, 0.1),
            grad_norm=1 + rng.random(),
            clip_ratio=0.7,
            lr=2e-4 * (1 - step / (count + 1)),
            num_tokens=400,
            num_loss_tokens=200,
            seconds=0.5,
            optimizer_stepped=True,
            loss_scale=65536.0,
            update_ratio=rng.random(),
            example_ids=(str(rng.randrange(20_000)), str(rng.randrange(20_000))),
            groups=groups,
            digest=f"{rng.getrandbits(64):016x}",
        )


def _entry(record: StepRecord, count: int) -> dict[str, Any]:
    return {
        "epoch": 3 * record.step / count,
        "grad_norm": record.grad_norm,
        "learning_rate": record.lr,
        "loss": record.loss,
        "step": record.step,
    }


def write_trainer_state(path: Path, count: int) -> None:
    """A ``trainer_state.json`` with a line for each step."""
    with path.open("w") as file:
        file.write(f'{{\n  "global_step": {count},\n  "log_history": [\n')
        for record in records(count):
            text = json.dumps(_entry(record, count), indent=2).replace("\n", "\n    ")
            file.write(f"    {text}{',' if record.step < count else ''}\n")
        file.write(f'  ],\n  "logging_steps": 1,\n  "max_steps": {count}\n}}\n')


def write_jsonl(path: Path, count: int) -> None:
    """One object a line, five numbers each."""
    with path.open("w") as file:
        file.writelines(json.dumps(_entry(record, count)) + "\n" for record in records(count))


def write_run(path: Path, count: int) -> None:
    """A jinmaek run directory."""
    path.mkdir()
    (path / "run.json").write_text(json.dumps({"max_steps": count, "schedule_steps": count}))
    with (path / "steps.jsonl").open("w") as file:
        file.writelines(dump_line(encode_record(record)) + "\n" for record in records(count))


def _timed(path: Path) -> tuple[float, float, float]:
    """Seconds on the clock and of CPU, and the largest resident set in MiB, of one ``jinmaek diagnose``."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "jinmaek", "diagnose", str(path), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"{path}: a healthy log was not found healthy")
    return time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def _online(count: int) -> float:
    """Microseconds that the rules take for a step."""
    panel = Panel(RunFacts(source="jinmaek", max_steps=count))
    steps = list(records(count))
    started = time.perf_counter()
    for record in steps:
        panel.observe(record)
    return (time.perf_counter() - started) / count * 1e6


def measure(very_long: int) -> None:
    """Print the table."""
    writers: dict[str, Callable[[Path, int], None]] = {
        "trainer_state.json": write_trainer_state,
        "steps.jsonl of others": write_jsonl,
        "jinmaek run": write_run,
    }
    print(f"{'log':24} {'records':>9} {'MB':>7} {'seconds':>8} {'CPU s':>7} {'MiB':>6}")
    with TemporaryDirectory() as folder:
        for name, write in writers.items():
            for count in (LONG, very_long):
                path = Path(folder) / f"{name.split()[0]}-{count}"
                write(path, count)
                size = sum(each.stat().st_size for each in ([path] if path.is_file() else path.iterdir()))
                seconds, cpu, memory = _timed(path)
                print(
                    f"{name:24} {count:>9,} {size / 1e6:>7.1f} {seconds:>8.2f} {cpu:>7.2f} {memory:>6.0f}", flush=True
                )
                (path if path.is_file() else path / "steps.jsonl").unlink()
    print(f"online: {_online(50_000):.1f} µs a step (all fields recorded)")
