"""The model and the rows of every run: jinmaek's own tiny Korean model and its questions and answers."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from jinmaek.config import Recipe, recipe_from_dict
from jinmaek.training.examples import Example, load_data
from jinmaek.training.model import load_tokenizer
from jinmaek.training.sources import builtin_path

MODEL = "builtin:tiny-ko/model"
TRAIN = "builtin:tiny-ko/train.jsonl"
HELD_OUT = "builtin:tiny-ko/held_out.jsonl"
SHORT = 34
"""Rows up to this many tokens are trained on where the scenario says nothing else (three quarters of them)."""
PAD = 1
IGNORED = -100


@dataclass(slots=True)
class Row:
    """Token ids and labels of one row, as a data collator gets them."""

    ids: list[int]
    labels: list[int]


def row_of(example: Example) -> Row:
    """A jinmaek example as a row for transformers."""
    pairs = zip(example.input_ids.tolist(), example.learn.tolist(), strict=True)
    return Row(example.input_ids.tolist(), [token if learn else IGNORED for token, learn in pairs])


def base_recipe(**sections: dict[str, Any]) -> Recipe:
    """The recipe that every jinmaek run starts from; ``section={key: value}`` changes it."""
    values: dict[str, Any] = {
        "name": "faults",
        "model": {"name": MODEL, "quantization": "none", "activation_checkpointing": False},
        "adapter": {"rank": 8, "alpha": 16},
        "data": {"source": TRAIN, "held_out": 0.0, "max_length": 128},
        "train": {"precision": "fp32", "max_steps": 100, "batch_size": 8, "checkpoint_every": 0},
        "optim": {"lr": 2e-3, "warmup_steps": 5},
    }
    for section, table in sections.items():
        merged = values.get(section, {}) | table
        values[section] = {key: value for key, value in merged.items() if value is not None}
    return recipe_from_dict(values)


@lru_cache(maxsize=1)
def tokenizer() -> Any:
    """The model's tokenizer."""
    return load_tokenizer(base_recipe().model)


@lru_cache(maxsize=4)
def rows(source: str = TRAIN, longest: int = SHORT) -> tuple[Row, ...]:
    """Rows of ``source`` with at most ``longest`` tokens."""
    data = load_data(base_recipe(data={"source": source}).data, tokenizer(), 0)
    return tuple(row_of(example) for example in data.train if example.num_tokens <= longest)


@lru_cache(maxsize=1)
def _base() -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(builtin_path(MODEL), dtype=torch.float32)


def base_model() -> PreTrainedModel:
    """A fresh fp32 copy of the pre-trained model."""
    return copy.deepcopy(_base())


def collate(batch: list[Row]) -> dict[str, torch.Tensor]:
    """Rows under one another, padded on the right."""
    width = max(len(row.ids) for row in batch)

    def column(name: str, fill: int) -> torch.Tensor:
        lists = [list(getattr(row, name)) for row in batch]
        return torch.tensor([values + [fill] * (width - len(values)) for values in lists])

    return {"input_ids": column("ids", PAD), "labels": column("labels", IGNORED)}
