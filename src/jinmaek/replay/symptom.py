"""What is wrong with a step, by its record, and which step of a run to look at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import inf, isfinite

from jinmaek.core.errors import RunError
from jinmaek.core.finding import Diagnosis
from jinmaek.core.record import StepRecord
from jinmaek.core.verdict import Symptom
from jinmaek.detect.level import Level
from jinmaek.detect.rules.optimizer import adam_bound

_GRAD_SPIKE = 10.0  # times the median gradient norm before
_BOUND_MARGIN = 1.25  # 8-bit moments are rounded


@dataclass(frozen=True, slots=True)
class Failure:
    """The symptom of a step, and whether another run of it shows the symptom too.

    ``limit``: what the loss, gradient norm or update ratio must stay below to count as healthy; a spike is
    healed where less than half of its height over the level is left.
    """

    symptom: Symptom
    limit: float = inf
    level: float | None = None

    def seen_in(self, record: StepRecord) -> bool:
        """Whether ``record`` shows it; a step that is no longer finite shows any."""
        values = (record.loss, record.grad_norm)
        if any(value is not None and not isfinite(value) for value in values):
            return True
        observed = {
            "loss_spike": record.loss,
            "gradient_spike": record.grad_norm,
            "update_beyond_bound": record.update_ratio,
        }.get(self.symptom)
        return observed is not None and observed > self.limit


def failures(records: Iterable[StepRecord], betas: tuple[float, float]) -> Iterator[tuple[int, Failure]]:
    """What each record shows, judged by the healthy steps before it; in one pass."""
    losses, grads, num_updates = Level(), Level(), 0
    for record in records:
        num_updates += bool(record.optimizer_stepped)
        failure = _failure(record, losses, grads, _BOUND_MARGIN * adam_bound(num_updates, *betas))
        yield record.step, failure
        if failure.symptom in ("none", "update_beyond_bound") and record.loss is not None:
            losses.add(record.loss)
            grads.add(record.grad_norm or 0.0)


def _failure(record: StepRecord, losses: Level, grads: Level, bound: float) -> Failure:
    loss, norm, ratio = record.loss, record.grad_norm, record.update_ratio
    if loss is not None and not isfinite(loss):
        return Failure("loss_not_finite")
    if norm is not None and not isfinite(norm):
        return Failure("gradient_not_finite")
    if loss is not None and loss > losses.high:
        return Failure("loss_spike", (loss + losses.median) / 2, losses.median)
    if norm is not None and grads.known and norm > _GRAD_SPIKE * grads.median:
        return Failure("gradient_spike", (norm + grads.median) / 2, grads.median)
    if ratio is not None and ratio > bound:
        return Failure("update_beyond_bound", bound, bound)
    return Failure("none")


def choose_step(shown: Mapping[int, Failure], diagnosis: Diagnosis) -> int:
    """The step to prove: the first with a symptom since the gravest finding began, else the first non-finite one,
    else the first with any symptom.

    Raises:
        RunError: nothing failed.
    """
    since = diagnosis.causes[0].first_step if diagnosis.causes else None
    if since is not None:
        found = next((step for step, failure in shown.items() if step >= since and failure.symptom != "none"), None)
        if found is not None:
            return found
    failing = {step: failure.symptom for step, failure in shown.items() if failure.symptom != "none"}
    non_finite = [step for step, symptom in failing.items() if symptom.endswith("_not_finite")]
    candidates = [*non_finite, *failing, *([since] if since is not None and since in shown else [])]
    if not candidates:
        raise RunError("prove.nothing_wrong")
    return candidates[0]
