"""What is compared: a row of the table for each entry, in this order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Peer = Literal["founding", "trl", "unsloth", "jinmaek"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A peer with its arguments on a model's shape; ``says`` is for the reader of the table."""

    name: str
    peer: Peer
    model: str
    says: str
    arguments: tuple[str, ...] = ()


LLAMA_LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# LoRA of rank 8 on query_key_value with alpha 32 and without dropout is what the peers have too, unless an entry says
# otherwise. Of the 1,000 rows 1,024 tokens cut three.
_PACKED = (
    "data.packing=true", "data.max_length=1024", "train.batch_size=", "train.precision=bf16", "optim.name=adamw",
    "optim.schedule=constant", "adapter.dropout=0.0", "data.loss=all", "data.held_out=0.0",
)  # fmt: skip


def _given(*settings: str) -> tuple[str, ...]:
    return tuple(word for setting in settings for word in ("--set", setting))


def _jinmaek(name: str, tokens: int, says: str = "", *settings: str, model: str = "12.8b") -> Entry:
    arguments = _given(*_PACKED, f"train.batch_tokens={tokens}", *settings)
    return Entry(name, "jinmaek", model, f"T={tokens}" + (f", {says}" if says else ""), arguments)


def _unsloth(name: str, tokens: int, checkpointing: str, model: str = "12.8b", *more: str) -> Entry:
    says = {"none": "no checkpointing", "unsloth": "its checkpointing"}[checkpointing]
    arguments = ("--tokens", str(tokens), "--checkpointing", checkpointing, *more)
    return Entry(name, "unsloth", model, f"T={tokens}, {says}" + (", all linear r=16" if more else ""), arguments)


def _trl(name: str, tokens: int, checkpointing: str, model: str = "12.8b") -> Entry:
    says = {"none": "no checkpointing", "default": "checkpointing"}[checkpointing]
    arguments = ("--tokens", str(tokens), "--checkpointing", checkpointing)
    return Entry(name, "trl", model, f"T={tokens}, {says}", arguments)


_ALL_LINEAR = ("adapter.targets=all-linear", "adapter.rank=16")
_LLAMA = ("--rank", "16", "--targets", *LLAMA_LINEAR)

ENTRIES: tuple[Entry, ...] = (
    Entry("founding", "founding", "12.8b", "batch 2, fp16, padded"),
    _trl("trl-default-8192", 8192, "default"),
    _trl("trl-best-4096", 4096, "none"),
    _unsloth("unsloth-default-8192", 8192, "unsloth"),
    _unsloth("unsloth-best-4096", 4096, "none"),
    _unsloth("unsloth-best-8192", 8192, "none"),
    _jinmaek("jinmaek-2048", 2048),
    _jinmaek("jinmaek-4096", 4096),
    _jinmaek("jinmaek-8192", 8192),
    _jinmaek("jinmaek-2048-dropout", 2048, "dropout 0.05", "adapter.dropout=0.05"),
    _jinmaek("jinmaek-4096-dropout", 4096, "dropout 0.05", "adapter.dropout=0.05"),
    _jinmaek("jinmaek-8192-dropout", 8192, "dropout 0.05", "adapter.dropout=0.05"),
    _jinmaek("jinmaek-all-linear", 4096, "all linear r=16", *_ALL_LINEAR),
    Entry("jinmaek-founding", "jinmaek", "12.8b", "the founding recipe: batch 2, fp16, padded"),
    _jinmaek("jinmaek-24gib", 4096, "in 24 GiB", "kernels.memory_gib=24"),
    _jinmaek("jinmaek-9gib", 8192, "in 9 GiB", "kernels.memory_gib=9"),
    _jinmaek("jinmaek-fp8", 4096, "fp8", "kernels.fp8=true"),
    _jinmaek("jinmaek-plain", 4096, "plain transformers, checkpointing", "kernels.fused=false"),
    _jinmaek("jinmaek-1.3b", 2048, model="1.3b"),
    _unsloth("unsloth-1.3b", 2048, "none", "1.3b"),
    _trl("trl-1.3b", 2048, "none", "1.3b"),
    _jinmaek("jinmaek-llama8b", 8192, "all linear r=16", *_ALL_LINEAR, model="llama8b"),
    _unsloth("unsloth-llama8b", 8192, "none", "llama8b", *_LLAMA),
    _unsloth("unsloth-llama8b-default", 8192, "unsloth", "llama8b", *_LLAMA),
)

# ``--smoke``: the same command with every peer on a model of 4 million parameters, also without a GPU.
SMOKE: tuple[Entry, ...] = (
    Entry("founding", "founding", "tiny", "batch 2, fp16, padded"),
    _trl("trl", 1024, "none", "tiny"),
    _unsloth("unsloth", 1024, "none", "tiny"),
    _jinmaek("jinmaek", 1024, model="tiny"),
    _jinmaek("jinmaek-llama", 1024, "all linear r=16", *_ALL_LINEAR, model="tiny-llama"),
    _jinmaek("jinmaek-wrong", 1024, "a misspelt key", "adapter.ranc=16", model="tiny"),
)
