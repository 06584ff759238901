"""Optimizers that are broken on purpose, for tests and benches."""

from contextlib import contextmanager

import torch

# What the kernels read of a map: 8 bits' worth.
_READ = 256


def broken_map():
    """The unsigned map of bitsandbytes 0.36.0 to 0.41.0 as its kernels read it, fp32 [256].

    ``create_dynamic_map(signed=False)`` of tag 0.41.0 made 524 codes in order; the kernels read the first 256, the
    largest of which is 0.093 instead of 1. Fixed in 0.41.1.
    """
    codes = [0.0, 1.0]
    for exponent in range(7):
        for count in (2 ** (exponent + 2) + 1, 3):  # 3: the additional items, which belonged after the loop
            edges = torch.linspace(0.1, 1, count)
            codes += ((edges[:-1] + edges[1:]) / 2 * 10.0 ** (exponent - 6)).tolist()
    return torch.tensor(sorted(codes)[:_READ], dtype=torch.float32)


@contextmanager
def broken_second_moments():
    """Within, bitsandbytes' fresh 8-bit optimizers quantise the second moment with :func:`broken_map`."""
    from bitsandbytes.optim.optimizer import Optimizer8bit

    fill = Optimizer8bit.fill_qmap

    def fill_broken(self):
        fill(self)
        self.name2qmap["udynamic"] = broken_map().to(self.name2qmap["udynamic"].device)

    Optimizer8bit.fill_qmap = fill_broken
    try:
        yield
    finally:
        Optimizer8bit.fill_qmap = fill
