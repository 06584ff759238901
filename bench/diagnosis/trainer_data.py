"""Faults of data and loss in transformers.Trainer, as far as a Trainer log can show them."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import torch
from bench.diagnosis import material
from bench.diagnosis.material import IGNORED, Row
from bench.diagnosis.mechanisms import fresh_head
from bench.diagnosis.scenario import Scenario, first_non_finite, until_learnt_by_heart
from bench.diagnosis.trainer_run import TrainerJob
from transformers import Trainer

_HELD_OUT = partial(material.rows, material.HELD_OUT)
_EVAL = {"eval_strategy": "steps", "eval_steps": 20}


def _masked(rows: Sequence[Row], share: float, seed: int) -> list[Row]:
    """Rows whose labels are all ignored, a share of them: the response template was not found in them."""
    pick = random.Random(seed)
    return [Row(row.ids, [IGNORED] * len(row.ids)) if pick.random() < share else row for row in rows]


def _all_masked(seed: int) -> TrainerJob:
    return TrainerJob(seed, {"max_steps": 80}, rows=_masked(material.rows(), 1.0, seed))


def _partly_masked(seed: int) -> TrainerJob:
    args = {"max_steps": 120, "logging_steps": 1, "per_device_train_batch_size": 2}
    return TrainerJob(seed, args, rows=_masked(material.rows(), 0.5, seed))


class _SummedLoss(Trainer):
    """A custom loss that is a mean over its microbatch and takes no notice of the accumulation.

    Trainer believes that the loss already divides by ``num_items_in_batch`` (as transformers 4.46 did for any
    model that takes keyword arguments) and adds the microbatches up.
    """

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        out = model(**inputs)
        return (out.loss, out) if return_outputs else out.loss


class Sequential(Trainer):
    """Rows in their order in the data set."""

    def _get_train_sampler(self, *_: Any, **__: Any) -> Any:
        return torch.utils.data.SequentialSampler(self.train_dataset)  # type: ignore[arg-type]


@lru_cache(maxsize=1)
def by_difficulty() -> tuple[Row, ...]:
    """Rows by the base model's loss on them, easiest first: a file in which one source follows another."""
    model = material.base_model().eval()
    losses = {}
    with torch.no_grad():
        for number, row in enumerate(material.rows(longest=128)):
            losses[number] = float(model(**material.collate([row])).loss)
    return tuple(material.rows(longest=128)[number] for number in sorted(losses, key=losses.__getitem__))


def difficulty_blocks(seed: int) -> list[Row]:
    """600 rows: 200 easy ones, 200 hard ones, 200 in between, each block shuffled in itself."""
    easy = list(by_difficulty())
    blocks = [easy[:200], easy[-200:], easy[300:500]]
    for number, block in enumerate(blocks):
        random.Random(seed + number).shuffle(block)
    return [row for block in blocks for row in block]


def _sorted(seed: int) -> TrainerJob:
    args = {"max_steps": 150, "per_device_train_batch_size": 4, "learning_rate": 3e-4}
    return TrainerJob(seed, args, rows=difficulty_blocks(seed), trainer=Sequential)


def shuffled_labels(rows: Sequence[Row], seed: int) -> list[Row]:
    """Labels of each row in a random order: the text is real, what is to be said after it is not."""
    pick = random.Random(seed)
    changed = []
    for row in rows:
        said = [label for label in row.labels if label != IGNORED]
        pick.shuffle(said)
        following = iter(said)
        changed.append(Row(row.ids, [IGNORED if label == IGNORED else next(following) for label in row.labels]))
    return changed


def _bad_labels(seed: int) -> TrainerJob:
    return TrainerJob(seed, {"max_steps": 100}, rows=shuffled_labels(material.rows(), seed))


def _few(seed: int, count: int) -> list[Row]:
    return random.Random(seed).sample(list(material.rows()), count)


def _overfit(seed: int) -> TrainerJob:
    args = {"max_steps": 160, "learning_rate": 6e-3, "eval_strategy": "steps", "eval_steps": 10}
    return TrainerJob(seed, args, rows=_few(seed, 24), held_out=_HELD_OUT()[:48])


def _leaked(seed: int) -> TrainerJob:
    few = _few(seed, 12)
    return TrainerJob(seed, {"max_steps": 120, "eval_strategy": "steps", "eval_steps": 20}, rows=few * 60, held_out=few)


def _accumulated(seed: int) -> TrainerJob:
    args = {"max_steps": 60, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 8, **_EVAL}
    return TrainerJob(seed, args, rows=material.rows(), held_out=_HELD_OUT()[:48], trainer=_SummedLoss)


def _permuted(seed: int) -> TrainerJob:
    return TrainerJob(seed, {"max_steps": 80}, prepare=partial(fresh_head, seed=seed))


def scenarios() -> list[Scenario]:
    """All of them."""
    return [
        Scenario(
            "labels-all-masked",
            "trainer",
            "labels-all-masked",
            "Real: a loss over no token. Injected: every label is -100, as when the response template is not found.",
            _all_masked,
            1,
        ),
        Scenario(
            "labels-partly-masked",
            "trainer",
            "labels-partly-masked",
            "Half of the rows have only -100 labels; of batches of two a quarter has no loss token; log each step.",
            _partly_masked,
            first_non_finite,
        ),
        Scenario(
            "summed-loss",
            "trainer",
            "loss-scaled-by-accumulation",
            "Real: a custom loss that ignores num_items_in_batch; Trainer adds 8 microbatches up. With evaluations.",
            _accumulated,
            1,
        ),
        Scenario(
            "overfit",
            "trainer",
            "memorisation-overfit",
            "Real: 24 rows, 53 epochs, evaluation on others.",
            _overfit,
            None,
            notes={"onset": "eval_minimum"},
        ),
        Scenario(
            "leaked",
            "trainer",
            "duplicate-or-leaked-data",
            "Real: 12 rows copied 60 times; the evaluation rows are the same.",
            _leaked,
            until_learnt_by_heart,
            also=("memorisation-overfit",),
        ),
        Scenario(
            "not-shuffled",
            "trainer",
            "not-shuffled",
            "Real: three sources behind one another (easy, hard, middle for the base model), sequential sampler.",
            _sorted,
            51,
        ),
        Scenario("bad-labels", "trainer", "bad-labels", "Real: labels of each row shuffled.", _bad_labels, 1),
        Scenario(
            "wrong-forward",
            "trainer",
            "wrong-forward-at-step-1",
            "Real: an output head that was not loaded and starts at random, as after a wrong class or a renamed key.",
            _permuted,
            1,
        ),
    ]
