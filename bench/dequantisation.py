"""How fast NF4 with doubly quantised scales becomes bf16 again, beside bitsandbytes, at a model's matrices.

    PYTHONPATH=src:. python -m bench.dequantisation [--shape 12.8b]

TB/s of what must be read (codes, scales) and written (2 bytes a weight), the L2 cache flushed before each launch.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter

import bitsandbytes as bnb
import torch
import triton
from bench.throughput.shapes import SHAPES
from transformers import AutoModelForCausalLM

from jinmaek.kernels.nf4 import dequantise


def matrices(shape: str) -> Counter[tuple[int, int]]:
    """Sizes of the linear layers of a decoder layer, and how many of each."""
    with torch.device("meta"):
        layer = AutoModelForCausalLM.from_config(SHAPES[shape].config()).base_model.layers[0]
    linears = (module for module in layer.modules() if isinstance(module, torch.nn.Linear))
    return Counter((linear.out_features, linear.in_features) for linear in linears)


def measure(size: tuple[int, int]) -> dict[str, float]:
    """TB/s of a matrix by jinmaek, into a matrix and into a transposed one, and by bitsandbytes."""
    weight = torch.randn(size, device="cuda", dtype=torch.bfloat16) * 0.02
    codes, state = bnb.functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    out, turned = torch.empty_like(weight), torch.empty(size[::-1], device="cuda", dtype=torch.bfloat16)
    num_bytes = weight.numel() * (2 + 1 / 2 + 1 / state.blocksize + 4 / (state.blocksize * state.state2.blocksize))
    ways = {
        "jinmaek": lambda: dequantise(codes, state, out),
        "jinmaek, transposed": lambda: dequantise(codes, state, turned, transposed=True),
        "bitsandbytes": lambda: bnb.functional.dequantize_4bit(codes, state),
    }
    ms = {name: triton.testing.do_bench(way, warmup=50, rep=200, return_mode="median") for name, way in ways.items()}
    return {name: round(num_bytes / spent / 1e9, 2) for name, spent in ms.items()}


def main() -> None:
    """Print a JSON line for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="12.8b")
    args = parser.parse_args()
    for size, number in matrices(args.shape).items():
        print(json.dumps({"size": size, "in_a_layer": number, "tb_s": measure(size)}), flush=True)


if __name__ == "__main__":
    main()
