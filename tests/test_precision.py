"""fp16, bf16 and fp32 are what the recipe says, also on the CPU; the loss scale has a floor."""

import math

import pytest
import torch

from jinmaek.training.step import run_step


def fp16_session(make_session, **train):
    return make_session(train={"precision": "fp16", **train})


@pytest.mark.parametrize(
    ("precision", "expected"), [("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)]
)
def test_the_forward_pass_runs_in_the_asked_dtype(make_session, precision, expected):
    """transformers' Trainer trains in fp32 on the CPU when asked for fp16, and says nothing."""
    session = make_session(train={"precision": precision})
    seen = []
    linear = session.training.model.get_base_model().gpt_neox.layers[0].mlp.dense_h_to_4h
    linear.register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    record = run_step(session.training, 1, session.plan.batches(1)).record()
    assert set(seen) == {expected}
    assert record.optimizer_stepped is True
    assert all(weight.dtype == torch.float32 for weight in session.training.params.values())


def test_only_fp16_has_a_loss_scale(make_session):
    session = make_session()
    assert run_step(session.training, 1, session.plan.batches(1)).record().loss_scale is None
    session = fp16_session(make_session)
    assert run_step(session.training, 1, session.plan.batches(1)).record().loss_scale == 65536.0


def test_the_recorded_gradient_norm_is_unscaled(make_session):
    found = {}
    for precision in ("fp32", "fp16"):
        session = make_session(train={"precision": precision})
        found[precision] = run_step(session.training, 1, session.plan.batches(1)).record().grad_norm
    assert found["fp16"] == pytest.approx(found["fp32"], rel=0.02)


def test_an_overflow_halves_the_scale_and_leaves_the_weights(make_session):
    session = fp16_session(make_session, loss_scale_init=2.0**40)
    before = [weight.detach().clone() for weight in session.training.params.values()]
    records = [run_step(session.training, step, session.plan.batches(step)).record() for step in (1, 2)]
    assert [record.optimizer_stepped for record in records] == [False, False]
    assert [record.loss_scale for record in records] == [2.0**40, 2.0**39]
    assert all(math.isfinite(record.loss) for record in records)
    assert all(map(torch.equal, before, session.training.params.values()))


def test_the_loss_scale_recovers_by_itself_from_a_bad_start(make_session):
    session = fp16_session(make_session, loss_scale_init=2.0**30)
    records = [run_step(session.training, step, session.plan.batches(step)).record() for step in range(1, 25)]
    assert records[0].optimizer_stepped is False
    assert records[-1].optimizer_stepped is True


def test_the_loss_scale_never_falls_below_its_floor(make_session):
    """The founding run's scale reached 0 after 166 overflows; from then on every gradient was 0·inf = NaN."""
    session = fp16_session(make_session, loss_scale_init=64.0, loss_scale_min=4.0)
    hook = next(iter(session.training.params.values())).register_hook(lambda grad: grad * math.inf)
    [batch] = session.plan.batches(1)
    scales = [run_step(session.training, step, [batch]).record().loss_scale for step in range(1, 181)]
    assert scales[:6] == [64.0, 32.0, 16.0, 8.0, 4.0, 4.0]
    assert set(scales[5:]) == {4.0}
    hook.remove()
    after = run_step(session.training, 181, [batch]).record()
    assert after.optimizer_stepped is True
    assert math.isfinite(after.grad_norm)
