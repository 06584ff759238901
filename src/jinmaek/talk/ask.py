"""One question to a run's model, with and without its adapter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from jinmaek.config import recipe_from_dict
from jinmaek.core.errors import RunError
from jinmaek.store import RunDirectory
from jinmaek.training.answer import answer
from jinmaek.training.checkpoint import list_checkpoints
from jinmaek.training.model import DTYPES, base_kept, choose_device, load_base, load_tokenizer


@dataclass(frozen=True, slots=True)
class Answer:
    """What the tuned model said, and the base model if it was asked too."""

    tuned: str
    base: str | None


def ask(run_dir: str | Path, question: str, *, base: bool = False, max_new_tokens: int = 128) -> Answer:
    """Ask the model of a run (its result, or its last checkpoint while there is none), greedily.

    Raises:
        RunError: no such run, or neither adapter nor checkpoint in it.
        ModelError: the base cannot be loaded.
    """
    directory = RunDirectory.open(Path(run_dir))
    recipe = recipe_from_dict(directory.read_manifest()["recipe"])
    adapter = _adapter(directory)
    tokenizer = load_tokenizer(recipe.model)
    device = choose_device()
    plain: Any = load_base(recipe.model, recipe.train.precision, device, kept=base_kept(recipe.model, device))
    dtype = None if recipe.train.precision == "fp32" else DTYPES[recipe.train.precision]

    from peft import PeftModel

    def said(model: nn.Module) -> str:
        return answer(
            model, tokenizer, recipe.data, question, device=device, dtype=dtype, max_new_tokens=max_new_tokens
        )

    before = said(plain) if base else None
    return Answer(said(PeftModel.from_pretrained(plain, str(adapter)).to(device)), before)


def _adapter(directory: RunDirectory) -> Path:
    if directory.adapter_path.is_dir():
        return directory.adapter_path
    kept = list_checkpoints(directory.checkpoints_path)
    if not kept:
        raise RunError("run.no_adapter", path=directory.path)
    return kept[-1]
