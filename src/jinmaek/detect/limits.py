"""Why a run does not improve: the most limiting thing, by thresholds that are stated here.

Three quantities tell the causes apart once nothing is broken (``docs/compare.md`` derives them):

- whether the loss still falls: its slope over the second half with a robust interval, or better the held-out losses
  paired by example;
- ``noise_cost``: how far the noise of the gradient holds the loss up. In a bowl of any curvature an update of lr·g/σ
  per weight (Adam whose gradient is mostly noise) settles at an excess of lr·σ/4 a weight, so lr·√P·|g|/4 for P
  weights: an upper bound, since flat directions never settle;
- ``signal``: whether the noiseless gradient differs from 0 at all (:mod:`jinmaek.detect.noise_scale`).
"""

from __future__ import annotations

from math import isfinite, sqrt
from typing import Any

from jinmaek.core.finding import Diagnosis
from jinmaek.core.limits import Limiting, Limits
from jinmaek.core.record import EvaluationRecord
from jinmaek.detect.curve import Curve
from jinmaek.detect.noise_scale import NoiseScale
from jinmaek.detect.robust_variance import FEWEST, Estimated, slope_interval
from jinmaek.detect.trace import Trace
from jinmaek.detect.trend import median

SKIPPED = 0.1  # of the steps
WORTH = 0.01  # nats a token: less is not worth an experiment
SEEN = 0.02  # of the loss: a log that would miss an improvement of this size shows nothing
TINY_UPDATE = 0.01  # of the lr: Adam's largest update is about the lr or more
SLOWED = 0.5  # of the earlier slope per lr
_BY_FINDING: dict[str, Limiting] = {"memorisation-overfit": "overfitting", "always-clipped": "clipped"}


def find_limits(trace: Trace, diagnosis: Diagnosis) -> Limits:
    """The most limiting thing of a run that was read to its end."""
    facts = _facts(trace)
    noise = facts.pop("noise", None)
    limiting, finding = _limiting(trace, diagnosis, facts, noise)
    known = {name: value for name, value in facts.items() if value is not None}
    return Limits(limiting=limiting, finding=finding, facts=known, missing=_missing(trace, limiting, facts))


def _limiting(
    trace: Trace, diagnosis: Diagnosis, facts: dict[str, Any], noise: NoiseScale | None
) -> tuple[Limiting, str | None]:
    causes = [cause for cause in diagnosis.causes if cause.severity == "error" or cause.confidence != "possible"]
    if causes:
        return _BY_FINDING.get(causes[0].id, "broken"), causes[0].id
    if (facts["skipped_share"] or 0) >= SKIPPED:
        return "skipped", None
    if facts["update_ratio"] is not None and facts["update_ratio"] < TINY_UPDATE and _is_adam(trace):
        return "no_updates", None
    if facts["change"] is None and facts["held_out_change"] is None:
        return "too_short", None
    # Nothing is learnt by heart within the first pass.
    repeated = facts["epochs"] is None or facts["epochs"] > 1
    if repeated and (facts["held_out_rise_low"] or 0) > 0 and not (facts["change_low"] or 0) > 0:
        return "overfitting", None
    return _of_learning(facts, noise), None


def _of_learning(facts: dict[str, Any], noise: NoiseScale | None) -> Limiting:
    """By slope, noise and signal."""
    falls = any((facts[name] or 0) < 0 for name in ("change_high", "held_out_change_high"))
    cost, slowed = facts["noise_cost"], facts["slowing"]
    quiet = cost is not None and cost < WORTH
    signal = noise is not None and noise.signal.value > noise.signal.half_width()
    steady = slowed is not None and slowed >= SLOWED
    hidden = facts["detectable"] is None or facts["detectable"] > SEEN * facts["level"]
    if falls:
        return "low_lr" if quiet and signal and steady else "improving"
    if noise is not None and cost is not None and not quiet and noise.low > noise.batch_tokens:
        return "gradient_noise"
    if hidden:
        return "log_too_noisy"
    if quiet and noise is not None:
        gain = facts["first_order_gain"]
        return "low_lr" if signal and gain is not None and gain < facts["detectable"] else "capacity"
    return "settled"


