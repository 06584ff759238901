"""What recording and snapshots cost beside the step that the recipe gets: on and off in one run, step by step in turn.

    python bench/recording.py DIR DATA.jsonl [--tokens 8192] [--batches 12] [--plain-memory] [--set section.key=value …]

``DIR`` and ``DATA.jsonl`` are made by ``bench/founding.py make-model`` and ``make-data``, or by bench.throughput.inputs
(``pairs.jsonl``). Prints a JSON line for the founding recipe (batch 2, fp16, which leaves the GPU waiting for the
host) and one for packs in bf16.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from founding import recipe_for
from founding_inputs import plain_memory

from jinmaek.config.recipe import CaptureSection
from jinmaek.core.record import RunFacts
from jinmaek.pulse.alarms import Alarms
from jinmaek.store.steps import StepWriter
from jinmaek.training.capture_file import ENDING, write_capture
from jinmaek.training.captures import Captures
from jinmaek.training.determinism import repeatable
from jinmaek.training.model import choose_device
from jinmaek.training.session import Session, load_session_data, make_session
from jinmaek.training.state import StateCopy, state_of
from jinmaek.training.step import StepOutcome, add_gradient, run_step

REPEATS = 9
WINDOW = 4  # steps timed after a snapshot: its writing goes on beside them
PACKED = (
    "data.packing=true", "data.max_length=1024", "train.batch_size=", "train.precision=bf16",
    "model.compute_dtype=bf16", "optim.name=adamw",
)  # fmt: skip


def measure(model: str, data: str, num_batches: int, shape: str, settings: Sequence[str]) -> dict[str, Any]:
    """A step as jinmaek trains against the same with nothing recorded, and what a snapshot adds.

    Each batch is run untimed first (the first visit to a length pays for allocations and kernel choices), then
    ``REPEATS`` times each way in turn.
    """
    recipe = recipe_for(model, data, 100_000, *settings)
    with repeatable(True, choose_device()), tempfile.TemporaryDirectory() as folder:
        session = make_session(recipe, load_session_data(recipe))
        session.training.model.train()
        with StepWriter(Path(folder) / "steps.jsonl") as writer:
            rows = [_compared(session, number, writer) for number in range(1, num_batches + 1)]
            alone = _alone_ms(session, writer)
        captured = _capture_cost(session, Path(folder), recipe.capture)
    recorded, bare = ([row[way] for row in rows] for way in (0, 1))
    least = [[min(times) for times in column] for column in (recorded, bare)]
    middle = [[statistics.median(times) for times in column] for column in (recorded, bare)]
    bare_seconds = statistics.median(middle[1])
    return {
        "shape": shape,
        "kernels": session.kernels.render("en"),
        "batches": num_batches,
        "bare_ms": round(bare_seconds * 1e3, 2),
        "recorded_ms": round(statistics.median(middle[0]) * 1e3, 2),
        "recording_percent_of_fastest": round((sum(least[0]) / sum(least[1]) - 1) * 100, 2),
        "recording_percent_of_medians": round((sum(middle[0]) / sum(middle[1]) - 1) * 100, 2),
        "recording_alone_ms": alone,
        "recording_alone_percent": round(alone / bare_seconds / 10, 2),
        **captured,
        "capture_percent": round(captured["capture_ms"] / recipe.capture.every / (bare_seconds * 1e3) * 100, 3),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2) if torch.cuda.is_available() else None,
    }


def _compared(session: Session, number: int, writer: StepWriter) -> tuple[list[float], list[float]]:
    batches = session.plan.batches(number)
    alarms = Alarms(RunFacts(source="jinmaek", filters_loss=False, logging_steps=1))

    untold: list[StepOutcome] = []

    def tell() -> None:
        while untold:
            record = untold.pop().record()
            writer.append(record)
            alarms.observe(record)

    def record() -> None:  # as the loop does it: a step is told while the next one is computed
        untold.append(run_step(session.training, number, batches, tell))

    bare = partial(_bare_step, session, batches)
    record()
    bare()
    times = [(_seconds(record), _seconds(bare)) for _ in range(REPEATS)]
    return [one for one, _ in times], [other for _, other in times]


def _alone_ms(session: Session, writer: StepWriter) -> float:
    """Milliseconds of all that recording does in a step, by itself: nothing of it hides behind the step's kernels."""
    training, batches = session.training, session.plan.batches(1)
    alarms = Alarms(RunFacts(source="jinmaek", filters_loss=False, logging_steps=1))
    run_step(training, 1, batches).record()
    params = list(training.params.values())
    norms = torch.stack(torch._foreach_norm([weight.grad for weight in params if weight.grad is not None]))
    loss = torch.ones((), device=training.device)

    def record(number: int) -> None:
        outcome = StepOutcome(training, number, batches, 1, 1e-4)
        outcome.send(loss, loss, norms)
        outcome.receive()
        outcome.watch_update()
        line = outcome.record()
        writer.append(line)
        alarms.observe(line)

    record(2)
    times = [_seconds(partial(record, number)) for number in range(3, 103)]
    return round(statistics.median(times) * 1e3, 3)


