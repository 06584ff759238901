"""Rules on models or labels that are wrong from the start, and on accuracy that contradicts the loss."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from math import isfinite, log

from jinmaek.core.finding import Finding
from jinmaek.detect.rule import Rule
from jinmaek.detect.rules.divergence import ABSURD_LR
from jinmaek.detect.rules.learning import ALIKE, train_and_held_out
from jinmaek.detect.trace import Trace
from jinmaek.detect.trend import linear_trend, loss_points

_BEYOND = 0.7  # nats above ln(vocabulary): worse than guessing
_WORSE_THAN_ANY = 12.6  # ln of the largest common vocabulary, 300,000
_BLOWN = 31.0  # no label noise reaches so far
_UNIFORM = 10.3  # ln of the smallest common vocabulary, 30,000


class WrongStart(Rule):
    """The first loss is worse than guessing: the model or its labels are wrong before any update."""

    name = "wrong-start"
    family = "dynamics"
    needs = ("loss",)
    ids = ("wrong-forward-at-step-1", "bad-labels", "loss-scaled-by-accumulation")

    def missing(self, trace: Trace) -> tuple[str, ...]:
        """The log must begin where the run began."""
        first = trace.head[0][0] if trace.head else trace.first_step
        if trace.num_records and first > 25 + trace.record.num_steps and trace.facts.steps_known:
            return ("beginning",)
        return super().missing(trace)

    def findings(self, trace: Trace) -> Iterable[Finding]:
        """A pretrained model starts well below ln(vocabulary); a fresh one starts there, and learns."""
        if not trace.head or trace.facts.objective != "sft" or self._other_story(trace):
            return
        value, known = trace.head[0][1], trace.facts.vocab_size
        uniform = log(known) if known else _UNIFORM
        worse = value > (uniform + _BEYOND if known else _WORSE_THAN_ANY)
        blind = trace.head_accuracy is not None and trace.head_accuracy < 0.01 and value > 0.93 * _UNIFORM
        stays = bool(known) and value > 0.93 * uniform and trace.num_records >= 30 and trace.level.median > 0.75 * value
        learns = trace.level.count >= 8 and trace.level.median < 0.7 * value
        if worse and learns:
            # Both come down to the tokens' own entropy and stay there: the log does not separate them.
            error = not _still_falls(trace)
            yield self._finding(trace, "bad-labels", uniform, error=error)
            yield self._finding(trace, "wrong-forward-at-step-1", uniform, error=error)
            if not error:  # a loss that is summed over the accumulation starts as high, and goes on falling
                yield self._finding(trace, "loss-scaled-by-accumulation", uniform, error=False)
        elif blind or worse:
            sure = blind or trace.num_records >= 8
            yield self._finding(trace, "wrong-forward-at-step-1", uniform, error=sure, likely=sure)
            if not sure:
                yield self._finding(trace, "loss-scaled-by-accumulation", uniform, error=False)
        elif stays:
            note = self._finding(trace, "wrong-forward-at-step-1", uniform, error=False)
            yield replace(note, severity="note")  # a model that was never trained begins and stays there too

    @staticmethod
    def _other_story(trace: Trace) -> bool:
        """A blow-up, a divergence, an absurd lr or a scaled loss explain a high first line by themselves."""
        value = trace.head[0][1]
        blown = bool(trace.episodes.all) and trace.episodes.all[0].before.blow_up is not None
        scaled = any(train > ALIKE * loss for train, loss in train_and_held_out(trace))
        return blown or scaled or _rose_first(trace, value) or trace.odometer.max_lr >= ABSURD_LR or value > _BLOWN

    def _finding(self, trace: Trace, name: str, uniform: float, *, error: bool, likely: bool = False) -> Finding:
        step, value = trace.head[0]
        others = {"wrong-forward-at-step-1", "bad-labels", "loss-scaled-by-accumulation"} - {name}
        return Finding(
            rule=self.name,
            id=name,
            severity="error" if error else "warning",
            confidence="likely" if likely else "possible",
            first_step=step,
            last_step=trace.record.step,
            evidence={
                "loss_before": value,
                "loss_after": trace.level.median,
                "uniform": uniform,
                "token_accuracy": trace.head_accuracy,
                "lr": trace.odometer.first_lr,
            },
            ruled_out=("lr",),
            undecided=(*sorted(others), "pretraining-from-scratch"),
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


def _rose_first(trace: Trace, value: float) -> bool:
    """The first window already holds a divergence: it rises from there, or starts beyond any label noise."""
    early = [loss for _, loss in trace.head[1:6]]
    return bool(early) and max(early) > 1.3 * value


def _still_falls(trace: Trace) -> bool:
    """Whether the second half falls on: shuffled labels end at the tokens' own entropy, a scaled loss goes on."""
    steps, values = loss_points(trace)
    half = len(steps) // 2
    trend = linear_trend(steps[half:], values[half:])
    return trend is None or trend.change < -0.1 * trace.level.median
