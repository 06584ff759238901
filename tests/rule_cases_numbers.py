"""Cases of each rule on numerics, the scaler and the schedule: a run that it tells, a look-alike, and what it needs."""

import math

from jinmaek.core.record import Remark
from trainer_log import Case, Trainer, linear, noisy, restarts, run

NAN, INF = math.nan, math.inf
LR = linear(1e-4, 1000)
NO_ITEMS = ([], {})


def at(steps, value, otherwise):
    """A field that is ``value`` at these steps."""
    steps = frozenset(steps)
    return lambda step: value if step in steps else otherwise(step) if callable(otherwise) else otherwise


def learning(step):
    return 1.8 + 0.6 * math.exp(-step / 40) + 0.05 * math.sin(12.9898 * step)


def skipping(losses, overflow=(), **settings):
    settings = {"schedule": LR} | settings
    return Trainer(**settings).run(losses, overflow), {"filters_loss": settings.get("filters", True)}


def gradient(step):
    return 0.7 + 0.1 * math.sin(78.233 * step)


def scale_of(floor):
    return lambda step: max(floor, 65536.0 * 0.5 ** (step // 4))


CASES = [
    Case(
        rule="zero-loss", id="nan-masked-scaler-skip",
        trigger=skipping([*noisy(400), *([NAN] * 100)]),
        alike=run(100, loss=lambda step: round(2.0 * 0.9**step, 4)),
        unchecked=run(20, loss=None, lr=LR), missing=("loss",),
    ),
    Case(
        rule="zero-loss", id="labels-partly-masked",
        trigger=run(100, loss=at(range(5, 100, 9), 0.0, learning), grad_norm=at(range(5, 100, 9), 0.0, gradient), lr=LR),
        alike=run(100, loss=at([50], 0.053, learning), grad_norm=gradient, lr=LR),
        unchecked=NO_ITEMS, missing=("loss",),
    ),
    Case(
        rule="non-finite-loss", id="attn-kernel-nan",
        trigger=run(40, [Remark(kind="attention_kernel", step=1)], loss=NAN, grad_norm=NAN, lr=LR),
        alike=run(40, [Remark(kind="attention_kernel", step=1)], grad_norm=gradient, lr=LR),
        unchecked=NO_ITEMS, missing=("loss",),
    ),
    Case(
        rule="non-finite-loss", id="nan-batch-intermittent",
        trigger=run(100, loss=at([40, 60], NAN, learning), lr=LR, optimizer_stepped=at([40, 60], False, True)),
        alike=run(100, loss=at([40, 60], 30.0, learning), lr=LR),
        unchecked=run(20, loss=None, grad_norm=1.0), missing=("loss",),
    ),
    Case(
        rule="non-finite-loss", id="divergence-to-nan",
        trigger=run(60, loss=lambda step: learning(step) * (1.6 ** max(0, step - 40)) if step < 55 else NAN, lr=LR),
        alike=run(60, loss=lambda step: learning(step) * (1.6 if step == 40 else 1.0), lr=LR),
        unchecked=NO_ITEMS, missing=("loss",),
    ),
    Case(
        rule="non-finite-gradient", id="grad-nan-finite-loss",
        trigger=run(100, grad_norm=at([30, 31, 32, 50, 70], NAN, gradient), lr=LR),
        alike=run(100, grad_norm=at([30, 50, 70], 900.0, gradient), lr=LR),
        unchecked=run(20, lr=LR), missing=("grad_norm",),
    ),
    Case(
        rule="non-finite-gradient", id="grad-nan-finite-loss",
        trigger=run(50, [Remark(kind="skipped", step=9, text="loss=2.1 grad norm=nan, skipping")], grad_norm=gradient),
        alike=run(50, [Remark(kind="skipped", step=9, text="loss=nan, skipping")], grad_norm=gradient),
        unchecked=NO_ITEMS, missing=("grad_norm",),
    ),
    Case(
        rule="gradient-sentinel", id="ds-nan-sentinel",
        trigger=run(40, loss=0.0, grad_norm=math.sqrt(2), lr=LR),
        alike=run(40, grad_norm=1.0, lr=LR),
        unchecked=run(20, lr=LR), missing=("grad_norm",),
    ),
    Case(
        rule="skipped-steps", id="skipped-steps",
        trigger=run(200, lr=LR, optimizer_stepped=at([90, 150], False, True), grad_norm=at([90, 150], INF, gradient)),
        alike=run(200, lr=LR, optimizer_stepped=at([1, 2], False, True), grad_norm=at([1, 2], INF, gradient),
                  loss_scale=65536.0),
        unchecked=run(20, lr=2e-4), missing=("schedule",),
    ),
    Case(
        rule="skipped-steps", id="nan-masked-scaler-skip",
        trigger=skipping(noisy(400), [*range(250, 290), *range(300, 400)]),
        alike=skipping(noisy(400)),
        unchecked=run(20), missing=("lr|optimizer_stepped",),
    ),
    Case(
        rule="skipped-steps", id="scaler-collapse-to-zero",
        trigger=run(60, lr=LR, optimizer_stepped=lambda step: step < 30, grad_norm=lambda step: 1.0 if step < 30 else INF,
                    loss_scale=lambda step: 1024.0 if step < 30 else 0.0),
        alike=run(60, lr=LR, optimizer_stepped=True, grad_norm=gradient, loss_scale=1024.0),
        unchecked=NO_ITEMS, missing=("lr|optimizer_stepped",),
    ),
    Case(
        rule="loss-scale", id="scaler-collapse-to-zero",
        trigger=run(60, loss_scale=lambda step: 65536.0 if step < 30 else 0.0),
        alike=run(60, loss_scale=at([1], 65536.0, 16384.0)),
        unchecked=run(20), missing=("loss_scale",),
    ),
    Case(
        rule="loss-scale", id="ds-min-loss-scale-abort",
        trigger=run(60, [Remark(kind="scale_floor", step=60)], loss_scale=scale_of(1.0)),
        alike=run(60, loss_scale=scale_of(1024.0)),
        unchecked=NO_ITEMS, missing=("loss_scale",),
    ),
    Case(
        rule="loss-scale", id="loss-scale-falling",
        trigger=run(120, loss_scale=scale_of(0.0)),
        alike=run(120, loss_scale=lambda step: 65536.0 * (1 + step // 50)),
        unchecked=run(20), missing=("loss_scale",),
    ),
    Case(
        rule="loss-scale", id="scaler-skip-every-step",
        trigger=([Remark(kind="skipped", step=None, text="OVERFLOW! Skipping step")] * 6, {}),
        alike=run(60, [Remark(kind="skipped", step=i, text="OVERFLOW! Skipping step") for i in (1, 2)]),
        unchecked=NO_ITEMS, missing=("loss_scale",),
    ),
    Case(
        rule="underflow", id="gradient-underflow",
        trigger=run(60, loss_scale=1.0, grad_norm=0.0, lr=LR),
        alike=run(60, loss_scale=1.0, grad_norm=gradient, lr=LR),
        unchecked=run(20, loss_scale=1.0), missing=("grad_norm",),
    ),
    Case(
        rule="frozen-lr", id="scaler-skip-every-step",
        trigger=run(30, lr=9.99981746e-5),
        alike=run(30, lr=1.5e-5),
        unchecked=run(30), missing=("lr",),
    ),
    Case(
        rule="zero-lr", id="lr-zero",
        trigger=run(30, lr=lambda step: 0.0 if step > 20 else LR(step)),
        alike=run(30, lr=linear(1e-4, 30)),
        unchecked=run(30), missing=("lr",),
    ),
    Case(
        rule="endless-warmup", id="warmup-longer-than-run",
        trigger=run(100, lr=linear(1e-4, 10_000, 1000), facts={"max_steps": 100}),
        alike=run(100, lr=linear(1e-4, 100, 30), facts={"max_steps": 100}),
        unchecked=run(100), missing=("lr",),
    ),
    Case(
        rule="lr-jump", id="resume-state-lost",
        trigger=run(100, [Remark(kind="resumed", step=50)], lr=lambda step: LR(step if step <= 50 else step - 50) * 5 - 4e-4),
        alike=run(120, lr=restarts(1e-4, 120, 3)),
        unchecked=run(100), missing=("lr",),
    ),
    Case(
        rule="schedule-out-of-step", id="schedule-ignores-skips",
        trigger=run(100, lr=LR, optimizer_stepped=at(range(30, 50, 4), False, True)),
        alike=run(100, lr=lambda step: LR(step - sum(at < step for at in range(30, 50, 4))),
                  optimizer_stepped=at(range(30, 50, 4), False, True)),
        unchecked=run(100, lr=LR), missing=("optimizer_stepped",),
    ),
]  # fmt: skip
