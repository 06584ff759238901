"""What transformers' Trainer writes down of a run, step by step, without a model.

Kept as Trainer, accelerate and torch do it: the GradScaler's scale in float32, the skipped optimizer steps that do
not move the schedule, the nan filter, and the window of ``logging_steps`` over which the loss is a mean.
"""

import math
import random
import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from jinmaek.core.record import RunFacts, StepRecord
from jinmaek.detect import Panel, conclude, diagnose

GROWTH_INTERVAL = 2000


def single(value: float) -> float:
    """Rounded to float32, as the scale is kept."""
    return struct.unpack("f", struct.pack("f", value))[0]


@dataclass(kw_only=True)
class Trainer:
    """One run's settings.

    Attributes:
        schedule: applied steps -> lr.
        precision: ``fp16`` (with a GradScaler), else none.
        old_accelerate: before 1.0 a skip was inferred from a scale that fell.
        fused: the skip happens inside the optimizer, and the schedule moves all the same.
        amnesia: the optimizer leaves weights alone whose gradient is NaN (bitsandbytes 8-bit).
        reads_lr: ``next`` (transformers before 4.5x prints the lr of the coming step) or ``used``.
    """

    schedule: Callable[[int], float]
    interval: int = 10
    precision: str = "fp16"
    scale: float = 65536.0
    old_accelerate: bool = True
    fused: bool = False
    amnesia: bool = False
    filters: bool = True
    prints_gradient: bool = False
    steps_per_epoch: float | None = None
    digits: int | None = 4
    reads_lr: str = "next"
    first_step: int = 1
    applied: int = 0
    skipped: list[int] = field(default_factory=list)
    poisoned_at: int | None = None
    unfrozen_at: int | None = None

    def run(self, losses: Sequence[float], overflow: Iterable[int] = ()) -> list[StepRecord]:
        """The records of these losses; at the steps of ``overflow`` only the gradient is not finite."""
        overflow, records = frozenset(overflow), []
        total, since = 0.0, 0
        for step, loss in enumerate(losses, self.first_step):
            used = self.schedule(self.applied)
            value = math.nan if self.poisoned_at is not None else loss
            gradient = math.nan if step in overflow or not math.isfinite(value) else 0.5 + 0.1 * value
            total += total / (1 + since) if self.filters and not math.isfinite(value) else value
            since += 1
            self._step_optimizer(step, gradient)
            if since == self.interval:
                records.append(self._record(step, total / since, gradient, used))
                total, since = 0.0, 0
        return records

    def _record(self, step: int, mean: float, gradient: float, used: float) -> StepRecord:
        return StepRecord(
            step=step,
            num_steps=self.interval,
            loss_reported=mean if self.digits is None else round(mean, self.digits),
            grad_norm=gradient if self.prints_gradient else None,
            lr=self.schedule(self.applied) if self.reads_lr == "next" else used,
            epoch=None if self.steps_per_epoch is None else round(step / self.steps_per_epoch, 2),
        )

    def _step_optimizer(self, step: int, gradient: float) -> None:
        before = self.scale
        overflowed = self.precision == "fp16" and not math.isfinite(gradient)
        if self.precision == "fp16":
            self._move_scale(overflowed)
            if not overflowed and single(1 / before if before else math.inf) > 3.4e38:
                gradient = math.nan  # the check came before the gradient was multiplied by 1/scale = inf
        if overflowed:
            self.skipped.append(step)
        elif not math.isfinite(gradient) and not self.amnesia:
            self.poisoned_at = self.poisoned_at or step
        seen = self.scale < before if self.old_accelerate else overflowed
        if seen and not self.fused:
            return
        if overflowed and not self.fused:
            self.unfrozen_at = self.unfrozen_at or step
        self.applied += 1

    def _move_scale(self, overflowed: bool) -> None:
        if overflowed:
            self.scale, self._good = single(self.scale * 0.5), 0
            return
        self._good = getattr(self, "_good", 0) + 1
        if self._good == GROWTH_INTERVAL:
            self.scale, self._good = single(self.scale * 2.0), 0


def linear(peak: float, total: int, warmup: int = 0) -> Callable[[int], float]:
    """transformers' ``get_linear_schedule_with_warmup``."""
    return _warmed(peak, warmup, lambda step: max(0.0, (total - step) / max(1, total - warmup)))


def cosine(peak: float, total: int, warmup: int = 0, floor: float = 0.0) -> Callable[[int], float]:
    """transformers' cosine, and the one with ``min_lr_rate``."""

    def factor(step: int) -> float:
        progress = (step - warmup) / max(1, total - warmup)
        return max(0.0, 0.5 * (1.0 + math.cos(math.pi * 2.0 * 0.5 * progress))) * (1 - floor) + floor

    return _warmed(peak, warmup, lambda step: factor(min(step, total)))


