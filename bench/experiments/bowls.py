"""Runs of known truth: Adam on a quadratic bowl with noisy gradients, recorded as jinmaek records a step.

``loss(w) = floor + ½ Σ h·w²``; the gradient of ``n`` tokens is ``h·w`` plus noise of deviation ``sigma/√n`` in each
weight; the printed loss carries the entropy of its batch as noise of its own. What limits such a run follows from how
it was made, and is checked by running it again without that limit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jinmaek.core.record import RunFacts, StepRecord

WEIGHTS = 400
TOKENS = 64  # of a step, in two microbatches


@dataclass(frozen=True)
class Bowl:
    steps: int = 800
    lr: float = 1e-3
    linear: bool = False  # lr falls to 0
    sigma: float = 8.0  # a token's gradient noise in each weight: 1 in a step's
    start: float = 0.3  # nats above the floor
    floor: float = 2.0
    entropy: float = 0.05  # deviation of a step's printed loss
    damping: float = 1.0  # what the optimizer multiplies its update by
    curvature: tuple[float, float] = (5.0, 50.0)


def run(bowl: Bowl, seeds: Sequence[int]) -> tuple[list[list[StepRecord]], np.ndarray]:
    """(records, excess of the last tenth) of each seed; all seeds at once."""
    rng = np.random.default_rng(list(seeds))
    num = len(seeds)
    h = np.exp(np.linspace(*np.log(bowl.curvature), WEIGHTS))
    w = rng.choice([-1.0, 1.0], (num, WEIGHTS)) * np.sqrt(2 * bowl.start / (WEIGHTS * h))
    m, v = np.zeros_like(w), np.zeros_like(w)
    noise = bowl.sigma / np.sqrt(TOKENS / 2)
    rows, excess = [], []
    for step in range(1, bowl.steps + 1):
        lr = bowl.lr * (1 - (step - 1) / bowl.steps if bowl.linear else 1.0)
        above = 0.5 * (h * w * w).sum(1)
        halves = h * w + noise * rng.standard_normal((2, num, WEIGHTS))
        g = halves.mean(0)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        update = bowl.damping * (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
        w = w - lr * update
        printed = bowl.floor + above + bowl.entropy * rng.standard_normal(num)
        rows.append(
            (step, lr, printed, np.linalg.norm(g, axis=1), np.linalg.norm(halves[0], axis=1), abs(update).max(1))
        )
        excess.append(above)
    late = np.mean(excess[-bowl.steps // 10 :], axis=0)
    return [[_record(row, place) for row in rows] for place in range(num)], late


def _record(row: tuple[Any, ...], place: int) -> StepRecord:
    step, lr, loss, grad, first, ratio = row
    return StepRecord(
        step=step,
        loss=float(loss[place]),
        grad_norm=float(grad[place]),
        clip_ratio=1.0,
        lr=lr,
        num_tokens=TOKENS,
        num_loss_tokens=TOKENS,
        optimizer_stepped=True,
        update_ratio=float(ratio[place]),
        first_grad_norm=float(first[place]),
        first_loss_tokens=TOKENS // 2,
    )


def facts(**more: Any) -> RunFacts:
    return RunFacts(
        source="jinmaek", filters_loss=False, logging_steps=1, num_weights=WEIGHTS, optimizer="adamw", **more
    )


NOISY = Bowl()
CAPABLE_OF_NO_MORE = Bowl(lr=3e-4, sigma=0.8)
SLOW = Bowl(lr=1e-6, sigma=2.4, start=1.0, entropy=0.02)
DAMPED = replace(SLOW, lr=1e-3, damping=1e-3)  # the optimizer's updates are a thousandth of Adam's
WILD = replace(NOISY, damping=12.0)  # second moments that decay: updates beyond what Adam can make


class Source:
    """A log that lies in memory."""

    def __init__(self, name: str, records: Sequence[Any], run_facts: RunFacts | None = None) -> None:
        self.name, self.records, self.unread = name, records, 0
        self.facts = run_facts or facts()

    def items(self) -> Iterator[Any]:
        yield from self.records
