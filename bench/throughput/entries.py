"""What is compared: a row of the table for each entry, in this order.

Where an entry says nothing else, every peer has LoRA of rank 8 on query_key_value with alpha 32 and without dropout,
and packs of KoAlpaca rows, one pack of T tokens a step. "best" is the peer's fastest setting that fits in 80 GB.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Peer = Literal["founding", "trl", "unsloth", "jinmaek"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A peer with its arguments, on a model of :mod:`bench.throughput.shapes`."""

    name: str
    peer: Peer
    model: str
    arguments: tuple[str, ...] = ()


# What turns the founding recipe (batch 2, fp16, padded) into packs in bf16. Of the 1,000 rows 1,024 tokens cut three.
_PACKED = (
    "data.packing=true", "data.max_length=1024", "train.batch_size=", "train.precision=bf16",
    "model.compute_dtype=bf16", "optim.name=adamw", "optim.schedule=constant", "adapter.dropout=0.0",
    "data.held_out=0.0",
)  # fmt: skip


def _jinmaek(name: str, tokens: int, *settings: str, model: str = "12.8b") -> Entry:
    given = (*_PACKED, f"train.batch_tokens={tokens}", *settings)
    return Entry(name, "jinmaek", model, tuple(word for setting in given for word in ("--set", setting)))


def _peer(peer: Peer, name: str, tokens: int, checkpointing: str, *more: str, model: str = "12.8b") -> Entry:
    return Entry(name, peer, model, ("--tokens", str(tokens), "--checkpointing", checkpointing, *more))


# What jinmaek's (and PEFT's) all-linear means for GPT-NeoX, by name.
_ALL_LINEAR = ("--rank", "16", "--targets", "query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")
# Llama's counterpart of query_key_value.
_QKV = ("q_proj", "k_proj", "v_proj")
# auto fills what memory is free with the dequantised base: a peak with it says nothing on what a step needs.
_LEAN = "kernels.cache_weights=never"

ENTRIES: tuple[Entry, ...] = (
    Entry("founding", "founding", "12.8b"),
    _peer("trl", "trl-default", 8192, "default"),
    _peer("trl", "trl-best", 4096, "none"),
    _peer("unsloth", "unsloth-default", 8192, "unsloth"),
    _peer("unsloth", "unsloth-best-4096", 4096, "none"),
    _peer("unsloth", "unsloth-best-8192", 8192, "none"),
    _jinmaek("jinmaek-8192", 8192),
    _jinmaek("jinmaek-8192-lean", 8192, _LEAN),
    _jinmaek("jinmaek-4096", 4096, _LEAN),
    _jinmaek("jinmaek-24gib", 4096, "kernels.memory_gib=23.5", _LEAN),
    _jinmaek("jinmaek-9gib", 8192, "kernels.memory_gib=9", _LEAN),
    _jinmaek("jinmaek-dropout", 8192, "adapter.dropout=0.05"),
    _jinmaek("jinmaek-all-linear", 8192, "adapter.rank=16", 'adapter.targets="all-linear"'),
    _peer("unsloth", "unsloth-all-linear", 8192, "none", *_ALL_LINEAR),
    _jinmaek("jinmaek-fp8", 8192, "kernels.fp8=true"),
    _jinmaek("jinmaek-plain", 4096, "kernels.fused=false"),
    # The recipe as it is: only the model, the data and the steps are the benchmark's.
    Entry("jinmaek-founding", "jinmaek", "12.8b"),
    _jinmaek("jinmaek-8448", 8448),
    _jinmaek("jinmaek-1.3b", 2048, model="1.3b"),
    _peer("unsloth", "unsloth-1.3b", 2048, "none", model="1.3b"),
    _peer("trl", "trl-1.3b", 2048, "none", model="1.3b"),
    _jinmaek("jinmaek-llama8b", 8192, 'adapter.targets=["q_proj","k_proj","v_proj"]', model="llama8b"),
    _peer("unsloth", "unsloth-llama8b", 8192, "none", "--targets", *_QKV, model="llama8b"),
)

# ``--smoke``: the same command with every peer on a model of 4 million parameters, also without a GPU.
SMOKE: tuple[Entry, ...] = (
    Entry("founding", "founding", "tiny"),
    _peer("trl", "trl", 1024, "none", model="tiny"),
    _peer("unsloth", "unsloth", 1024, "none", model="tiny"),
    _jinmaek("jinmaek", 1024, model="tiny"),
    _jinmaek("jinmaek-llama", 1024, 'adapter.targets=["q_proj","k_proj","v_proj"]', model="tiny-llama"),
    _jinmaek("jinmaek-wrong", 1024, "adapter.ranc=16", model="tiny"),  # a misspelt key: what a failure looks like
)
