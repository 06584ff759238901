"""Whether the fused kernels compute a run, why not if they do not, and what they are given."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from jinmaek.config.recipe import Dtype, Recipe
from jinmaek.core.errors import ModelError, Problem
from jinmaek.training.batches import Batch
from jinmaek.training.model import DTYPES, load_config

if TYPE_CHECKING:  # Triton is there only where there is a GPU
    from jinmaek.kernels.model import FusedModel
    from jinmaek.kernels.row import Row

_OLDEST = (8, 0)  # compute capability: Ampere, the first with bf16
_OLDEST_FP8 = (8, 9)
_PAIRS: tuple[tuple[Dtype, Dtype], ...] = (("bf16", "bf16"), ("fp16", "fp16"), ("fp16", "bf16"))


def refusal(recipe: Recipe, device: torch.device) -> Problem | None:
    """Why the fused kernels do not compute this recipe here; ``None`` where they do.

    Reads the model's configuration, no weights.

    Raises:
        ModelError: fp8 is asked for and the GPU has none, or the configuration cannot be loaded.
    """
    found = _setting_in_the_way(recipe) or _device_in_the_way(device, fp8=recipe.kernels.fp8)
    if found is not None:
        return found
    from jinmaek.kernels.fuse import UnsupportedError, require_supported

    try:
        require_supported(load_config(recipe.model))
    except UnsupportedError as error:
        return _told(error)
    return None


def _setting_in_the_way(recipe: Recipe) -> Problem | None:
    if not recipe.kernels.fused:
        return Problem("kernels.off")
    model, precision = recipe.model, recipe.train.precision
    wrong = {
        "model.quantization": model.quantization in ("int8", "fp4"),
        "model.attention": model.attention != "sdpa",
        "model.trust_remote_code": model.trust_remote_code,
        "adapter.dora": recipe.adapter.dora,
        "train.precision": precision == "fp32",
        "model.compute_dtype": model.quantization == "nf4" and (precision, model.compute_dtype) not in _PAIRS,
    }
    values = recipe.model_dump()
    for key in (key for key, is_wrong in wrong.items() if is_wrong):
        section, _, name = key.partition(".")
        return Problem("kernels.setting", {"key": key, "value": str(values[section][name]).lower()})
    return None


def _device_in_the_way(device: torch.device, *, fp8: bool) -> Problem | None:
    if device.type != "cuda":
        return Problem("kernels.no_gpu")
    if importlib.util.find_spec("triton") is None:
        return Problem("kernels.no_triton")
    capability, name = torch.cuda.get_device_capability(device), torch.cuda.get_device_name(device)
    if capability < _OLDEST:
        return Problem("kernels.old_gpu", {"name": name})
    if fp8 and capability < _OLDEST_FP8:
        raise ModelError("kernels.no_fp8", name=name)
    return None


def _told(error: Any) -> Problem:
    return Problem(error.code, error.facts)


def fuse_session_model(recipe: Recipe, model: Any) -> tuple[FusedModel | None, Problem]:
    """The fused counterpart of the model with its adapter, and a line on it; ``None`` and why where there is none."""
    from jinmaek.kernels.fuse import UnsupportedError, fuse
    from jinmaek.kernels.stream import Dtypes

    precision = DTYPES[recipe.train.precision]
    compute = precision if recipe.model.quantization == "none" else DTYPES[recipe.model.compute_dtype]
    # fp16 has not the range for a residual stream: there it is fp32, as autocast has it.
    residual = torch.float32 if precision == torch.float16 else precision
    section, train = recipe.kernels, recipe.train
    try:
        fused = fuse(
            model,
            Dtypes(compute, precision, residual),
            max_positions=recipe.data.max_length,
            recompute=recipe.model.activation_checkpointing,
            memory_limit=None if section.memory_gib is None else int(section.memory_gib * 2**30),
        )
    except UnsupportedError as error:
        return None, _told(error)
    tokens = train.batch_tokens if recipe.data.packing else train.batch_size * recipe.data.max_length
    keep = section.cache_weights == "always" or (section.cache_weights == "auto" and fused.has_room_for_weights(tokens))
    fused.weights.keep = keep
    fused.weights.fp8 = section.fp8
    # Packs are filled up to one length, which a graph needs.
    fused.fixed_tokens = train.batch_tokens if recipe.data.packing else None
    if section.fp8:
        return fused, Problem("kernels.fused_fp8")
    return fused, Problem("kernels.fused_cached" if keep else "kernels.fused")


def row_of(batch: Batch, fused: FusedModel, *, fill: bool = False) -> Row:
    """The batch's documents behind one another, without padding; ``fill``: up to the length of all packs."""
    from jinmaek.kernels.row import Row, filled_up

    ids, targets, lengths = _flat(batch.input_ids, batch), _flat(batch.targets, batch), list(batch.lengths)
    device, tokens = fused.embedding.device, fused.fixed_tokens
    if not fill or tokens is None or len(ids) > tokens:
        return Row.of(ids, targets, lengths, device)
    # Also where there is no graph: what is computed must not hang on the memory that happens to be free.
    ids, targets, lengths = filled_up(ids, targets, lengths, tokens, fused.max_positions)
    return Row.of(ids, targets, lengths, device, all_learnt=True)


def _flat(rows: torch.Tensor, batch: Batch) -> np.ndarray:
    """The tokens of ``rows`` that belong to an example, in order."""
    if len(rows) == 1:  # a pack, or one example
        return rows[0, : sum(batch.lengths)].numpy()
    return np.concatenate([row[:length].numpy() for row, length in zip(rows, batch.lengths, strict=True)])
