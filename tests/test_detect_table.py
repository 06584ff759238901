"""The decision table of a loss of 0.0, row by row, from what the Trainer writes down; and the benign look-alikes."""

import math
import random
from dataclasses import replace

import pytest

from jinmaek.core.record import EvaluationRecord, StepRecord
from trainer_log import Trainer, constant, cosine, judge, linear, noisy, restarts

OLD = {"prints_gradient": False}
NEW = {"prints_gradient": True}


def dying(total=1000, onset=476, dead=500, seed=0):
    """Losses of a forward pass that overflows on more and more batches, then on all."""
    losses, rng = noisy(total, seed=seed), random.Random(seed)
    for step in range(onset, total + 1):
        if step > dead or rng.random() < (step - onset + 6) / (dead - onset):
            losses[step - 1] = math.nan
    return losses


def trained(losses, overflow=(), facts=None, others=(), **settings):
    """The trainer after the run, and the diagnosis."""
    trainer = Trainer(**{"schedule": linear(1e-4, 1000)} | settings)
    records = trainer.run(losses, overflow)
    items = sorted([*records, *others], key=lambda item: item.step)
    return trainer, judge(items, filters_loss=trainer.filters, **facts or {})


def evaluations(values, every=100, start=100):
    return [EvaluationRecord(step=start + every * i, loss=value) for i, value in enumerate(values)]


def first(diagnosis):
    cause = diagnosis.causes[0]
    return cause.id, cause.confidence, diagnosis.verdict, diagnosis.weights