def _facts(trace: Trace) -> dict[str, Any]:
    """Every number that the answer may name; ``None`` where the records do not hold it."""
    points = [(point.step, point.mean) for point in trace.curve.closed() if point.mean is not None]
    last = points[-1][0] if points else 0
    first = max(1, trace.first_step - trace.record.num_steps + 1)
    middle = (first - 1 + last) / 2
    if sum(step > middle for step, _ in points) < FEWEST <= len(points):
        middle = first - 1.0  # too short for halves
    late = [loss for step, loss in points if step > middle]
    early = [loss for step, loss in points if step <= middle]
    learning = trace.learning
    facts: dict[str, Any] = {
        "level": sum(late) / len(late) if late else None,
        "first_step": int(middle) + 1,
        "last_step": last,
        "window_steps": trace.width or None,
        "skipped_share": learning.num_skipped / learning.num_judged if learning.num_judged else None,
        "clipped_share": learning.num_clipped / learning.num_clippable if learning.num_clippable else None,
        "clip_ratio": learning.clip_sum / learning.num_clippable if learning.num_clippable else None,
        "update_ratio": median(ratios) if (ratios := _late(learning.ratios, middle)) else None,
        "lr": _mean(_late(learning.lrs, middle)),
        "epochs": _epochs(trace),
        "batch_examples": learning.num_examples / learning.num_steps
        if learning.num_examples and learning.num_steps
        else None,
        "accumulation": trace.facts.accumulation,
    }
    facts |= _slope(late, early, learning.lrs, middle)
    facts |= _held_out(trace, middle)
    if facts["slowing"] is None:
        facts["slowing"] = _held_out_slowing(trace, facts["held_out_since"])
    noise = learning.noise.measured(int(middle) + 1)
    facts |= _noise(trace, noise, facts, last - middle)
    return {**facts, "noise": noise}


def _slope(late: list[float], early: list[float], lrs: Curve, middle: float) -> dict[str, Any]:
    """The change over the second half, and its slope per lr over that of the first half."""
    found = slope_interval(late)
    if found is None:
        return dict.fromkeys(("change", "change_low", "change_high", "detectable", "slowing"))
    span = max(1, len(late) - 1)
    whole = Estimated(found.value * span, found.error * span, found.freedom)
    before = slope_interval(early)
    slowing = None
    if before is not None and before.value + before.half_width() < 0 and late:
        rates = [_mean([p.mean for p in lrs.closed() if p.mean is not None and (p.step > middle) is side])
                 for side in (False, True)]  # fmt: skip
        per_lr = rates[0] / rates[1] if rates[0] and rates[1] else 1.0
        slowing = found.value / before.value * per_lr
    half = whole.half_width()
    return {
        "change": whole.value,
        "change_low": whole.value - half,
        "change_high": whole.value + half,
        "detectable": whole.detectable(),
        "slowing": slowing,
    }


def _held_out(trace: Trace, middle: float) -> dict[str, Any]:
    """The last held-out loss against the one nearest the middle, and against the best, paired by example."""
    names = ("held_out", "held_out_best", "held_out_rise_low", "held_out_change", "held_out_change_low",
             "held_out_change_high", "held_out_since", "prompt_loss", "answer_loss")  # fmt: skip
    facts: dict[str, Any] = dict.fromkeys(names)
    seen = [each for each in trace.evaluations if isfinite(each.loss)]
    after = [each for each in seen if each.step > 0]
    if not after:
        return facts
    last, best = after[-1], min(after, key=lambda each: each.loss)
    facts |= {
        "held_out": last.loss,
        "held_out_best": best.loss,
        "prompt_loss": last.prompt_loss,
        "answer_loss": last.answer_loss,
    }
    # Twice in a row: at a large lr the weights wander, and one evaluation says where they happened to be.
    rises = [_paired(best, each) for each in after[after.index(best) + 1 :][-2:]]
    if len(rises) == 2:
        facts["held_out_rise_low"] = min(
            (rise.value - rise.half_width() for rise in rises if rise is not None), default=None
        )
    since = min(after[:-1], key=lambda each: abs(each.step - middle), default=None)
    change = _paired(since, last) if since is not None else None
    if change is not None and since is not None:
        half = change.half_width()
        facts |= {
            "held_out_change": change.value,
            "held_out_change_low": change.value - half,
            "held_out_change_high": change.value + half,
            "held_out_since": since.step,
        }
    return facts


