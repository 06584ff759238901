"""The arms on what was learnt: another adapter, and other ways of getting from an earlier state to the step."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

from jinmaek.core.record import StepRecord
from jinmaek.core.verdict import Trial
from jinmaek.replay.case import Case, is_finite
from jinmaek.replay.changes import lr_times, with_weights, without_dropout
from jinmaek.training.optim import make_optimizer, make_schedule
from jinmaek.training.optimizer_check import check_optimizer
from jinmaek.training.state import State, bring_to

_LOWER = 0.1
_NEWEST = 3  # snapshots tried
_JUMP = 3.0  # times the usual lr


def adapter(case: Case) -> None:
    """The base alone (a fresh adapter adds nothing), and the adapter of the state that the replay started from."""
    fresh = with_weights(case.before, case.scene.fresh["weights"])
    case.try_arm("fresh_adapter", "adapter", lambda: case.measure(fresh))
    if case.failure.symptom in ("loss_spike", "gradient_spike"):
        case.facts["base_losses"] = _base_losses(case, fresh)
    if case.is_finite_symptom:
        _start_before_the_rise(case)
    elif case.start["step"] > 0:
        _try_earlier(case, case.start)
    case.facts |= {
        "norm_before": _added_norm(case.start),
        "norm_now": _added_norm(case.before),
        "start_step": case.start["step"],
    }


def _try_earlier(case: Case, state: State) -> Trial:
    earlier = with_weights(case.before, state["weights"])
    facts = {"adapter_step": state["step"]}
    return case.try_arm("earlier_adapter", "adapter", lambda: case.measure(earlier), facts)


def _start_before_the_rise(case: Case) -> None:
    """A spike is judged by what had been learnt: histories begin with the newest state whose adapter is healthy."""
    newest = [start for start in reversed(case.scene.starts(case.step)) if start.step > 0]
    for start in newest[:_NEWEST]:
        state = case.scene.state(start)
        if _try_earlier(case, state).outcome == "heals":
            case.start = state
            return


def _base_losses(case: Case, fresh: State) -> tuple[float, float] | None:
    """The base's own loss on this step's examples, and its usual one on the next steps'."""
    others = [trial.facts["other_step"] for trial in case.trials if trial.arm == "other_batch"]
    here = case.measure(fresh).loss
    usual = [case.measure(fresh, case.scene.batches(step)).loss for step in others]
    known = [loss for loss in usual if loss is not None]
    return (here, statistics.median(known)) if here is not None and known else None


def dropout(case: Case) -> None:
    """The step without dropout."""
    if case.scene.session.recipe.adapter.dropout > 0:
        case.try_arm("no_dropout", "dropout", lambda: _undropped(case))


def _undropped(case: Case) -> StepRecord:
    with without_dropout(case.scene.training):
        return case.measure()


def history(case: Case) -> None:
    """From the earlier state to the step with exact moments, and with a lower lr: does it still fail?"""
    start, steps = case.start, range(case.start["step"] + 1, case.step)
    facts = {"start_step": start["step"]}
    if not steps:
        case.facts["no_history"] = True
        return
    records = [case.scene.records[step] for step in steps if step in case.scene.records]
    section = case.scene.session.recipe.optim
    check = check_optimizer(section, case.scene.training.device)
    case.facts["optimizer_check"] = {
        "error": check.error,
        "limit": check.limit,
        "second_moment_ratio": check.second_moment_ratio,
        "sound": check.sound,
    }
    ratios = [record.update_ratio for record in records if record.update_ratio is not None]
    case.facts["largest_update"] = max(ratios, default=None)
    if section.name.endswith("8bit") or not check.sound or case.failure.symptom == "update_beyond_bound":
        case.try_arm("exact_moments", "history", lambda: _with_exact_moments(case, start), facts)
    jump, usual = _lr_jump(records)
    if jump is not None and usual is not None:
        change = _capped(case, usual)
        case.try_arm("usual_lr", "history", lambda: _run_from(case, start, change()), {**facts, "lr": usual})
        case.facts |= {"lr": jump, "usual_lr": usual}
    rates = [record.lr for record in records if record.lr is not None]
    lower = {**facts, "lr": max(rates, default=0.0) * _LOWER, "factor": _LOWER}
    case.facts.setdefault("lr", max(rates, default=None))
    case.try_arm(
        "lower_lr", "history", lambda: _run_from(case, start, lr_times(case.scene.training, lambda _: _LOWER)), lower
    )