@pytest.mark.parametrize("gradient", [OLD, NEW])
@pytest.mark.parametrize("schedule", [linear(1e-4, 1000), linear(1e-4, 1000, 50), cosine(2e-4, 1000)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_frozen_lr_says_that_the_scaler_skipped_and_the_weights_live(gradient, schedule, seed):
    trainer, diagnosis = trained(dying(620, seed=seed), schedule=schedule, **gradient)
    assert first(diagnosis) == ("nan-masked-scaler-skip", "established", "faulty", "intact")
    window = math.ceil(trainer.skipped[0] / 10) * 10
    assert diagnosis.causes[0].first_step == window
    assert diagnosis.last_healthy_step == window - 10
    assert "nan-poisoned-weights" in diagnosis.causes[0].ruled_out
    assert trainer.poisoned_at is None


def test_rare_finite_batches_of_a_skipped_run_are_told_with_their_true_loss():
    losses = dying(630)
    losses[549] = losses[611] = 1.9
    _, diagnosis = trained(losses)
    assert first(diagnosis) == ("nan-masked-scaler-skip", "established", "faulty", "intact")
    assert len(diagnosis.causes) == 1
    true = {step: candidates for step, _, *candidates in diagnosis.causes[0].evidence["true_losses"]}
    assert any(loss == pytest.approx(1.9, abs=0.02) for loss in true[550])
    assert any(loss == pytest.approx(1.9, abs=0.02) for loss in true[620])


@pytest.mark.parametrize("gradient", [OLD, NEW])
@pytest.mark.parametrize("warmup", [100, 30])
def test_a_run_that_overflows_from_the_first_step_of_a_warm_up_was_skipped(gradient, warmup):
    _, diagnosis = trained([math.nan] * 120, schedule=linear(1e-4, 1000, warmup), **gradient)
    assert first(diagnosis) == ("scaler-skip-every-step", "likely", "faulty", "intact")
    assert diagnosis.causes[0].first_step == 10


def test_a_run_that_overflows_soon_after_its_warm_up_began_is_frozen_at_a_typed_lr_or_not():
    losses = [*noisy(30), *([math.nan] * 90)]
    _, diagnosis = trained(losses, schedule=linear(1e-4, 1000, 97))
    assert first(diagnosis)[0] == "nan-masked-scaler-skip"
    assert diagnosis.weights == "intact"


@pytest.mark.parametrize("gradient", [OLD, NEW])
def test_an_lr_that_moves_on_after_166_skips_is_a_scale_of_zero(gradient):
    losses = [*noisy(400), *([math.nan] * 300)]
    trainer, diagnosis = trained(losses, **gradient)
    assert (trainer.unfrozen_at, trainer.scale) == (567, 0.0)
    cause = diagnosis.causes[0]
    assert first(diagnosis) == ("scaler-collapse-to-zero", "established", "faulty", "unknown")
    assert cause.first_step == 410
    assert cause.evidence["plateau_steps"] == pytest.approx(166, abs=10)


def test_a_new_accelerate_stays_frozen_after_the_scalers_death():
    losses = [*noisy(400), *([math.nan] * 300)]
    trainer, diagnosis = trained(losses, old_accelerate=False, **NEW)
    assert trainer.unfrozen_at is None
    assert first(diagnosis) == ("nan-masked-scaler-skip", "established", "faulty", "intact")


def test_a_finite_loss_after_the_scalers_death_proves_that_the_weights_live():
    losses = [*noisy(400), *([math.nan] * 300)]
    losses[604] = losses[652] = 1.9
    trainer, diagnosis = trained(losses, amnesia=True)
    assert trainer.poisoned_at is None
    assert first(diagnosis) == ("scaler-collapse-to-zero", "established", "faulty", "intact")


def test_a_finite_batch_after_the_scalers_death_poisons_and_nobody_calls_that_intact():
    losses = [*noisy(400), *([math.nan] * 300)]
    losses[604] = 1.9
    trainer, diagnosis = trained(losses)
    assert trainer.poisoned_at == 605
    assert first(diagnosis)[0] == "scaler-collapse-to-zero"
    assert diagnosis.weights != "intact"


@pytest.mark.parametrize("schedule", [linear(1e-4, 1000), cosine(2e-4, 1000, 50)])
@pytest.mark.parametrize(("gradient", "sure"), [(OLD, "established"), (NEW, "likely")])
def test_an_lr_that_moves_under_a_masked_loss_says_poisoned(schedule, gradient, sure):
    losses = noisy(600)
    losses[421] = math.nan
    trainer, diagnosis = trained(losses, precision="bf16", schedule=schedule, **gradient)
    assert trainer.poisoned_at == 422
    assert first(diagnosis) == ("nan-poisoned-weights", sure, "faulty", "poisoned")
    assert diagnosis.causes[0].first_step == 430


@pytest.mark.parametrize("gradient", [OLD, NEW])
def test_an_unfiltered_nan_with_a_moving_lr_says_poisoned_too(gradient):
    losses = noisy(600)
    losses[423] = math.nan
    _, diagnosis = trained(losses, precision="bf16", filters=False, **gradient)
    assert first(diagnosis)[0] == "nan-poisoned-weights"
    assert diagnosis.weights == "poisoned"
    assert diagnosis.causes[0].first_step == 430


def test_a_fused_optimizers_skips_are_not_called_established():
    trainer, diagnosis = trained(dying(620), fused=True, old_accelerate=False, **NEW)
    assert trainer.poisoned_at is None
    cause = diagnosis.causes[0]
    assert diagnosis.verdict == "faulty"
    assert cause.confidence != "established" or diagnosis.weights == "intact"
    assert cause.id == "nan-masked-scaler-skip" or "fused-skip" in cause.undecided


@pytest.mark.parametrize("value", [1.0, math.sqrt(2), math.sqrt(3)])
def test_a_gradient_norm_of_root_groups_is_deepspeeds_nan(value):
    losses = noisy(600)
    losses[423] = math.nan
    records = Trainer(schedule=linear(1e-4, 1000), precision="bf16").run(losses)
    items = [replace(each, grad_norm=value if each.step > 420 else 0.7 + each.step / 1e4) for each in records]
    diagnosis = judge(items, filters_loss=True)
    everything = [*diagnosis.causes, *(below for cause in diagnosis.causes for below in cause.consequences)]
    found = {each.id: each for each in everything}
    assert diagnosis.verdict == "faulty"
    assert diagnosis.weights == "poisoned"
    assert found["ds-nan-sentinel"].evidence["groups"] == round(value**2)
    assert found["ds-nan-sentinel"].first_step == 430


@pytest.mark.parametrize("held_out", [math.nan, 0.0])
def test_gradients_of_zero_without_supervised_tokens_are_masked_labels(held_out):
    records = Trainer(schedule=linear(1e-4, 1000)).run([0.0] * 300)
    items = [replace(each, grad_norm=0.0, num_loss_tokens=0) for each in records]
    diagnosis = judge([*items, *evaluations([held_out], start=300)], filters_loss=True)
    assert first(diagnosis) == ("labels-all-masked", "established", "faulty", "intact")
    assert diagnosis.causes[0].first_step == 10


def test_nan_gradients_with_a_finite_held_out_loss_and_no_supervised_tokens_are_masked_labels():
    records = Trainer(schedule=linear(1e-4, 1000)).run([0.0] * 300)
    items = [replace(each, grad_norm=math.nan, num_loss_tokens=0) for each in records]
    diagnosis = judge(sorted([*items, *evaluations([2.0, 2.0])], key=lambda item: item.step), filters_loss=True)
    assert first(diagnosis) == ("labels-all-masked", "established", "faulty", "intact")


def test_gradients_of_zero_alone_are_likely_masked_labels():
    records = Trainer(schedule=linear(1e-4, 1000)).run([0.0] * 300)
    diagnosis = judge([replace(each, grad_norm=0.0) for each in records], filters_loss=True)
    assert first(diagnosis) == ("labels-all-masked", "likely", "faulty", "intact")


def test_gradients_of_zero_under_a_living_loss_are_weights_that_stand_still():
    rng = random.Random(0)
    records = Trainer(schedule=linear(1e-4, 1000)).run([2.0 + rng.gauss(0, 0.1) for _ in range(600)])
    items = [replace(each, grad_norm=0.0) for each in records]
    diagnosis = judge(sorted([*items, *evaluations([2.01234] * 5)], key=lambda item: item.step), filters_loss=True)
    assert first(diagnosis) == ("params-not-updating", "likely", "faulty", "intact")


@pytest.mark.parametrize("gradient", [OLD, NEW])
def test_a_constant_lr_cannot_tell_and_says_so(gradient):
    losses = [*noisy(500), *([math.nan] * 120)]
    _, diagnosis = trained(losses, schedule=constant(2e-4), **gradient)
    candidates = {cause.id: cause for cause in diagnosis.causes}
    assert {"nan-masked-scaler-skip", "nan-poisoned-weights"} <= candidates.keys()
    assert {cause.confidence for cause in candidates.values()} == {"possible"}
    assert diagnosis.weights == "unknown"
    assert "nan-poisoned-weights" in candidates["nan-masked-scaler-skip"].undecided


def healthy_runs():
    """Runs that look ill and are not."""
    rng = random.Random(5)
    yield "ordinary", Trainer(schedule=linear(1e-4, 600), prints_gradient=True).run(noisy(600)), {}
    for skips in ([1, 2], [1, 2, 3, 4, 5], [1, 2, 14]):
        run = Trainer(schedule=linear(1e-4, 600), prints_gradient=True).run(noisy(600), skips)
        yield f"scaler-calibration-{len(skips)}", run, {}
    run = Trainer(schedule=linear(1e-4, 200, 20), interval=1, prints_gradient=True).run(noisy(200), [1, 2, 3])
    yield "scaler-calibration-each-step", run, {}
    sawtooth = [2.0 + (1.2 if i % 5 == 0 else 0.0) + rng.gauss(0, 0.05) for i in range(300)]
    yield "length-group-sawtooth", Trainer(schedule=linear(1e-4, 400), interval=1).run(sawtooth), {}
    falling = Trainer(schedule=linear(1e-4, 600)).run(noisy(600, start=3.0, noise=0.03))
    yield "grad-norm-zero", [replace(each, grad_norm=0.0) for each in falling], {}
    grpo = [
        StepRecord(step=i, loss_reported=0.0 if i < 30 else 1e-4 * rng.random(), grad_norm=0.3 + 0.1 * rng.random(),
                   lr=1e-6 * (1 - i / 300))
        for i in range(1, 200)
    ]  # fmt: skip
    yield "grpo-zero-loss", grpo, {"objective": "rl"}
    yield "constant-lr", Trainer(schedule=constant(2e-4), prints_gradient=True).run(noisy(600)), {}
    yield "lr-zero-at-the-end", Trainer(schedule=cosine(2e-4, 600)).run(noisy(600)), {}
    easy = noisy(300, noise=0.05)
    easy[150] = 0.053
    run = Trainer(schedule=linear(1e-4, 400), interval=1, prints_gradient=True).run(easy)
    yield "one-easy-batch", [replace(each, grad_norm=0.02) if each.step == 151 else each for each in run], {}
    odd = noisy(300)
    odd[100] = 9.0
    yield "one-outlier-batch", Trainer(schedule=linear(1e-4, 400), interval=1, prints_gradient=True).run(odd), {}
    held_out = evaluations([1.95, 1.90, 1.881, 1.885])
    run = Trainer(schedule=linear(1e-4, 600)).run(noisy(600))
    yield "held-out-up-by-0.2-%", sorted([*run, *held_out], key=lambda item: item.step), {}
    yield "restarts", Trainer(schedule=restarts(2e-4, 600, 3)).run(noisy(600)), {}
    yield "floor", Trainer(schedule=cosine(2e-4, 600, 0, 0.1)).run(noisy(600)), {}


@pytest.mark.parametrize(("items", "facts"), [pytest.param(*rest, id=name) for name, *rest in healthy_runs()])
def test_a_benign_look_alike_is_healthy(items, facts):
    diagnosis = judge(items, filters_loss=True, **facts)
    assert diagnosis.causes == ()
    assert diagnosis.verdict == "healthy"
    assert diagnosis.weights == "intact"


@pytest.mark.parametrize("steps", [120, 400])
def test_a_run_that_overflows_from_the_first_step_at_a_typed_lr_does_not_rule_the_scaler_out(steps):
    trainer, diagnosis = trained([math.nan] * steps)
    assert trainer.poisoned_at is None
    assert diagnosis.verdict == "faulty"
    ids = {cause.id for cause in diagnosis.causes}
    assert ids & {"scaler-skip-every-step", "scaler-collapse-to-zero"}
    assert not any("scaler-skip" in cause.ruled_out for cause in diagnosis.causes)


def test_poisoned_weights_under_an_lr_of_three_digits_are_not_called_intact():
    losses = noisy(500)
    losses[299] = math.nan
    trainer = Trainer(schedule=linear(1e-4, 20_000), interval=1, precision="bf16")
    items = [replace(each, lr=float(f"{each.lr:.2e}")) for each in trainer.run(losses)]
    diagnosis = judge(items, filters_loss=True, source="console")
    assert trainer.poisoned_at == 300
    assert diagnosis.verdict == "faulty"
    assert diagnosis.weights != "intact"