def _held_out_slowing(trace: Trace, since: int | None) -> float | None:
    """As of the training loss, where that is too noisy to tell: the held-out loss per lr after ``since`` and before."""
    seen = [each for each in trace.evaluations if isfinite(each.loss)]
    middle = next((each for each in seen if each.step == since and since), None)
    if middle is None:
        return None
    rates = []
    for one, other in ((seen[0], middle), (middle, seen[-1])):
        lr = _mean(
            [p.mean for p in trace.learning.lrs.closed() if p.mean is not None and one.step < p.step <= other.step]
        )
        change = _paired(one, other)
        if not lr or change is None or change.value + change.half_width() >= 0:
            return None
        rates.append(change.value / (lr * (other.step - one.step)))
    return rates[1] / rates[0]


def _paired(one: EvaluationRecord, other: EvaluationRecord) -> Estimated | None:
    """Mean change of an example's loss; examples are independent, and count alike here."""
    if one.example_losses is None or other.example_losses is None:
        return None
    if len(one.example_losses) != len(other.example_losses) or len(one.example_losses) < 10:
        return None
    changes = [b - a for a, b in zip(one.example_losses, other.example_losses, strict=True) if isfinite(b - a)]
    num = len(changes)
    if num < 10:
        return None
    mean = sum(changes) / num
    return Estimated(mean, sqrt(sum((each - mean) * (each - mean) for each in changes) / (num - 1) / num), num - 1)


def _noise(trace: Trace, noise: NoiseScale | None, facts: dict[str, Any], num_steps: float) -> dict[str, Any]:
    names = ("noise_scale", "noise_scale_low", "noise_scale_high", "noise_cost", "first_order_gain", "batch_tokens")
    found: dict[str, Any] = dict.fromkeys(names)
    learning, grad, lr = trace.learning, _mean(_late(trace.grads, facts["first_step"] - 1)), facts["lr"]
    if learning.num_loss_tokens and learning.num_steps:
        found["batch_tokens"] = learning.num_loss_tokens / learning.num_steps
    weights = trace.facts.num_weights
    per_weight = lr * sqrt(weights) if lr is not None and weights and _is_adam(trace) else None
    clip = facts["clip_ratio"] or 1.0  # Adam divides it out again
    if per_weight is not None and grad is not None:
        share = 1.0
        if noise is not None and grad * grad > 0:  # a product: it may be 0 or inf, and raises nothing
            share = min(1.0, max(0.0, 1 - noise.signal.value / (grad * grad)))
        found["noise_cost"] = per_weight * grad * sqrt(share) / 4 if clip else None
    if noise is None:
        return found
    found |= {"noise_scale": noise.value, "noise_scale_low": noise.low, "noise_scale_high": noise.high}
    if per_weight is not None and grad:
        size = max(0.0, noise.signal.value + noise.signal.half_width())
        found["first_order_gain"] = per_weight * size / grad * num_steps
    return found


def _missing(trace: Trace, limiting: Limiting, facts: dict[str, Any]) -> tuple[str, ...]:
    """What to record to know more; nothing where the answer does not hang on it."""
    if limiting in ("broken", "skipped", "overfitting", "clipped", "no_updates"):
        return ()
    wanted = []
    if facts["held_out"] is None:
        wanted.append("held_out")
    elif facts["held_out_change"] is None and not any(each.step > 0 for each in trace.evaluations[:-1]):
        wanted.append("held_out_examples")
    if trace.width != 1:
        wanted.append("every_step")
    if facts["noise_scale"] is None:
        wanted.append("noise_scale")
    if facts["update_ratio"] is None:
        wanted.append("update_ratio")
    if facts["epochs"] is None:
        wanted.append("epochs")
    return tuple(wanted)


def _epochs(trace: Trace) -> float | None:
    if trace.epoch is not None and isfinite(trace.epoch):
        return trace.epoch
    return None


def _is_adam(trace: Trace) -> bool:
    return "adam" in (trace.facts.optimizer or ("adam" if trace.facts.source == "jinmaek" else "")).lower()


def _late(curve: Curve, middle: float) -> list[float]:
    return [point.mean for point in curve.closed() if point.mean is not None and point.step > middle]


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
