"""What every peer measures, in the same way, and the one line it prints.

``load_s`` runs from the start of the process (imports included) until the first step could begin, ``first_step_s``
from there to its end, compilation included; ``cold_start_s`` is both. A step is the time from a step's end to the next
one's, so that what happens between steps counts; the median hides a rare pause (a snapshot), ``tok_s_mean`` does not.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

STARTED = time.perf_counter()  # this module is the first that a peer imports
COMMON = ("model", "data", "steps", "warmup")
FIGURES = (
    "tokens", "tok_s", "tok_s_mean", "step_ms_median", "steps_timed", "peak_gib", "load_peak_gib", "load_s",
    "first_step_s", "cold_start_s", "gpu", "error",
)  # fmt: skip


def wait() -> None:
    """Until the GPU, if there is one, has done all it was given."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _peak_gib() -> float | None:
    import torch

    return round(torch.cuda.max_memory_allocated() / 2**30, 2) if torch.cuda.is_available() else None


@dataclass(slots=True)
class Clock:
    """When loading was over and when each step ended, and the memory that each part took at most."""

    ready: float = 0.0
    load_peak_gib: float | None = None
    first: float | None = None
    ends: list[float] = field(default_factory=list)

    def loaded(self) -> None:
        """The first step comes next; what loading took at most is put aside."""
        import torch

        wait()
        self.load_peak_gib = _peak_gib()
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()
        self.ready = time.perf_counter()

    def first_step_over(self) -> None:
        """For a peer that tells of a step's end later than at its end."""
        wait()
        self.first = time.perf_counter()

    def step_over(self) -> None:
        """A step has ended, on the device too."""
        wait()
        self.ends.append(time.perf_counter())

    def figures(self, tokens: Sequence[int], warmup: int) -> dict[str, Any]:
        """The figures of a run; ``tokens``: of each step from the first, padding not counted."""
        if len(self.ends) <= warmup:
            raise RuntimeError(f"only {len(self.ends)} steps ran, {warmup} of them to warm up")
        wait()
        seconds = [after - before for before, after in itertools.pairwise(self.ends)][warmup - 1 :]
        timed, median = tokens[warmup : len(self.ends)], statistics.median(seconds)
        first = self.ends[0] if self.first is None else self.first
        return {
            "tokens": round(statistics.fmean(timed)),
            "tok_s": round(statistics.fmean(timed) / median),
            "tok_s_mean": round(sum(timed) / sum(seconds)),
            "step_ms_median": round(median * 1e3, 1),
            "steps_timed": len(seconds),
            "peak_gib": _peak_gib(),
            "load_peak_gib": self.load_peak_gib,
            "load_s": round(self.ready - STARTED, 1),
            "first_step_s": round(first - self.ready, 1),
            "cold_start_s": round(first - STARTED, 1),
        }


def parser_of(doc: str | None) -> argparse.ArgumentParser:
    """The arguments that every peer takes."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="folder of the model")
    parser.add_argument("data", help="rows to train on")
    parser.add_argument("--steps", type=_at_least_one, default=50, help="steps that are timed")
    parser.add_argument("--warmup", type=_at_least_one, default=10, help="steps before them")
    return parser


def _at_least_one(text: str) -> int:
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError("at least 1: the first step is no step like the others")
    return number


def report(peer: str, args: argparse.Namespace, measure: Callable[[], dict[str, Any]]) -> None:
    """Print the peer's one line of JSON, also when it fails; the traceback goes to stderr."""
    said = {key: value for key, value in vars(args).items() if key not in COMMON and value not in (None, [])}
    line: dict[str, Any] = {"peer": peer, "setting": said, "model": args.model, **dict.fromkeys(FIGURES)}
    try:
        line |= measure()
    except BaseException as error:
        line["error"] = f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[-1].strip()}"
        raise
    finally:
        line["gpu"] = _gpu_name()
        print(json.dumps(line, ensure_ascii=False), flush=True)


def report_absent(peer: str, args: argparse.Namespace) -> None:
    """The line of a peer that is not there."""
    report(peer, args, lambda: {"error": "not installed"})


def _gpu_name() -> str | None:
    try:
        import torch

        return torch.cuda.get_device_name() if torch.cuda.is_available() else None
    except (ImportError, RuntimeError):  # a failed kernel leaves a CUDA context that answers nothing
        return None
