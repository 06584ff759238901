"""Rules on what was learnt: too well, wrongly, or only on paper."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from math import isfinite, log

from jinmaek.core.finding import Confidence, Finding
from jinmaek.detect.rule import Rule
from jinmaek.detect.trace import Trace
from jinmaek.detect.trend import linear_trend, median

_LEARNT_BY_HEART = 0.06  # nats a token: fine-tuning text keeps more surprise than this
_MANY_EPOCHS = 3.0
_ALIKE = 1.75  # training loss over held-out loss: more is no difference of the texts
_NEAREST = 0.34  # |ln(ratio / k)|: half the way to the neighbouring power of two
_UNIFORM = 10.3  # ln of the smallest common vocabulary, 30,000


class NearZeroLoss(Rule):
    """A training loss near 0 that was come by honestly, step by step."""

    name = "near-zero-loss"
    family = "dynamics"
    needs = ("loss",)
    ids = ("memorisation-overfit", "duplicate-or-leaked-data")
    min_records = 4

    def findings(self, trace: Trace) -> Iterable[Finding]:
        """Memorised rows after many epochs; within the first epochs, rows that occur again and again."""
        level = trace.level
        if trace.facts.objective != "sft" or level.count < 4 or trace.episodes.all:
            return
        epoch = trace.record.epoch
        start = trace.first_value if trace.first_value is not None else level.median
        if level.median > _LEARNT_BY_HEART:
            now = trace.value if trace.value is not None else level.median
            if epoch is not None and epoch >= _MANY_EPOCHS and now < 0.3 and now < 0.08 * start:
                yield self._finding(trace, "memorisation-overfit", "possible", start, now)
            return
        many = epoch is None or epoch >= _MANY_EPOCHS
        fell = start > 4 * level.median
        if not many and not (fell and start > 0.5):
            return
        confidence: Confidence = "likely" if many and epoch is not None else "possible"
        name = "memorisation-overfit" if many else "duplicate-or-leaked-data"
        yield self._finding(trace, name, confidence, start, level.median)

    def _finding(self, trace: Trace, name: str, confidence: Confidence, start: float, now: float) -> Finding:
        return Finding(
            rule=self.name,
            id=name,
            severity="warning",
            confidence=confidence,
            first_step=_first_below(trace, max(now, _LEARNT_BY_HEART)),
            last_step=trace.record.step,
            evidence={"loss_before": start, "loss_after": now, "epoch": trace.record.epoch},
            ruled_out=("nan-poisoned-weights", "scaler-skip"),
            undecided=("duplicate-or-leaked-data",) if name == "memorisation-overfit" else ("memorisation",),
            weights="intact",
        )


class Overfitting(Rule):
    """The held-out loss passed its lowest point and rises."""

    name = "overfitting"
    family = "dynamics"
    needs = ("evaluations",)
    ids = ("memorisation-overfit",)

    def missing(self, trace: Trace) -> tuple[str, ...]:
        """Three held-out losses at least."""
        num = sum(isfinite(each.loss) for each in trace.evaluations)
        return () if num >= 3 else ("evaluations",)

    def findings(self, trace: Trace) -> Iterable[Finding]:
        """A rise larger than 5 % and than the noise between neighbouring evaluations."""
        held_out = [each for each in trace.evaluations if isfinite(each.loss)]
        if len(held_out) < 3:
            return
        best = min(held_out, key=lambda each: each.loss)
        after = [each for each in held_out if each.step > best.step]
        if not after or best.loss <= 0:
            return
        last = median([each.loss for each in after[-3:]]) if len(after) >= 3 else min(each.loss for each in after)
        rise = last - best.loss
        if rise < max(0.05 * best.loss, 3 * _roughness([each.loss for each in held_out], best.loss)):
            return
        train_best, train_now = _train_near(trace, best.step), trace.level.median
        still_falls = train_best is not None and train_now < 0.95 * train_best
        if not still_falls and len(after) < 3:
            return
        if not still_falls and train_best is not None and train_now > 1.1 * train_best:
            return  # both rise: that is a divergence
        yield Finding(
            rule=self.name,
            id="memorisation-overfit",
            severity="warning",
            confidence="established" if still_falls else "likely",
            first_step=best.step,
            last_step=after[-1].step,
            evidence={
                "best_step": best.step,
                "best_held_out": best.loss,
                "last_held_out": after[-1].loss,
                "loss_before": train_best,
                "loss_after": train_now,
            },
            ruled_out=("noise", "lr-too-high-divergence"),
            weights="intact",
        )


class AccumulatedLoss(Rule):
    """The training loss is a whole multiple of the held-out loss: it was summed over the accumulation."""

    name = "accumulated-loss"
    family = "dynamics"
    needs = ("evaluations", "loss")
    ids = ("loss-scaled-by-accumulation",)

    def findings(self, trace: Trace) -> Iterable[Finding]:
        """The ratio settles near the number of microbatches."""
        pairs = _train_and_held_out(trace)
        if len(pairs) < 2:
            return
        ratios = [train / held_out for train, held_out in pairs]
        ratio, known = median(ratios), trace.facts.accumulation
        if min(ratios) < _ALIKE or max(ratios) > 1.7 * min(ratios) or known == 1:
            return
        tried = (known,) if known else (2, 4, 8, 16, 32, 64, 128, 256)
        whole = next((each for each in tried if abs(log(ratio / each)) < _NEAREST), None)
        if whole is None:
            return
        yield Finding(
            rule=self.name,
            id="loss-scaled-by-accumulation",
            severity="warning",
            confidence="likely" if whole == known or whole >= 4 else "possible",
            first_step=trace.first_step,
            last_step=trace.record.step,
            evidence={"ratio": ratio, "accumulation": whole, "loss_after": pairs[-1][0], "last_held_out": pairs[-1][1]},
            undecided=() if whole == known else ("data",),
            weights="intact",
        )


class WrongStart(Rule):
    """The first loss is worse than guessing: the model or its labels are wrong before any update."""

    name = "wrong-start"
    family = "dynamics"
    needs = ("loss",)
    ids = ("wrong-forward-at-step-1", "bad-labels")

    def missing(self, trace: Trace) -> tuple[str, ...]:
        """The log must begin where the run began."""
        first = trace.head[0][0] if trace.head else trace.first_step
        if trace.num_records and first > 25 + trace.record.num_steps and trace.facts.steps_known:
            return ("beginning",)
        return super().missing(trace)

    def findings(self, trace: Trace) -> Iterable[Finding]:
        """A pretrained model starts well below ln(vocabulary)."""
        value = trace.head[0][1] if trace.head else None
        if value is None or trace.facts.objective != "sft":
            return
        uniform = log(trace.facts.vocab_size) if trace.facts.vocab_size else _UNIFORM
        if value < 0.93 * uniform or (trace.episodes.all and trace.episodes.all[0].before.blow_up is not None):
            return
        learns = trace.level.count >= 8 and trace.level.median < 0.7 * value
        if learns and value < uniform + 1.5:
            return  # from scratch: starts at ln(vocabulary) and learns
        if _rose_first(trace, value) or any(train > _ALIKE * loss for train, loss in _train_and_held_out(trace)):
            return  # a divergence; a loss that is scaled
        accuracy = trace.head_accuracy
        blind = accuracy is not None and accuracy < 0.01
        if not learns and value > 3 * uniform:
            return
        sure = blind or value > uniform + 1.5 or trace.num_records >= 8
        yield Finding(
            rule=self.name,
            id="bad-labels" if learns else "wrong-forward-at-step-1",
            severity="error",
            confidence="possible" if learns and _still_falls(trace) else "likely" if sure else "possible",
            first_step=trace.head[0][0],
            last_step=trace.record.step,
            evidence={
                "loss_before": value,
                "loss_after": trace.level.median,
                "uniform": uniform,
                "token_accuracy": accuracy,
                "lr": trace.odometer.first_lr,
            },
            ruled_out=("lr",),
            undecided=("wrong-forward-at-step-1",) if learns else ("bad-labels", "pretraining-from-scratch"),
        )


class AccuracyAgainstLoss(Rule):
    """The loss falls while the token accuracy falls too."""

    name = "accuracy-against-loss"
    family = "dynamics"
    needs = ("token_accuracy", "loss")
    ids = ("emb-not-padded-collapse",)
    min_records = 3
    observes = True
    when = "token_accuracy"

    def __init__(self) -> None:
        self._first: tuple[int, float, float] | None = None
        self._best = 0.0
        self._last: tuple[int, float, float] | None = None

    def observe(self, trace: Trace) -> bool:
        """Keep the first, the best and the last accuracy."""
        accuracy, value = trace.record.token_accuracy, trace.value
        if accuracy is None or value is None or not isfinite(accuracy) or trace.loss_state != "finite":
            return False
        self._last = (trace.record.step, value, accuracy)
        self._first = self._first or self._last
        self._best = max(self._best, accuracy)
        return False

    def findings(self, trace: Trace) -> Iterable[Finding]:
        """Half of the best accuracy lost at half of the loss."""
        first, last = self._first, self._last
        if first is None or last is None or self._best < 0.1 or trace.episodes.all:
            return
        if last[2] > 0.65 * self._best or last[1] > 0.7 * first[1]:
            return
        yield Finding(
            rule=self.name,
            id="emb-not-padded-collapse",
            severity="warning",
            confidence="possible",
            first_step=first[0],
            last_step=last[0],
            evidence={
                "loss_before": first[1],
                "loss_after": last[1],
                "accuracy_before": self._best,
                "accuracy_after": last[2],
            },
            undecided=("lr-too-high-divergence", "bad-labels"),
        )


def _train_and_held_out(trace: Trace) -> list[tuple[float, float]]:
    """Training loss around each of the last three evaluations, with the held-out loss."""
    points = [(point.step, point.mean) for point in trace.curve.closed() if point.mean is not None]
    pairs = []
    for each in [each for each in trace.evaluations if isfinite(each.loss) and each.loss > 0.02][-3:]:
        before = [mean for step, mean in points if step <= each.step][-2:]
        after = [mean for step, mean in points if step > each.step][:1]
        # The mean of windows that fall steeply lags behind: the nearest ones only.
        if before:
            near = [*before[-1:], *after] if len(before) > 1 and before[0] > 1.5 * before[1] else [*before, *after]
            pairs.append((sum(near) / len(near), each.loss))
    return pairs


def _rose_first(trace: Trace, value: float) -> bool:
    """The first window already holds a divergence: it rises from there, or starts beyond any label noise."""
    early = [loss for _, loss in trace.head[1:6]]
    return bool(early) and max(early) > 1.3 * value


def _still_falls(trace: Trace) -> bool:
    """Whether the second half falls on: shuffled labels end at the tokens' own entropy, a scaled loss goes on."""
    points = [point for point in trace.curve.closed() if point.mean is not None]
    half = points[len(points) // 2 :]
    trend = linear_trend([float(point.step) for point in half], [point.mean or 0.0 for point in half])
    return trend is None or trend.change < -0.1 * trace.level.median


def _first_below(trace: Trace, limit: float) -> int:
    for point in trace.curve.closed():
        if point.mean is not None and point.mean <= limit:
            return point.step
    return trace.record.step


def _train_near(trace: Trace, step: int, num: int = 3) -> float | None:
    """Training loss around ``step``: the mean of the last ``num`` points before it."""
    before = [point.mean for point in trace.curve.closed() if point.step <= step and point.mean is not None][-num:]
    return sum(before) / len(before) if before else None


def _roughness(values: list[float], best: float) -> float:
    """How far neighbouring evaluations jump up before the best one: their noise."""
    until = values[: values.index(best) + 1]
    jumps = [max(0.0, after - before) for before, after in pairwise(until)]
    return max(jumps, default=0.0)
