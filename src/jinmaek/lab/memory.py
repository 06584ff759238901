"""How many trials fit into the memory that there is, from what the first one took."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from jinmaek.core.errors import Problem
from jinmaek.lab.outcome import Outcome

GIB = 2**30
_CONTEXT_BYTES = GIB  # CUDA's context and the allocator's rounding, which the measured peak does not hold
_MARGIN = 1.1


def trials_that_fit(first: Outcome, wanted: int) -> tuple[int, Problem]:
    """How many may run at a time, at most ``wanted``, and a message that says why."""
    free = free_gpu_bytes() if first.on_gpu else free_host_bytes()
    if first.peak_bytes is None or free is None:
        return 1, Problem("lab.jobs_unknown")
    each = first.peak_bytes * _MARGIN + (_CONTEXT_BYTES if first.on_gpu else 0)
    fit = max(1, min(wanted, int(free // each)))
    facts = {"peak": each / GIB, "free": free / GIB, "jobs": fit, "wanted": wanted}
    if fit == wanted:
        return fit, Problem("lab.jobs_fit", facts)
    return fit, Problem("lab.jobs_gpu_short" if first.on_gpu else "lab.jobs_short", facts)


def free_gpu_bytes() -> int | None:
    """Free memory of the first visible GPU; ``None`` where nvidia-smi does not say."""
    index = (os.environ.get("CUDA_VISIBLE_DEVICES") or "0").split(",")[0]
    query = ["nvidia-smi", f"--id={index}", "--query-gpu=memory.free", "--format=csv,noheader,nounits"]
    try:
        said = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
        return int(said.split()[0]) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def free_host_bytes() -> int | None:
    """Memory that the host can give without swapping; ``None`` where the system does not say (not Linux)."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None
