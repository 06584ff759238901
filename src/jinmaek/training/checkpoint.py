"""Checkpoints: everything needed to go on to the bit, written in one piece.

A step's random numbers and examples are functions of seed and step (:mod:`jinmaek.training.step`,
:mod:`jinmaek.training.batches`), so the step number *is* the state of RNG and data cursor; the global generators
are saved beside it for whoever loads a checkpoint by hand.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from jinmaek.core.errors import ModelError, RunError, StorageError
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
    state = {
        "step": step,
        "optimizer": training.optimizer.state_dict(),
        "schedule": training.schedule.state_dict(),
        "loss_scale": None if training.loss_scale is None else training.loss_scale.state_dict(),
        "rng": _rng_state(),
    }

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
    from peft import load_peft_weights, set_peft_model_state_dict

    try:
        state: Mapping[str, Any] = torch.load(path / STATE_FILE, map_location="cpu", weights_only=True)
        weights = load_peft_weights(str(path), device="cpu")
    except (OSError, RuntimeError, KeyError) as error:
        raise RunError("run.checkpoint_unreadable", path=path, error=error) from error
    set_peft_model_state_dict(training.model, weights)
    training.optimizer.load_state_dict(state["optimizer"])
    training.schedule.load_state_dict(state["schedule"])
    if training.loss_scale is not None and state["loss_scale"] is not None:
        training.loss_scale.load_state_dict(state["loss_scale"])
    return int(state["step"])


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


def _rng_state() -> dict[str, Any]:
    state: dict[str, Any] = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state
