"""From a recipe to everything the loop needs, in one place for a new run, a resumed one and a replay."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from jinmaek.config.recipe import Recipe
from jinmaek.core.errors import Problem
from jinmaek.training.batches import BatchPlan
from jinmaek.training.examples import DataSet, load_data
from jinmaek.training.fusing import fuse_session_model, refusal
from jinmaek.training.kept_base import KeptBase
from jinmaek.training.model import (
    DTYPES,
    add_adapter,
    base_kept,
    choose_device,
    group_of,
    load_base,
    load_tokenizer,
    pad_id,
    trainable,
)
from jinmaek.training.optim import LossScale, make_optimizer, make_schedule
from jinmaek.training.step import Training


@dataclass(slots=True)
class Session:
    """A run that is ready to start.

    ``kernels``: which ones compute it, and why not the fused ones, as a message; ``base_kept``: that the base was
    read from, or is being put into, the folder of bases in 4 bits.
    """

    recipe: Recipe
    tokenizer: Any
    data: DataSet
    plan: BatchPlan
    training: Training
    max_steps: int
    kernels: Problem
    base_kept: Problem | None = None

    @property
    def groups(self) -> dict[str, int]:
        """Trainable weights by module name."""
        sizes: dict[str, int] = {}
        for name, weight in self.training.params.items():
            sizes[group_of(name)] = sizes.get(group_of(name), 0) + weight.numel()
        return sizes

    @property
    def num_weights(self) -> int:
        """Trainable weights in all."""
        return sum(self.groups.values())

    @property
    def pad_id(self) -> int:
        """What short rows are filled with; any token does, since it is neither looked at nor learnt."""
        return pad_id(self.tokenizer)

    @property
    def eval_tokens(self) -> int:
        """Padded tokens in an evaluation batch: no more than a training microbatch can hold."""
        section, train = self.recipe.data, self.recipe.train
        return train.batch_tokens if section.packing else train.batch_size * section.max_length


def load_session_data(recipe: Recipe) -> tuple[Any, DataSet, BatchPlan, int]:
    """Tokenizer, data, plan and number of steps: what can fail early, before the model is loaded.

    Raises:
        DataError, ModelError: see :func:`load_data` and :func:`load_tokenizer`.
    """
    tokenizer = load_tokenizer(recipe.model)
    data = load_data(recipe.data, tokenizer, recipe.train.seed)
    plan = BatchPlan(
        data.train,
        seed=recipe.train.seed,
        accumulation=recipe.train.accumulation,
        batch_size=recipe.train.batch_size,
        batch_tokens=recipe.train.batch_tokens if recipe.data.packing else None,
        pad_id=pad_id(tokenizer),
    )
    max_steps = recipe.train.max_steps or plan.num_steps(recipe.train.epochs or 1)
    return tokenizer, data, plan, max_steps


def make_session(recipe: Recipe, loaded: tuple[Any, DataSet, BatchPlan, int], base: Any = None) -> Session:
    """Load the model, add the adapter, make optimizer and schedule.

    ``base`` saves loading it: what :func:`load_base` returned for the same ``[model]`` table, without an adapter.

    Raises:
        ModelError: see :mod:`jinmaek.training.model`.
    """
    tokenizer, data, plan, max_steps = loaded
    device = choose_device()
    precision = recipe.train.precision
    refused = refusal(recipe, device)
    kept = base_kept(recipe.model, device) if base is None else None
    if base is None:
        base = load_base(recipe.model, precision, device, fused=refused is None, kept=kept)
    model = add_adapter(base, recipe.adapter, recipe.train.seed)
    fused, kernels = (None, refused) if refused is not None else fuse_session_model(recipe, model)
    params = trainable(model)
    optimizer = make_optimizer(params.values(), recipe.optim)
    training = Training(
        model=model,
        params=params,
        optimizer=optimizer,
        schedule=make_schedule(optimizer, recipe.optim, max_steps),
        loss_scale=LossScale(recipe.train, device) if precision == "fp16" else None,
        dtype=None if precision == "fp32" else DTYPES[precision],
        device=device,
        max_grad_norm=recipe.train.max_grad_norm,
        seed=recipe.train.seed,
        fused=fused,
    )
    assert all(weight.dtype == torch.float32 for weight in params.values()), "adapter weights train in fp32"
    return Session(recipe, tokenizer, data, plan, training, max_steps, kernels, _told(kept))


def _told(kept: KeptBase | None) -> Problem | None:
    """Whether the base was read from where it is kept, or is on its way there; ``None``: neither."""
    if kept is None or not (kept.writing or kept.is_whole):
        return None
    return Problem("model.base_written" if kept.writing else "model.base_read", {"path": kept.path})
