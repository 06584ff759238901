"""Where faults are put in, trained with, and proved: one base model, loaded once, and a small data file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from jinmaek.config import load_recipe
from jinmaek.config.recipe import Recipe
from jinmaek.training.model import DTYPES, choose_device, load_base, load_tokenizer

NUM_ROWS = 200


@dataclass(slots=True)
class Stage:
    """A base model, rows to train on, and a folder. ``recipe`` and ``settings`` make every scenario's recipe."""

    recipe: str
    settings: tuple[str, ...]
    rows: list[dict[str, str]]
    folder: Path
    base: Any = None
    tokenizer: Any = None
    first: Recipe | None = None
    biases: dict[str, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def on_cpu(cls, folder: Path) -> Stage:
        """tiny-ko, 4-bit, two short examples a step."""
        source = Path("src/jinmaek/assets/tiny-ko/train.jsonl")
        rows = [json.loads(line) for line in source.read_text("utf-8").splitlines()[:NUM_ROWS]]
        settings = (
            "data.held_out_source=", "data.loss=all", "data.held_out=0.0", "data.max_length=48", "train.batch_size=2",
            "samples.questions=", "adapter.rank=16", "train.checkpoint_every=0", "optim.warmup_steps=0",
            "optim.schedule=\"constant\"", "train.max_skipped_steps=4",
        )  # fmt: skip
        return cls("quickstart", settings, rows, folder)

    @classmethod
    def on_gpu(cls, folder: Path, model: str, data: Path) -> Stage:
        """polyglot-ko-12.8b's shape with the founding recipe; ``data`` are KoAlpaca rows."""
        rows = [json.loads(line) for line in data.read_text("utf-8").splitlines()[:NUM_ROWS]]
        settings = (
            f"model.name={model}", "data.held_out=0.0", "data.max_length=256", "train.checkpoint_every=0",
            "optim.schedule=\"constant\"", "train.max_skipped_steps=4", "adapter.dropout=0.0",
            "optim.name=\"adamw\"", "samples.questions=", "kernels.fused=false",
        )  # fmt: skip
        return cls("koalpaca-polyglot-12.8b", settings, rows, folder)

    def make_recipe(self, seed: int, rows: Sequence[dict[str, str]], settings: Sequence[str]) -> Recipe:
        """The stage's recipe on ``rows``, changed by ``settings``."""
        data = self.folder / "rows.jsonl"
        data.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
        return load_recipe(self.recipe, [*self.settings, f"data.source={data}", f"train.seed={seed}", *settings])

    def prepare(self, recipe: Recipe) -> Any:
        """The bare base, as ``recipe`` wants it; loaded at the first call."""
        if self.base is None:
            # Always as first loaded: how weights are quantised depends on the dtype they are loaded in.
            self.first = self.first or recipe
            self.base = load_base(self.first.model, self.first.train.precision, choose_device())
            self.tokenizer = load_tokenizer(recipe.model)
            self.biases = {
                name: weight.detach().clone() for name, weight in self.base.named_parameters() if name.endswith("bias")
            }
        strip(self.base)
        # bitsandbytes casts a 4-bit layer's bias to the compute dtype, for good, in its first forward pass.
        for name, bias in self.biases.items():
            self.base.get_parameter(name).data = bias.clone()
        self.base.set_attn_implementation(recipe.model.attention)
        for module in self.base.modules():
            if hasattr(module, "compute_dtype"):
                module.compute_dtype = DTYPES[recipe.model.compute_dtype]
        return self.base

    def reloaded(self, recipe: Recipe) -> Any:
        """The base anew from its file: what was broken in memory is whole again."""
        self.base = None
        return self.prepare(recipe)

    def fresh_folder(self, name: str) -> Path:
        """An empty run directory."""
        path = self.folder / name
        shutil.rmtree(path, ignore_errors=True)
        return path


def strip(base: Any) -> None:
    """Take the adapter off again, leaving the base's own modules."""
    for name, module in list(base.named_modules()):
        if hasattr(module, "base_layer"):
            parent, _, last = name.rpartition(".")
            setattr(base.get_submodule(parent), last, module.base_layer)
    for attribute in ("peft_config", "_hf_peft_config_loaded"):
        if attribute in base.__dict__:
            delattr(base, attribute)


def largest_output(base: Any, module: str, input_ids: torch.Tensor) -> float:
    """Largest |y| of the module named like ``module`` on ``input_ids`` [rows, tokens], in fp32."""
    found: list[float] = []

    def see(_: Any, __: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        found.append(float(first.abs().max()))

    handles = [each.register_forward_hook(see) for name, each in base.named_modules() if name.endswith(module)]
    with torch.no_grad(), torch.autocast(input_ids.device.type, torch.bfloat16):
        base(input_ids=input_ids, use_cache=False)
    for handle in handles:
        handle.remove()
    return max(found)
