"""What is wrong inside jinmaek's loop, data or optimizer in a faulty run: each a change of one of its functions."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from bench.diagnosis.jinmaek_run import Patch
from bench.diagnosis.schedules import BuggyAdam8bit
from torch import nn

from jinmaek.training import batches, examples, optim
from jinmaek.training import step as steps
from jinmaek.training.batches import IGNORED, BatchPlan
from jinmaek.training.checkpoint import load_checkpoint
from jinmaek.training.examples import Example

_targets = batches._targets
_tokenise = examples.tokenise
_encoded = examples._encoded
_run_step = steps.run_step
_cross_entropy = steps.cross_entropy
_make_schedule = optim.make_schedule
_microbatches = BatchPlan.microbatches
EOS = 2


def masked_labels(share: float, seed: int) -> Patch:
    """A collator that finds no answer in a share of the rows and masks all of them (template not found)."""

    def targets(example: Example) -> np.ndarray:
        lost = random.Random(f"{seed}:{example.id}").random() < share
        return np.full(example.num_tokens, IGNORED, np.int64) if lost else _targets(example)

    return patch.object(batches, "_targets", targets)


def shuffled_targets(seed: int) -> Patch:
    """Labels of each row in a random order."""

    def targets(example: Example) -> np.ndarray:
        found = _targets(example)
        learnt = np.flatnonzero(found != IGNORED)
        found[learnt] = found[np.random.default_rng(seed).permutation(learnt)]
        return found

    return patch.object(batches, "_targets", targets)


def eos_masked() -> Patch:
    """Padding is end-of-text and the collator masks padding: no end is ever learnt (labels[labels == pad] = -100)."""

    def tokenise(*given: Any, **named: Any) -> Any:
        found, counts = _tokenise(*given, **named)
        return [dataclasses.replace(one, learn=one.learn & (one.input_ids != EOS)) for one in found], counts

    return patch.object(examples, "tokenise", tokenise)


def eos_absent() -> Patch:
    """A template that appends no end-of-text."""

    def tokenise(*given: Any, **named: Any) -> Any:
        found, counts = _tokenise(*given, **named)
        cut = [Example(one.id, one.input_ids[:-1], one.learn[:-1]) for one in found if one.input_ids[-1] == EOS]
        return cut, counts

    return patch.object(examples, "tokenise", tokenise)


def double_bos(bos: int = EOS) -> Patch:
    """The template writes the opening token and the tokenizer adds another."""

    def encoded(*given: Any) -> Any:
        for ids, offsets in _encoded(*given):
            yield [bos, bos, *ids], [(0, 0), (0, 0), *offsets]

    return patch.object(examples, "_encoded", encoded)


def unshuffled() -> Patch:
    """Rows in the order of the file."""
    return patch.object(batches, "epoch_order", lambda count, seed, epoch: list(range(count)))


def constant_batch() -> Patch:
    """A data loader whose cursor never moves: step 1's rows at every step."""
    return patch.object(BatchPlan, "microbatches", lambda self, step: _microbatches(self, 1))


def summed_accumulation() -> Patch:
    """Each microbatch's mean is added up instead of being averaged over the step's tokens."""
    total = [1]

    def run_step(training: Any, step: int, given: Sequence[Any], *more: Any) -> Any:
        total[0] = sum(batch.num_loss_tokens for batch in given)
        return _run_step(training, step, given, *more)

    def cross_entropy(training: Any, batch: Any, reduction: str) -> torch.Tensor:
        return _cross_entropy(training, batch, reduction) * (total[0] / batch.num_loss_tokens)

    return _Both(patch("jinmaek.training.loop.run_step", run_step), patch.object(steps, "cross_entropy", cross_entropy))


def schedule_ignores_skips() -> Patch:
    """The scheduler steps whether or not the optimizer did (a loop that does not ask the scaler)."""

    def run_step(training: Any, step: int, given: Sequence[Any], *more: Any) -> Any:
        outcome = _run_step(training, step, given, *more)
        if not outcome.finite:
            training.schedule.step()
        return outcome

    return patch("jinmaek.training.loop.run_step", run_step)


def no_guard() -> Patch:
    """The check for non-finite numbers is gone: the optimizer applies whatever comes."""
    receive = steps.StepOutcome.receive

    def always(self: Any) -> None:
        receive(self)
        self.finite = True

    return patch.object(steps.StepOutcome, "receive", always)


def no_last_save() -> Patch:
    """jinmaek refuses to write weights that are not finite; here it is let through to the end of its records."""
    return _Both(
        patch("jinmaek.training.checkpoint.non_finite", lambda model: []),
    )


def no_floor() -> Patch:
    """The loss scale has no floor, as torch's own has none."""
    return patch.object(optim.LossScale, "update", lambda self, used, finite: self._scaler.update())


def frozen_optimizer() -> Patch:
    """The optimizer was built over copies of the weights."""

    def make(params: Any, section: Any) -> torch.optim.Optimizer:
        return optim.make_optimizer([nn.Parameter(weight.detach().clone()) for weight in params], section)

    return patch("jinmaek.training.session.make_optimizer", make)


def buggy_adam() -> Patch:
    """bitsandbytes 0.36.0–0.41.0's 8-bit AdamW."""

    def make(params: Any, section: Any) -> torch.optim.Optimizer:
        return BuggyAdam8bit(params, section.lr, (section.beta1, section.beta2), section.eps, section.weight_decay)

    return patch("jinmaek.training.session.make_optimizer", make)


def schedule_for(num_steps: int, **changes: Any) -> Patch:
    """A schedule made for another number of steps or another warm-up than the recipe says."""

    def make(optimizer: Any, section: Any, max_steps: int) -> Any:
        return _make_schedule(optimizer, section.model_copy(update=changes), num_steps)

    return patch("jinmaek.training.session.make_schedule", make)


def forgetful_resume() -> Patch:
    """A resume that loads the adapter and nothing else: Adam's moments and the schedule start anew."""

    def load(training: Any, path: Any) -> int:
        fresh = training.optimizer.state_dict(), training.schedule.state_dict()
        step = load_checkpoint(training, path)
        training.optimizer.load_state_dict(fresh[0])
        training.schedule.load_state_dict(fresh[1])
        return step

    return patch("jinmaek.pulse.run.load_checkpoint", load)


def detached(model: nn.Module, ending: str = "dense_4h_to_h") -> None:
    """The adapter's output on modules of this name is cut from the graph: no gradient ever reaches it."""
    for name, module in model.named_modules():
        if name.endswith(f"{ending}.lora_B.default"):
            module.register_forward_hook(lambda _, given, out: out.detach())


class _Both:
    """Two patches as one."""

    def __init__(self, *patches: Patch) -> None:
        self._patches = patches

    def __enter__(self) -> None:
        for change in self._patches:
            change.__enter__()

    def __exit__(self, *_: Any) -> None:
        for change in reversed(self._patches):
            change.__exit__(None, None, None)


def common_token(rows: Callable[[], Sequence[Any]], share: float) -> int:
    """A token that about this share of the rows holds in its question."""
    counted: dict[int, int] = {}
    found = rows()
    for row in found:
        for token in set(row.ids):
            counted[token] = counted.get(token, 0) + 1
    return min(counted, key=lambda token: (abs(counted[token] - share * len(found)), token))
