"""SHA-256 names for what a run depends on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import nn

from jinmaek.training.examples import Example

_THREADS = 8


def of_tensors(tensors: Mapping[str, torch.Tensor]) -> str:
    """Of names, dtypes, shapes and bits, in the order of names. Copies and hashlib leave the interpreter free."""
    names = sorted(tensors)
    with ThreadPoolExecutor(_THREADS) as pool:
        parts = pool.map(_of_tensor, (tensors[name] for name in names))
        pairs = [f"{name}={part}" for name, part in zip(names, parts, strict=True)]
    return hashlib.sha256("\n".join(pairs).encode()).hexdigest()


def _of_tensor(tensor: torch.Tensor) -> str:
    digest = hashlib.sha256(f"{tensor.dtype}{tuple(tensor.shape)}".encode() + b"\0")
    # Read in place: a copy of a base of 7 GB with the interpreter's lock held took 15 s.
    raw: Any = tensor.detach().contiguous().flatten().view(torch.uint8).cpu().numpy()
    digest.update(raw)
    return digest.hexdigest()


def of_base(model: nn.Module) -> str:
    """Of the frozen weights as they are used: quantised ones by their stored codes."""
    return of_tensors({name: weight for name, weight in model.named_parameters() if not weight.requires_grad})


def content_keys(examples: Iterable[Example]) -> list[str]:
    """A short name for each example's tokens and learn flags: what two runs score alike has the same, whatever row
    of whatever file it came from."""
    return [
        hashlib.blake2b(example.input_ids.tobytes() + example.learn.tobytes(), digest_size=6).hexdigest()
        for example in examples
    ]


def of_examples(examples: Iterable[Example]) -> str:
    """Of ids, tokens and learn flags, in order."""
    digest = hashlib.sha256()
    for example in examples:
        digest.update(example.id.encode() + b"\0")
        digest.update(example.input_ids.tobytes())
        digest.update(example.learn.tobytes())
    return digest.hexdigest()
