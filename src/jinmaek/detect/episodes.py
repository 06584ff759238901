"""Stretches of records that show a numeric fault: a loss that is 0.0, NaN or infinite, a gradient that is not
finite, an update that was thrown away."""

from __future__ import annotations

from collections import deque
from math import inf, isfinite, isinf
from typing import TYPE_CHECKING

from jinmaek.core.record import EvaluationRecord
from jinmaek.detect.episode import ABSURD, BLOW_UP, GAP_RECORDS, Before, Episode, is_sentinel

if TYPE_CHECKING:
    from jinmaek.detect.trace import Trace

MAX_EPISODES = 256
MAX_KEPT = 64
GAP_STEPS = 12  # healthy steps that do not end a stretch of per-step records
_DILUTED = 0.75  # of the level: a window this low beside dead ones was partly dead itself
_LOWEST = 0.85  # of the lowest loss before


class Episodes:
    """Groups faulty records into stretches."""

    def __init__(self) -> None:
        self.all: list[Episode] = []
        self._healthy = 0
        self._last_value: float | None = None
        self._last_step: int | None = None
        self._last_lr: float | None = None
        self._rising = 0
        self._lowest = inf
        self._was_full = False
        self._blow_up: tuple[int, float] | None = None
        self._recent: deque[tuple[int, float, int]] = deque(maxlen=3)  # (step, applied, steps) of the last windows
        self._gap: list[tuple[int, float, int]] = []
        self._partial: tuple[int, float, int] | None = None

    @property
    def current(self) -> Episode | None:
        """The latest stretch."""
        return self.all[-1] if self.all else None

    def add(self, trace: Trace) -> bool:
        """Whether the record is faulty."""
        record, reading = trace.record, trace.reading
        grad = record.grad_norm
        # Where the record itself says whether the optimizer stepped, the lr (which tells it a step later) is idle.
        skipped = reading is not None and reading.skipped > 0 and record.optimizer_stepped is None
        grad_bad = grad is not None and not isfinite(grad)
        loss_bad = trace.loss_state in ("zero", "non_finite") and not _benign_zero(trace)
        thrown = record.optimizer_stepped is False and record.num_loss_tokens != 0
        if reading is not None and reading.applied is not None:
            self._recent.append((record.step, reading.applied, trace.width))
        if not (loss_bad or grad_bad or thrown or skipped):
            self._add_healthy(trace)
            return False
        episode = self._open(trace)
        if episode is not None:
            _count(episode, trace, loss_bad=loss_bad, grad_bad=grad_bad)
        return True

    def add_evaluation(self, evaluation: EvaluationRecord) -> None:
        """A held-out loss that falls into a stretch tells whether the weights live."""
        episode = self.current
        if episode is not None and episode.good_after == 0:
            episode.evals_finite += isfinite(evaluation.loss) and evaluation.loss > 0
            episode.evals_bad += not isfinite(evaluation.loss)

    def _add_healthy(self, trace: Trace) -> None:
        record, value = trace.record, trace.value
        episode = self.current
        if episode is not None:
            episode.good_after += 1
            reading = trace.reading
            if reading is not None and reading.moved and episode.longest_frozen:
                _release(episode, record.step)
            if value is not None and episode.good_after <= GAP_STEPS:
                self._gap.append((record.step, value, trace.width))
        if value is None or trace.loss_state != "finite":
            if value is None:
                self._healthy += 1
            return
        self._rising = self._rising + 1 if self._last_value is not None and value > self._last_value else 0
        level = trace.level
        known = level.count >= 2
        big = value > BLOW_UP * level.median + 8 * level.noise if known else value > ABSURD
        self._blow_up = (record.step, value) if big else None
        # A window that prints far less than any before it was partly dead, if dead ones follow.
        least = trace.width != 1 and value < _LOWEST * self._lowest
        low = known and (least or value < _DILUTED * level.median - 2 * level.noise)
        if value < self._lowest:
            self._lowest = value
        self._partial = (record.step, value, trace.width) if low else None
        self._was_full = trace.reading is not None and trace.reading.applied is not None
        self._healthy += not big
        self._last_value, self._last_step, self._last_lr = value, record.step, record.lr

    def _open(self, trace: Trace) -> Episode | None:
        """The stretch that this record belongs to."""
        record, episode = trace.record, self.current
        if episode is not None and self._continues(episode, record.step, trace.width):
            least = _DILUTED * (episode.before.level or 0.0)
            episode.alive_after += len(self._gap)
            episode.alive_between += sum(value > least for _, value, _ in self._gap)
            episode.finite_inside.extend(self._gap[: MAX_KEPT - len(episode.finite_inside)])
            self._gap.clear()
            episode.good_after = 0
            return episode
        if len(self.all) >= MAX_EPISODES:
            return None
        level = trace.level
        before = Before(
            self._healthy,
            level.median if level.count >= 2 else self._last_value,
            level.noise,
            self._last_value,
            self._last_step,
            self._last_lr,
            self._rising,
            self._blow_up,
        )
        episode = Episode(before, first_step=record.step, windows=self._windows_before(record.step))
        if self._blow_up is not None:
            episode.first_step = self._blow_up[0]
        elif self._partial is not None and self._partly_dead(trace):
            episode.first_step = self._partial[0]
            episode.finite_inside.append(self._partial)
        self._gap.clear()
        self.all.append(episode)
        return episode

    def _partly_dead(self, trace: Trace) -> bool:
        """Whether the low window before this faulty record belongs to the fault."""
        reading = trace.reading
        honest = reading is not None and (reading.frozen or reading.skipped > 0)
        if honest and self._was_full:
            return False  # the lr counts the updates, and that window lost none
        return trace.loss_state != "finite" or bool(trace.facts.filters_loss)

    def _windows_before(self, step: int) -> list[tuple[int, int, int]]:
        return [(at, round(applied), width) for at, applied, width in self._recent if at < step]

    def _continues(self, episode: Episode, step: int, width: int) -> bool:
        return episode.good_after <= GAP_RECORDS or (width == 1 and step - episode.last_step <= GAP_STEPS)


