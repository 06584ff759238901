"""Rules on what was learnt: too well, wrongly, or only on paper."""

from __future__ import annotations

from collections.abc import Iterable
from math import isfinite, log

from jinmaek.core.finding import Confidence, Finding
from jinmaek.detect.rule import Rule
from jinmaek.detect.trace import Trace
from jinmaek.detect.trend import healthy_losses, median

_LEARNT_BY_HEART = 0.06  # nats a token: fine-tuning text keeps more surprise than this
_NOTHING_LEFT = 0.02  # within the first epochs no new text costs so little
_MANY_EPOCHS = 3.0
ALIKE = 1.75  # training loss over held-out loss: more is no difference of the texts
_NEAREST = 0.34  # |ln(ratio / k)|: half the way to the neighbouring power of two


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
        epoch = trace.epoch
        start = trace.first_value if trace.first_value is not None else level.median
        now = median(level.recent[-5:])
        many = epoch is not None and epoch >= _MANY_EPOCHS
        if now > _LEARNT_BY_HEART:
            last = trace.value if trace.value is not None else now
            if many and last < 0.3 and last < 0.08 * start:
                yield self._finding(trace, "memorisation-overfit", "possible", start, last)
            return
        fell = start > 4 * now and start > 0.5
        if not many and not fell and not (epoch is not None and now < _NOTHING_LEFT):
            return
        confidence: Confidence = "likely" if many else "possible"
        name = "memorisation-overfit" if many else "duplicate-or-leaked-data"
        yield self._finding(trace, name, confidence, start, now)

    def _finding(self, trace: Trace, name: str, confidence: Confidence, start: float, now: float) -> Finding:
        return Finding(
            rule=self.name,
            id=name,
            severity="warning",
            confidence=confidence,
            first_step=_first_below(trace, max(now, _LEARNT_BY_HEART)),
            last_step=trace.record.step,
            evidence={"loss_before": start, "loss_after": now, "epoch": trace.epoch},
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
        share = 0.05 if len(held_out) >= 5 else 0.15
        if rise < max(share * best.loss, 4 * _held_out_noise([each.loss for each in held_out], best.loss)):
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
            confidence="established" if still_falls and len(held_out) >= 5 else "likely",
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
        pairs = train_and_held_out(trace)
        if len(pairs) < 2:
            return
        ratios = [train / held_out for train, held_out in pairs]
        ratio, known = median(ratios), trace.facts.accumulation
        if min(ratios) < ALIKE or max(ratios) > 1.7 * min(ratios) or known == 1:
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


def train_and_held_out(trace: Trace) -> list[tuple[float, float]]:
    """Training loss around each of the last three evaluations, with the held-out loss."""
    points = healthy_losses(trace)
    around = max(1, round(10 / (trace.width * trace.curve.width))) if trace.width else 1
    pairs = []
    for each in [each for each in trace.evaluations if isfinite(each.loss) and each.loss > 0.02][-3:]:
        before = [mean for step, mean in points if step <= each.step][-2 * around :]
        after = [mean for step, mean in points if step > each.step][:around]
        if len(before) < around:
            continue
        # While the loss falls steeply only the nearest ones are of the evaluation's time.
        if len(before) > 1 and before[0] > 1.5 * before[-1]:
            before = before[-around:]
        near = [*before, *after]
        pairs.append((sum(near) / len(near), each.loss))
    return pairs


def _first_below(trace: Trace, limit: float) -> int:
    return next((step for step, loss in healthy_losses(trace) if loss <= limit), trace.record.step)


def _train_near(trace: Trace, step: int, num: int = 3) -> float | None:
    """Training loss around ``step``: the mean of the last ``num`` points before it."""
    before = [loss for at, loss in healthy_losses(trace) if at <= step][-num:]
    return sum(before) / len(before) if before else None


def _held_out_noise(values: list[float], best: float) -> float:
    """Noise of one evaluation: from second differences, in which a trend does not enter; 0 where there are too few.

    The median of |second differences| over 0.6745·√6 is the standard deviation of white noise.
    """
    place = values.index(best)
    near = values[max(0, place - 1) :] if len(values) - place >= 4 else values
    bends = [abs(first - 2 * second + third) for first, second, third in zip(near, near[1:], near[2:], strict=False)]
    return median(bends) / 1.652 if len(bends) >= 2 else 0.0
