"""The fused step by itself at a model's real shape: speed, memory, graph, where its time goes. No checkpoint is needed.

    PYTHONPATH=src:. python -m bench.fused_step [--shape 12.8b] [--tokens 8192] [--only NAME …] [--profile]

Weights are random and made on the GPU in NF4; documents have KoAlpaca's lengths (log-normal, median 210 tokens).
Prints a line a variant: forward, backward and AdamW, synchronised, median of ``--steps`` after three.
"""

from __future__ import annotations

import argparse
import gc
import json
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
from bench.throughput.shapes import SHAPES

from jinmaek.kernels.fuse import fuse
from jinmaek.kernels.model import FusedModel
from jinmaek.kernels.row import Row
from jinmaek.kernels.stream import Dtypes

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
IN_BF16 = Dtypes(BF16, BF16, BF16)
DEVICE = torch.device("cuda")


@dataclass(frozen=True, slots=True)
class Variant:
    """How a step is computed; ``tokens`` 0: what the command line says."""

    name: str
    tokens: int = 0
    dtypes: Dtypes = IN_BF16
    graph: bool = True
    keep: bool = False
    fp8: bool = False
    limit_gib: float | None = None


VARIANTS = (
    Variant("eager", graph=False),
    Variant("graph"),
    Variant("weights kept", keep=True),
    Variant("24 GiB, 4,096 tokens", 4096, limit_gib=24),
    Variant("9 GiB", limit_gib=9),
    Variant("fp8", fp8=True),
    Variant("fp8, weights kept", fp8=True, keep=True),
    Variant("founding precision, 640 tokens", 640, Dtypes(BF16, FP16, FP32), graph=False),
    Variant("founding precision, 640 tokens, weights kept", 640, Dtypes(BF16, FP16, FP32), graph=False, keep=True),
)


def build(shape: str, rank: int, targets: str, dropout: float) -> Any:
    """The model with an adapter: NF4 weights, norms of ones, made layer by layer on the GPU."""
    from peft import LoraConfig, get_peft_model

    with torch.device("meta"):
        model = transformers.AutoModelForCausalLM.from_config(SHAPES[shape].config(), dtype=BF16)
    _materialise(model)
    model.requires_grad_(False)
    wanted = targets if targets == "all-linear" else targets.split(",")
    adapter = LoraConfig(r=rank, lora_alpha=32, lora_dropout=dropout, target_modules=wanted, task_type="CAUSAL_LM")
    model = get_peft_model(model, adapter)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(0, 0.01)
    return model


def _materialise(model: Any) -> None:
    from bitsandbytes.nn import Linear4bit

    head = model.get_output_embeddings()
    for name, layer in list(model.named_modules()):
        if isinstance(layer, torch.nn.Linear) and layer is not head:
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, _four_bit(Linear4bit, layer))
    for name, weight in list(model.named_parameters()):
        if weight.is_meta:
            parent, _, last = name.rpartition(".")
            value = torch.randn(weight.shape, device=DEVICE, dtype=BF16) * 0.02
            value = torch.ones_like(value) if "norm" in name and last == "weight" else value
            setattr(model.get_submodule(parent), last, torch.nn.Parameter(value, requires_grad=False))
    rotary = model.base_model.rotary_emb
    rotary.inv_freq = rotary.compute_default_rope_parameters(model.config)[0].to(DEVICE)


def _four_bit(kind: Any, layer: torch.nn.Linear) -> Any:
    import bitsandbytes as bnb

    made = kind(layer.in_features, layer.out_features, layer.bias is not None, compute_dtype=BF16, device="meta")
    weight = torch.randn(layer.out_features, layer.in_features, device=DEVICE, dtype=BF16) * 0.02
    codes, state = bnb.functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    made.weight = bnb.nn.Params4bit(
        codes, requires_grad=False, quant_state=state, bnb_quantized=True, quant_type="nf4", module=made
    )
    if layer.bias is not None:
        made.bias = torch.nn.Parameter(torch.zeros(layer.out_features, device=DEVICE, dtype=BF16), requires_grad=False)
    return made


def row_of(tokens: int) -> tuple[Row, int]:
    """Documents of KoAlpaca's lengths that fill the row, and how many tokens are learnt."""
    rng, lengths = np.random.default_rng(0), []
    while sum(lengths) < tokens:
        lengths.append(int(min(max(rng.lognormal(5.35, 0.5), 20), 1437, tokens - sum(lengths))))
    ids = rng.integers(3, 30000, tokens)
    targets = np.roll(ids, -1)
    targets[np.cumsum(lengths) - 1] = -1
    return Row.of(ids, targets, lengths, DEVICE, all_learnt=True), int((targets >= 0).sum())


def measure(model: Any, variant: Variant, tokens: int, num_steps: int, *, profile: bool) -> dict[str, Any]:
    """One variant's figures."""
    limit = None if variant.limit_gib is None else int(variant.limit_gib * 2**30)
    fused = fuse(model, variant.dtypes, max_positions=2048, recompute=True, memory_limit=limit)
    fused.weights.keep, fused.weights.fp8 = variant.keep, variant.fp8
    fused.fixed_tokens = tokens if variant.graph else None
    params = [weight for weight in model.parameters() if weight.requires_grad]
    step = _step(fused, params, tokens)
    torch.cuda.reset_peak_memory_stats()
    first = _seconds(step)
    for _ in range(2):
        step()
    seconds = statistics.median(_seconds(step) for _ in range(num_steps))
    plan = fused.plan(tokens)
    found = {
        "variant": variant.name,
        "tokens": tokens,
        "ms": round(seconds * 1e3, 1),
        "tok_s": round(tokens / seconds),
        "peak_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2),
        "first_step_s": round(first, 1),
        "recomputed": round(plan.share_recomputed, 2),
        "offloaded": plan.offload,
    }
    if profile:
        found["busy_ms"] = _profile(step)
    return found


def _step(fused: FusedModel, params: list[Any], tokens: int) -> Callable[[], None]:
    row, num_learnt = row_of(tokens)
    seed, weight = torch.tensor([1], device=DEVICE), torch.full((1,), 1 / num_learnt, device=DEVICE)
    optimizer = torch.optim.AdamW(params, lr=1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        fused.loss(row, seed, weight)
        optimizer.step()

    return step


def _seconds(step: Callable[[], None]) -> float:
    torch.cuda.synchronize()
    started = time.perf_counter()
    step()
    torch.cuda.synchronize()
    return time.perf_counter() - started


def _profile(step: Callable[[], None]) -> float:
    """Milliseconds that the GPU is busy in a step; prints its longest kernels."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as seen:
        _seconds(step)
    events = sorted(seen.key_averages(), key=lambda event: -event.self_device_time_total)
    for event in events[:16]:
        print(f"   {event.self_device_time_total / 1e3:8.2f} ms {event.count:5d} {event.key[:90]}", flush=True)
    return round(sum(event.self_device_time_total for event in events) / 1e3, 1)


def _chosen(names: list[str]) -> Iterator[Variant]:
    return (variant for variant in VARIANTS if not names or variant.name in names)


def main() -> None:
    """Build the model once, measure its variants."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", choices=list(SHAPES), default="12.8b")
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--targets", default="query_key_value")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    model = build(args.shape, args.rank, args.targets, args.dropout)
    for variant in _chosen(args.only):
        try:
            found = measure(model, variant, variant.tokens or args.tokens, args.steps, profile=args.profile)
        except torch.OutOfMemoryError as error:
            found = {"variant": variant.name, "error": str(error).splitlines()[0]}
        print(json.dumps(found), flush=True)
        gc.collect()
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
