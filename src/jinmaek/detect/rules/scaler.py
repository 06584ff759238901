"""Rules on the fp16 loss scale."""

from __future__ import annotations

from collections.abc import Iterable

from jinmaek.core.finding import Finding
from jinmaek.detect.rule import Rule
from jinmaek.detect.trace import Trace

_TINY = 2.0**-14  # fp16 gradients below this scale are no longer protected from underflow


class LossScale(Rule):
    """The loss scale falls to its floor, to 0, or without end."""

    name = "loss-scale"
    family = "numerics"
    needs = ("loss_scale",)
    ids = ("scaler-collapse-to-zero", "ds-min-loss-scale-abort", "loss-scale-falling", "scaler-skip-every-step")
    observes = True
    when = "loss_scale"

    def __init__(self) -> None:
        self._first: float | None = None
        self._last = self._highest = 0.0
        self._zero_step: int | None = None
        self._falls = 0
        self._fall_step: int | None = None

    def observe(self, trace: Trace) -> bool:
        """Follow the scale."""
        scale = trace.record.loss_scale
        if scale is None:
            return False
        if self._first is None:
            self._first = scale
        elif scale < self._last:
            self._falls += 1
            self._fall_step = self._fall_step or trace.record.step
        elif scale > self._last:
            self._fall_step = None
        self._last, self._highest = scale, max(self._highest, scale)
        if scale == 0.0 and self._zero_step is None:
            self._zero_step = trace.record.step
            return True
        return False

    def missing(self, trace: Trace) -> tuple[str, ...]:
        """A trainer that says what its scaler did is enough."""
        return () if trace.said("scale_floor") or trace.said("skipped") else super().missing(trace)

    def findings(self, trace: Trace) -> Iterable[Finding]:
        """0, DeepSpeed's floor, or a long fall."""
        if self._zero_step is not None:
            yield self._finding(trace, "scaler-collapse-to-zero", self._zero_step)
        elif trace.said("scale_floor"):
            yield self._finding(trace, "ds-min-loss-scale-abort", trace.record.step)
        elif trace.said("skipped") >= 5 and not trace.num_records:
            yield self._finding(trace, "scaler-skip-every-step", 0)
        elif self._falls >= 20 and self._last <= min(1.0, self._highest * 2.0**-16) and not trace.episodes.all:
            yield self._finding(trace, "loss-scale-falling", self._fall_step or trace.first_step)

    def _finding(self, trace: Trace, name: str, step: int) -> Finding:
        return Finding(
            rule=self.name,
            id=name,
            severity="error",
            confidence="established",
            first_step=step,
            last_step=trace.record.step,
            evidence={
                "scale_first": self._first,
                "scale_last": self._last if self._first is not None else None,
                "count": self._falls or trace.said("skipped") or None,
            },
            ruled_out=("labels-all-masked",) if name == "scaler-collapse-to-zero" else (),
            weights="intact" if name == "scaler-skip-every-step" else None,
        )


class Underflow(Rule):
    """Gradients vanish because the loss scale is too small for fp16."""

    name = "underflow"
    family = "numerics"
    needs = ("loss_scale", "grad_norm")
    ids = ("gradient-underflow",)
    min_records = 5
    observes = True
    when = "loss_scale"

    def __init__(self) -> None:
        self._zero = self._seen = 0
        self._first: int | None = None

    def observe(self, trace: Trace) -> bool:
        """Count gradients that are 0 at a small scale."""
        record = trace.record
        if record.grad_norm is None or record.loss_scale is None or trace.loss_state != "finite":
            return False
        self._seen += 1
        if record.grad_norm == 0.0 and record.loss_scale < _TINY * 65536:
            self._zero += 1
            self._first = self._first or record.step
        return self._zero == 5

    def findings(self, trace: Trace) -> Iterable[Finding]:
        """Half of the steps."""
        if self._zero < 5 or self._zero < 0.5 * self._seen:
            return
        yield Finding(
            rule=self.name,
            id="gradient-underflow",
            severity="error",
            confidence="likely",
            first_step=self._first or trace.first_step,
            last_step=trace.record.step,
            evidence={"count": self._zero, "records": self._seen, "scale_last": trace.record.loss_scale},
            undecided=("params-not-updating",),
            weights="intact",
        )
