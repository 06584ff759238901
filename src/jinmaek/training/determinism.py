"""Only kernels that repeat to the bit, and what they are called.

On the GPU the memory-efficient attention splits its backward over the keys and adds the parts up in any order,
unless torch is told to be deterministic; flash attention's backward has no such mode that repeats. cuBLAS
repeats with a fixed workspace. What it costs is in ``docs/performance.md``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def repeatable(enabled: bool, device: torch.device) -> Iterator[str]:
    """Within, steps repeat to the bit; yields the sentence that ``run.json`` keeps."""
    if not enabled:
        yield "not asked for"
    elif device.type != "cuda":
        yield f"CPU kernels, {torch.get_num_threads()} threads"
    else:
        from torch.nn.attention import SDPBackend, sdpa_kernel

        # cuBLAS reads this when its first handle is made.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]), _deterministic_algorithms():
            yield f"deterministic kernels, cuBLAS workspace {os.environ['CUBLAS_WORKSPACE_CONFIG']}"


@contextmanager
def _deterministic_algorithms() -> Iterator[None]:
    settings: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), settings.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    # Filling fresh memory would hide a read of unwritten memory at the price of one more write of everything.
    settings.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        settings.fill_uninitialized_memory = before[1]
