"""Only kernels that repeat to the bit, and what they are called.

On the GPU, flash attention's backward does not repeat, the memory-efficient one does and costs about 3 %
(``docs/performance.md``); cuBLAS repeats with a fixed workspace.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

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
        with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]):
            yield f"memory-efficient attention, cuBLAS workspace {os.environ['CUBLAS_WORKSPACE_CONFIG']}"
