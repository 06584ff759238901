"""The random numbers of a step are a function of the run's seed and the step's number (decision 3)."""

from __future__ import annotations

import hashlib

import torch


def step_seed(seed: int, step: int) -> int:
    """Seed of the step's random numbers (dropout): a pure function, so any step can be run again by itself."""
    return int.from_bytes(hashlib.blake2b(f"{seed}:{step}".encode(), digest_size=8).digest()) >> 1


def seed_generators(device: torch.device, seed: int) -> None:
    """Seed the generators that a step draws from.

    Not torch.manual_seed: for every accelerator kind that is absent it formats the whole call stack, which
    took longer than all the recording of a step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index or 0].manual_seed(seed)