def restarts(peak: float, total: int, cycles: int, warmup: int = 0) -> Callable[[int], float]:
    """transformers' cosine with hard restarts."""

    def factor(step: int) -> float:
        progress = (step - warmup) / max(1, total - warmup)
        return 0.0 if progress >= 1.0 else max(0.0, 0.5 * (1.0 + math.cos(math.pi * ((cycles * progress) % 1.0))))

    return _warmed(peak, warmup, factor)


def polynomial(peak: float, total: int, power: float, warmup: int = 0) -> Callable[[int], float]:
    """transformers' polynomial decay to 1e-7."""
    end = 1e-7

    def factor(step: int) -> float:
        if step > total:
            return end / peak
        return ((peak - end) * (1 - (step - warmup) / (total - warmup)) ** power + end) / peak

    return _warmed(peak, warmup, factor)


def constant(peak: float, warmup: int = 0) -> Callable[[int], float]:
    """A constant lr, after a linear warm-up or at once."""
    return _warmed(peak, warmup, lambda step: 1.0)


def inverse_sqrt(peak: float, warmup: int) -> Callable[[int], float]:
    """transformers' inverse square root."""
    timescale = warmup or 10_000
    return _warmed(peak, warmup, lambda step: 1.0 / math.sqrt((step + timescale - warmup) / timescale))


def step_decay(peak: float, every: int, gamma: float) -> Callable[[int], float]:
    """torch's StepLR."""
    return lambda step: peak * gamma ** (step // every)


def stable_decay(peak: float, warmup: int, stable: int, decay: int, shape: str = "cosine") -> Callable[[int], float]:
    """transformers' warm-up, stable, decay."""

    def factor(step: int) -> float:
        if step < warmup + stable:
            return 1.0
        progress = min(1.0, (step - warmup - stable) / max(1, decay))
        return 1.0 - progress if shape == "linear" else max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))

    return _warmed(peak, warmup, factor)


def _warmed(peak: float, warmup: int, factor: Callable[[int], float]) -> Callable[[int], float]:
    return lambda step: peak * (step / max(1, warmup) if step < warmup else factor(step))


def noisy(count: int, start: float = 2.4, end: float = 1.8, noise: float = 0.08, seed: int = 0) -> list[float]:
    """Losses of a run that learns: a fall that dies away, and noise."""
    rng = random.Random(seed)
    return [end + (start - end) * math.exp(-5.0 * i / count) + rng.gauss(0.0, noise) for i in range(count)]


def judge(items, numbering=None, **facts):
    """The diagnosis of these items."""
    panel = Panel(RunFacts(**{"source": "trainer_state"} | facts), numbering)
    for item in items:
        panel.observe(item)
    return conclude(panel, "run", 0, steps_inferred=numbering is not None)


@dataclass
class Log:
    """Items as a source that :func:`jinmaek.detect.diagnose` reads."""

    kept: list
    facts: RunFacts
    name: str = "run"
    unread: int = 0

    def items(self):
        """Everything it tells."""
        return iter(self.kept)


def diagnose_items(items, others=(), **facts):
    """:func:`diagnose` of these items."""
    return diagnose(Log(list(items), RunFacts(**{"source": "console"} | facts)), others)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A rule's test: what makes it tell, what looks alike and must not, what it cannot be checked without."""

    rule: str
    id: str
    trigger: tuple
    alike: tuple
    unchecked: tuple
    missing: tuple[str, ...]


def run(count, items=(), *, facts=None, width=1, **fields):
    """(items, facts): ``count`` ordinary records with other fields, values or functions of the step."""
    rng = random.Random(count)
    base = {"loss": lambda step: 1.8 + 0.6 * math.exp(-5 * step / (count * width)) + rng.gauss(0, 0.05)} | fields
    records = []
    for step in range(width, count * width + 1, width):
        values = {name: value(step) if callable(value) else value for name, value in base.items()}
        records.append(StepRecord(step=step, num_steps=width, **values))
    merged = sorted([*records, *items], key=lambda item: (item.step or 0, not isinstance(item, StepRecord)))
    return merged, facts or {}


def outcome_of(rule, case):
    """(outcome, missing, ids told anywhere) of a rule over (items, facts)."""
    items, facts = case
    panel = Panel(RunFacts(**{"source": "trainer_state"} | facts))
    for item in items:
        panel.observe(item)
    found = panel.findings()
    [result] = [result for result in panel.results(found) if result.rule == rule]
    return result.outcome, result.missing, {finding.id for finding in found if finding.rule == rule}
