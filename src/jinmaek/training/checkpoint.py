"""Checkpoints: everything needed to go on to the bit, written in one piece, the adapter as PEFT writes it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from jinmaek.core.errors import ModelError, RunError, StorageError
from jinmaek.training.state import State, bring_to, state_of
from jinmaek.training.step import Training

STATE_FILE = "training_state.pt"
_PREFIX = "step-"


def save_checkpoint(training: Training, folder: Path, step: int, keep: int) -> Path:
    """Write ``folder/step-NNNNNNNN`` and remove all but the last ``keep``.

    Raises:
        ModelError: a trainable weight is not finite: such a state is never kept.
        StorageError: the disk is full or not writable; earlier checkpoints are untouched.
    """
    target = folder / f"{_PREFIX}{step:08d}"
    state = state_of(training, step)
    del state["weights"]  # PEFT's file holds them

    def write(draft: Path) -> None:
        save_adapter(training.model, draft)
        torch.save(state, draft / STATE_FILE)

    try:
        write_whole(target, write)
        for old in list_checkpoints(folder)[:-keep]:
            shutil.rmtree(old)
    # torch and safetensors report a full disk as RuntimeError and SafetensorError.
    except (OSError, RuntimeError, SafetensorError) as error:
        kept = list_checkpoints(folder)
        last = kept[-1] if kept else "-"
        raise StorageError("storage.checkpoint_failed", path=target, error=error, last=last) from error
    return target


def save_adapter(model: Any, folder: Path) -> None:
    """Write the adapter as PEFT does.

    Raises:
        ModelError: a weight is not finite: such an adapter is never written.
    """
    bad = non_finite(model)
    if bad:
        raise ModelError("model.non_finite_adapter", names=", ".join(bad[:3]), count=len(bad))
    # PEFT would look up the base on the hub to decide about embeddings; none are trained here.
    model.save_pretrained(folder, save_embedding_layers=False)


def non_finite(model: nn.Module) -> list[str]:
    """Names of the trainable weights that hold NaN or an infinity."""
    return [
        name
        for name, weight in model.named_parameters()
        if weight.requires_grad and not bool(torch.isfinite(weight).all())
    ]


def load_checkpoint(training: Training, path: Path) -> int:
    """Bring ``training`` to the state of ``path``; returns its step.

    Raises:
        RunError: it cannot be read.
    """
    bring_to(training, read_checkpoint(training, path))
    return int(path.name.removeprefix(_PREFIX))


def read_checkpoint(training: Training, path: Path) -> State:
    """The state in ``path``, on the host; ``training`` names its weights.

    Raises:
        RunError: it cannot be read.
    """
    from peft import load_peft_weights

    try:
        state: State = torch.load(path / STATE_FILE, map_location="cpu", weights_only=True)
        saved = load_peft_weights(str(path), device="cpu")
        weights = {name: _saved_weight(saved, name) for name in training.params}
    except (OSError, RuntimeError, EOFError, KeyError, UnpicklingError, SafetensorError) as error:
        raise RunError("run.checkpoint_unreadable", path=path, error=error) from error
    return {**state, "weights": weights}


def _saved_weight(saved: Mapping[str, torch.Tensor], name: str) -> torch.Tensor:
    """PEFT leaves the adapter's name out of its files' keys, and ``.weight`` out of DoRA's magnitudes."""
    short = name.replace(".default", "")
    return saved[short if short in saved else short.removesuffix(".weight")]


def list_checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints, oldest first; drafts that a killed process left do not count."""
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if (path / STATE_FILE).is_file())


def write_whole(target: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a draft folder, force it to disk, then rename it: ``target`` is whole or absent."""
    draft = target.with_name(f".{target.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        write(draft)
        for path in draft.rglob("*"):
            if path.is_file():
                _sync(path)
        _sync(draft)
        shutil.rmtree(target, ignore_errors=True)
        draft.rename(target)
        _sync(target.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