def _release(episode: Episode, step: int) -> None:
    episode.moved_after_freeze += 1
    episode.released_at = episode.released_at or step


def _benign_zero(trace: Trace) -> bool:
    """GRPO starts at loss 0 by construction, and has no gradient where all answers earn the same."""
    grad = trace.record.grad_norm
    alive = grad is None or isfinite(grad)
    return trace.facts.objective == "rl" and trace.loss_state == "zero" and alive


def _count(episode: Episode, trace: Trace, *, loss_bad: bool, grad_bad: bool) -> None:
    record, grad = trace.record, trace.record.grad_norm
    episode.records += 1
    episode.last_step = record.step
    episode.good_after = 0
    episode.zeros += trace.loss_state == "zero" and loss_bad
    episode.zeros_without_gradient += trace.loss_state == "zero" and grad == 0.0
    episode.non_finite += trace.loss_state == "non_finite"
    episode.infinite += trace.value is not None and isinf(trace.value)
    episode.alive_after += trace.loss_state == "finite" and (episode.loss_bad + episode.grads_bad > 0)
    alive = grad is not None and isfinite(grad) and grad > 0.0 and not is_sentinel(grad)
    episode.grads_alive += loss_bad and alive
    episode.losses_alive += trace.loss_state == "finite"
    episode.grads_bad += grad_bad
    episode.grads_zero += grad == 0.0
    episode.thrown_away += record.optimizer_stepped is False
    episode.applied_anyway += record.optimizer_stepped is True
    episode.accuracy_gone += record.token_accuracy is not None and record.token_accuracy < 1e-3
    if record.loss_scale is not None:
        episode.scale_first = record.loss_scale if episode.scale_first is None else episode.scale_first
        episode.scale_last = record.loss_scale
    if trace.loss_state == "finite" and trace.value is not None and len(episode.finite_inside) < MAX_KEPT:
        episode.finite_inside.append((record.step, trace.value, trace.width))
    _count_lr(episode, trace)


def _count_lr(episode: Episode, trace: Trace) -> None:
    record, reading = trace.record, trace.reading
    if record.lr is not None:
        episode.lr_first = record.lr if episode.lr_first is None else episode.lr_first
        episode.lr_last = record.lr
    if reading is None:
        return
    if reading.applied is not None and len(episode.windows) < MAX_KEPT:
        episode.windows.append((record.step, round(reading.applied), record.num_steps))
    episode.read_skipped += reading.skipped
    episode.read_steps += record.num_steps
    if reading.frozen:
        episode.frozen += 1
        episode.frozen_steps += record.num_steps
        episode.longest_frozen = max(episode.longest_frozen, episode.frozen_steps)
    elif reading.skipped:
        episode.partial += 1
    elif not reading.moved:
        episode.rested_steps += record.num_steps
    elif reading.moved:
        if episode.from_start and episode.rested_steps >= 100:
            episode.longest_frozen = max(episode.longest_frozen, episode.rested_steps)
        episode.moved += 1
        if episode.longest_frozen:
            _release(episode, record.step)
        episode.frozen_steps = 0