def _run_from(case: Case, start: State, change: AbstractContextManager[None]) -> StepRecord:
    """The step reached from ``start`` within ``change``; a history that breaks earlier is its own answer."""
    bring_to(case.scene.training, start)
    with change:
        return _walked(case, start)


def _walked(case: Case, start: State) -> StepRecord:
    for reading in case.scene.go_on(start["step"] + 1, case.step - 1):
        if not is_finite(reading) and reading.step > start["step"] + 1:
            return reading
    reached = case.scene.copy_state(case.step - 1)
    return case.measure(reached) if case.failure.symptom != "update_beyond_bound" else _last(case)


def _last(case: Case) -> StepRecord:
    return next(iter(case.scene.go_on(case.step, case.step)))


def _with_exact_moments(case: Case, start: State) -> StepRecord:
    """The history by torch's fp32 AdamW, its moments rebuilt from the gradients that the run really had."""
    training, section = case.scene.training, case.scene.session.recipe.optim
    moments = _exact_moments(case, start)
    kept = training.optimizer, training.schedule
    exact = make_optimizer(training.params.values(), section.model_copy(update={"name": "adamw"}))
    try:
        bring_to(training, start)
        training.optimizer = exact
        training.schedule = make_schedule(exact, section, case.scene.session.max_steps)
        training.schedule.load_state_dict(start["schedule"])
        for group, before in zip(exact.param_groups, start["optimizer"]["param_groups"], strict=True):
            group["lr"] = before["lr"]
        for weight in training.params.values():
            exact.state[weight] = moments[weight]
        return _walked_exactly(case, start)
    finally:
        training.optimizer, training.schedule = kept


def _walked_exactly(case: Case, start: State) -> StepRecord:
    for reading in case.scene.go_on(start["step"] + 1, case.step - 1):
        if not is_finite(reading) and reading.step > start["step"] + 1:
            return reading
    if case.failure.symptom == "update_beyond_bound":
        return _last(case)
    weights = {name: weight.detach().clone() for name, weight in case.scene.training.params.items()}
    return case.scene.measure(with_weights(case.before, weights), case.step)


def _exact_moments(case: Case, start: State) -> dict[torch.Tensor, dict[str, torch.Tensor]]:
    """AdamW's state after ``start``: nothing at step 0; later, moments of the gradients that followed it.

    The mean gradient and mean squared gradient of the replayed steps stand in for moments that only the whole
    run would give; ``step`` makes the bias corrections those of the update count.
    """
    training = case.scene.training
    steps = int(start["schedule"]["last_epoch"])
    if start["step"] == 0 or steps == 0:
        return {weight: {} for weight in training.params.values()}
    means = {weight: torch.zeros_like(weight) for weight in training.params.values()}
    squares = copy.deepcopy(list(means.values()))
    count = 0
    for reading in case.scene.replay(start, case.step - 1):
        if not reading.optimizer_stepped:
            continue
        count += 1
        for weight, square in zip(means, squares, strict=True):
            assert weight.grad is not None
            means[weight].add_(weight.grad)
            square.add_(weight.grad**2)
    count = max(count, 1)
    beta1, beta2 = case.scene.session.recipe.optim.beta1, case.scene.session.recipe.optim.beta2
    device = training.device
    return {
        weight: {
            "step": torch.tensor(float(steps), device=device),
            "exp_avg": mean / count * (1 - beta1**steps),
            "exp_avg_sq": square / count * (1 - beta2**steps),
        }
        for (weight, mean), square in zip(means.items(), squares, strict=True)
    }


def _lr_jump(records: list[StepRecord]) -> tuple[float | None, float | None]:
    """A learning rate far above the others' of the window, and the usual one."""
    rates = [record.lr for record in records if record.lr]
    if len(rates) < 3:
        return None, None
    usual = statistics.median(rates)
    return (max(rates), usual) if max(rates) > _JUMP * usual else (None, None)


def _capped(case: Case, usual: float) -> Callable[[], AbstractContextManager[None]]:
    """No update with more than the usual lr."""
    training = case.scene.training

    def factor(_: int) -> float:
        return min(1.0, usual / float(training.optimizer.param_groups[0]["lr"] or 1.0))

    return lambda: lr_times(training, factor) if usual > 0 else nullcontext()


def _added_norm(state: State) -> float:
    """2-norm of what the adapter adds: its B matrices (a fresh adapter's are 0)."""
    parts = [weight.float().norm() for name, weight in state["weights"].items() if "lora_B" in name]
    return float(torch.stack(parts).norm()) if parts else 0.0
