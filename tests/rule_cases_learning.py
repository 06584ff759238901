"""Cases of each rule on how the loss moves, what the optimizer did and what the data held."""

import math
import random

from jinmaek.core.record import EvaluationRecord, GroupStats, Remark
from rule_cases_numbers import LR, NO_ITEMS, gradient, learning
from trainer_log import Case, linear, run

FEW = run(2, lr=LR, grad_norm=1.0, token_accuracy=0.5, update_ratio=1.0, clip_ratio=1.0, epoch=0.1, groups={},
          example_ids=("a",))  # fmt: skip
NOISE = [random.Random(seed).gauss(0, 1) for seed in range(1000)]


def held_out(values, every=20):
    return [EvaluationRecord(step=every * i, loss=value) for i, value in enumerate(values, 1)]


def rising(step):
    return learning(step) + max(0, step - 60) * 0.2


def blocks(step):
    return (1.5, 2.6, 1.4, 2.8)[(step - 1) // 50 % 4] + 0.04 * NOISE[step]


def groups(dead):
    def make(step):
        return {f"layer{i}": GroupStats(grad_norm=1.0, max_update=0.0 if i < dead else 1e-4) for i in range(3)}

    return make


def batch(size):
    return lambda step: tuple(f"row{i}" for i in range(size)) if size else (f"row{step}", f"row{-step}")


REPORT = {"num_examples": 100, "num_held_out": 0, "num_truncated": 0, "num_without_end": 0, "num_double_bos": 0}


def report(**counts):
    return {"data": REPORT | counts}


CASES = [
    Case(
        rule="divergence", id="lr-too-high-divergence",
        trigger=run(120, loss=rising, lr=2e-3, grad_norm=lambda step: 1.0 if step < 60 else 40.0),
        alike=run(120, loss=lambda step: learning(step) + (6.0 if step == 80 else 0.0), lr=2e-3),
        unchecked=run(30, loss=None, lr=LR), missing=("loss",),
    ),
    Case(
        rule="divergence", id="optim-8bit-map-bug",
        trigger=run(120, loss=rising, lr=1e-4, grad_norm=lambda step: 1.0 if step < 60 else 40.0),
        alike=run(120, loss=rising, lr=2e-3, grad_norm=lambda step: 1.0 if step < 60 else 40.0),
        unchecked=FEW, missing=("more_records",),
    ),
    Case(
        rule="divergence", id="divergence-plateau",
        trigger=([item for item in run(900, loss=lambda step: 5.5 + 0.1 * NOISE[step], grad_norm=40.0, lr=LR,
                                       epoch=lambda step: step / 1000, token_accuracy=0.1)[0] if item.step > 600], {}),
        alike=([item for item in run(900, grad_norm=1.0, lr=LR, epoch=lambda step: step / 1000,
                                     token_accuracy=0.6)[0] if item.step > 600], {}),
        unchecked=FEW, missing=("more_records",),
    ),
    Case(
        rule="divergence", id="not-shuffled",
        trigger=run(200, loss=lambda step: 1.2 + 0.02 * NOISE[step] + (1.2 if step > 150 else 0.0),
                    lr=linear(1e-4, 210), grad_norm=gradient),
        alike=run(200, lr=linear(1e-4, 210), grad_norm=gradient),
        unchecked=FEW, missing=("more_records",),
    ),
    Case(
        rule="spike", id="outlier-batch",
        trigger=run(100, loss=lambda step: 9.0 if step == 60 else learning(step)),
        alike=run(100, loss=learning),
        unchecked=FEW, missing=("more_records",),
    ),
    Case(
        rule="spike", id="grad-spike-finite",
        trigger=run(100, grad_norm=lambda step: 300.0 if step == 60 else gradient(step)),
        alike=run(100, grad_norm=lambda step: 3.0 if step == 60 else gradient(step)),
        unchecked=run(20, loss=None, lr=LR), missing=("loss|grad_norm",),
    ),
    Case(
        rule="stuck", id="stuck-from-start",
        trigger=run(300, loss=lambda step: 2.0 + 0.03 * NOISE[step]),
        alike=run(300, loss=learning),
        unchecked=FEW, missing=("more_records",),
    ),
    Case(
        rule="plateau", id="plateau",
        trigger=run(300, loss=lambda step: 2.0 + math.exp(-step / 10) + 0.03 * NOISE[step]),
        alike=run(300, loss=lambda step: 3.0 - step / 300 + 0.03 * NOISE[step]),
        unchecked=FEW, missing=("more_records",),
    ),
    Case(
        rule="near-zero-loss", id="memorisation-overfit",
        trigger=run(200, loss=lambda step: 2.0 * math.exp(-step / 20) + 0.02, epoch=lambda step: step / 20),
        alike=run(200, loss=learning, epoch=lambda step: step / 20),
        unchecked=run(30, loss=None, lr=LR), missing=("loss",),
    ),
    Case(
        rule="near-zero-loss", id="duplicate-or-leaked-data",
        trigger=run(200, loss=lambda step: 2.0 * math.exp(-step / 20) + 0.02, epoch=lambda step: step / 400),
        alike=run(200, loss=learning, epoch=lambda step: step / 400),
        unchecked=FEW, missing=("more_records",),
    ),
    Case(
        rule="overfitting", id="memorisation-overfit",
        trigger=run(200, held_out([2.2, 1.9, 1.8, 1.9, 2.1, 2.4, 2.8, 3.2]), loss=lambda step: 2.2 * math.exp(-step / 100)),
        alike=run(200, held_out([2.2, 1.9, 1.8, 1.802, 1.803, 1.80]), loss=lambda step: 2.2 * math.exp(-step / 900)),
        unchecked=run(200, held_out([2.0, math.nan, 2.0])), missing=("evaluations",),
    ),
    Case(
        rule="accumulated-loss", id="loss-scaled-by-accumulation",
        trigger=run(200, held_out([2.0, 1.9, 1.85, 1.82]), loss=lambda step: 16 * learning(step)),
        alike=run(200, held_out([2.0, 1.9, 1.85, 1.82]), loss=learning),
        unchecked=run(50), missing=("evaluations",),
    ),
    Case(
        rule="wrong-start", id="wrong-forward-at-step-1",
        trigger=run(30, loss=12.4, token_accuracy=0.0),
        alike=run(300, loss=lambda step: 2.0 + 8.9 * math.exp(-step / 30)),
        unchecked=([item for item in run(200)[0] if item.step > 100], {}), missing=("beginning",),
    ),
    Case(
        rule="wrong-start", id="bad-labels",
        trigger=run(200, loss=lambda step: 6.0 + 8.0 * math.exp(-step / 20) + 0.05 * NOISE[step]),
        alike=run(200, loss=learning),
        unchecked=run(30, loss=None, lr=LR), missing=("loss",),
    ),
    Case(
        rule="accuracy-against-loss", id="emb-not-padded-collapse",
        trigger=run(60, loss=lambda step: 0.7 - step / 100, token_accuracy=lambda step: 0.6 - step / 200),
        alike=run(60, loss=lambda step: 0.7 - step / 100, token_accuracy=lambda step: 0.6 + step / 200),
        unchecked=run(60), missing=("token_accuracy",),
    ),
    Case(
        rule="epoch-staircase", id="epoch-staircase",
        trigger=run(300, loss=lambda step: 2.0 - 0.5 * ((step - 1) // 100) + 0.03 * NOISE[step],
                    epoch=lambda step: step / 100),
        alike=run(300, loss=lambda step: 2.0 - step / 300 + 0.03 * NOISE[step], epoch=lambda step: step / 100),
        unchecked=run(60), missing=("epoch",),
    ),
    Case(
        rule="ordered-data", id="not-shuffled",
        trigger=run(200, loss=blocks),
        alike=run(200, loss=lambda step: 2.0 + 0.6 * NOISE[step]),
        unchecked=FEW, missing=("more_records",),
    ),
    Case(
        rule="ordered-data", id="length-group-sawtooth",
        trigger=run(400, loss=lambda step: 2.0 + (step % 12) / 12 + 0.02 * NOISE[step], epoch=lambda step: step / 96),
        alike=run(200, loss=lambda step: 2.0 + 0.6 * NOISE[step]),
        unchecked=run(60, loss=None, lr=LR), missing=("loss",),
    ),
    Case(
        rule="frozen-weights", id="params-not-updating",
        trigger=run(60, update_ratio=0.0, lr=LR, grad_norm=gradient, optimizer_stepped=True),
        alike=run(60, loss=learning, grad_norm=0.0, lr=LR),
        unchecked=run(60, loss=None, lr=LR), missing=("update_ratio|grad_norm|loss",),
    ),
    Case(
        rule="dead-adapter", id="partial-target-modules",
        trigger=run(30, lr=LR, optimizer_stepped=True, groups=groups(1)),
        alike=run(30, lr=LR, optimizer_stepped=True, groups=groups(0)),
        unchecked=run(30, lr=LR), missing=("groups",),
    ),
    Case(
        rule="always-clipped", id="always-clipped",
        trigger=run(60, grad_norm=30.0, facts={"max_grad_norm": 1.0}),
        alike=run(60, grad_norm=lambda step: 30.0 if step % 5 else 0.5, facts={"max_grad_norm": 1.0}),
        unchecked=run(60, grad_norm=30.0), missing=("max_grad_norm",),
    ),
    Case(
        rule="update-beyond-bound", id="optim-8bit-map-bug",
        trigger=run(60, update_ratio=lambda step: 1.0 + step / 5, lr=LR, optimizer_stepped=True),
        alike=run(60, update_ratio=lambda step: 1.0 + step / 200, lr=LR, optimizer_stepped=True),
        unchecked=run(60, lr=LR), missing=("update_ratio",),
    ),
    Case(
        rule="optimizer-reset", id="resume-state-lost",
        trigger=run(100, [Remark(kind="resumed", step=60)], loss=lambda step: learning(step) + (3.0 if step > 60 else 0)),
        alike=run(100, [Remark(kind="resumed", step=60)], loss=learning),
        unchecked=run(100, loss=lambda step: learning(step) + (3.0 if step > 60 else 0)), missing=("resumed",),
    ),
    Case(
        rule="no-loss-tokens", id="labels-all-masked",
        trigger=run(30, loss=None, num_loss_tokens=0, lr=LR),
        alike=run(30, num_loss_tokens=80, lr=LR),
        unchecked=run(30), missing=("num_loss_tokens",),
    ),
    Case(
        rule="no-loss-tokens", id="labels-partly-masked",
        trigger=run(30, num_loss_tokens=lambda step: 0 if step % 5 == 0 else 80, lr=LR),
        alike=run(30, num_loss_tokens=lambda step: 1 if step % 5 == 0 else 80, lr=LR),
        unchecked=NO_ITEMS, missing=("num_loss_tokens",),
    ),
    Case(
        rule="constant-batch", id="constant-batch",
        trigger=run(30, example_ids=batch(4), facts=report()),
        alike=run(30, example_ids=batch(4), facts=report(num_examples=4)),
        unchecked=run(30), missing=("example_ids",),
    ),
    Case(
        rule="missing-eos", id="eos-never-learned",
        trigger=run(30, facts=report(num_without_end=100)),
        alike=run(30, facts=report(num_without_end=70, num_truncated=60)),
        unchecked=run(30), missing=("data_report",),
    ),
    Case(
        rule="truncation", id="silent-truncation",
        trigger=run(30, facts=report(num_truncated=25)),
        alike=run(30, facts=report(num_truncated=3)),
        unchecked=run(30, facts={"data": {"num_examples": 5}}), missing=("data_report",),
    ),
    Case(
        rule="double-bos", id="double-bos",
        trigger=run(30, facts=report(num_double_bos=100)),
        alike=run(30, facts=report(num_double_bos=1)),
        unchecked=run(30), missing=("data_report",),
    ),
]  # fmt: skip