def _capture_cost(session: Session, folder: Path, section: CaptureSection) -> dict[str, Any]:
    """Milliseconds that a snapshot adds to the steps it is taken in and written beside."""
    batches = session.plan.batches(1)
    captures = Captures(folder / "captures", section, lambda *_, **__: None)

    def steps(first: int) -> None:
        for number in range(first, first + WINDOW):
            run_step(session.training, number, batches).record()
            captures.after_step(session.training, number)

    steps(section.every)
    differences, host = [], []
    for repeat in range(1, REPEATS + 1):
        differences.append(_seconds(partial(steps, repeat * section.every)) - _seconds(partial(steps, 1)))
        _wait()
        started = time.perf_counter()
        captures.after_step(session.training, section.every)
        host.append(time.perf_counter() - started)
        captures.keep_before(0)  # waits for the writer
    size = max(path.stat().st_size for path in (folder / "captures").glob("*.safetensors"))
    captures.close()
    copying = []
    for _ in range(REPEATS):
        copying.append(_seconds(partial(_copied, session, folder)))
    return {
        "capture_alone_ms": round(statistics.median(copying) * 1e3, 2),
        "capture_ms": round(statistics.median(differences) * 1e3, 2),
        "capture_host_ms": round(statistics.median(host) * 1e3, 2),
        "capture_mib": round(size / 2**20, 1),
    }


def _copied(session: Session, folder: Path) -> None:
    """A snapshot by itself, copied and written, nothing beside it."""
    write_capture(folder / f"alone{ENDING}", StateCopy(state_of(session.training, 1)))


def _seconds(run: Callable[[], None]) -> float:
    _wait()
    started = time.perf_counter()
    run()
    _wait()
    return time.perf_counter() - started


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _bare_step(session: Session, batches: list[Any]) -> None:
    """What any trainer does: forward, backward, unscale, clip, step if finite, schedule."""
    training = session.training
    training.optimizer.zero_grad(set_to_none=True)
    total = sum(batch.num_loss_tokens for batch in batches)
    for number, batch in enumerate(batches):
        add_gradient(training, batch, total, number)
    if training.loss_scale is not None:
        training.loss_scale.unscale(training.optimizer)
    norm = torch.nn.utils.clip_grad_norm_(list(training.params.values()), training.max_grad_norm)
    if torch.isfinite(norm).item():
        training.optimizer.step()
        training.schedule.step()
    if training.loss_scale is not None:
        training.loss_scale.update(1e9, finite=True)


def main() -> None:
    """Measure both shapes and print a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data")
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--only", choices=["batch 2", "packs"])
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value")
    parser.add_argument("--plain-memory", action="store_true")
    args = parser.parse_args()
    if args.plain_memory:
        plain_memory()
    shapes = {"batch 2": (), "packs": (*PACKED, f"train.batch_tokens={args.tokens}")}
    for shape, settings in shapes.items():
        if args.only in (None, shape):
            print(json.dumps(measure(args.model, args.data, args.batches, shape, [*settings, *args.set])), flush=True)


if __name__ == "__main__":
    main()
