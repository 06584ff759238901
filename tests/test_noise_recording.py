"""The gradient of the first microbatch, and held-out losses by example: recorded, right, and without changing a bit."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from jinmaek.core.codec import decode_record, encode_record
from jinmaek.training.evaluate import evaluate
from jinmaek.training.examples import Example
from jinmaek.training.step import cross_entropy, run_step

TWO = {"train": {"accumulation": 2, "batch_size": 2}}


def reference_norm(session, batch):
    """Of the mean loss of one microbatch, by plain autograd."""
    params = list(session.training.params.values())
    loss = cross_entropy(session.training, batch, "sum") / batch.num_loss_tokens
    grads = torch.autograd.grad(loss, params)
    return float(torch.linalg.vector_norm(torch.stack([grad.norm() for grad in grads])))


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_norm_of_the_first_microbatch_is_of_its_own_mean_loss(make_session, precision):
    session = make_session(
        train={**TWO["train"], "precision": precision, "loss_scale_init": None if precision == "fp32" else 1024.0}
    )
    batches = session.plan.batches(1)
    expected = reference_norm(session, batches[0])
    record = run_step(session.training, 1, batches).record()
    assert record.first_loss_tokens == batches[0].num_loss_tokens
    assert record.first_grad_norm == pytest.approx(expected, rel=1e-5 if precision == "fp32" else 2e-2)
    assert decode_record(encode_record(record)) == record


def test_one_microbatch_has_no_two_sizes(make_session):
    session = make_session()
    record = run_step(session.training, 1, session.plan.batches(1)).record()
    assert (record.first_grad_norm, record.first_loss_tokens) == (None, None)
    assert "first_grad_norm" not in encode_record(record)


def test_a_microbatch_without_a_loss_token_is_not_the_first(make_session):
    session = make_session(**TWO)
    first, second = session.plan.batches(1)
    empty = replace(first, targets=torch.full_like(first.targets, -100), num_loss_tokens=0)
    record = run_step(session.training, 1, [empty, first, second]).record()
    assert record.first_loss_tokens == first.num_loss_tokens
    alone = run_step(session.training, 2, [empty, first]).record()
    assert alone.first_grad_norm is None


def test_the_digest_does_not_hang_on_it(make_session):
    """Runs recorded before it was are reproduced."""
    import hashlib

    session = make_session(**TWO)
    outcome = run_step(session.training, 1, session.plan.batches(1))
    record, num = outcome.record(), len(session.training.params)
    values = outcome._values
    assert len(values) == 3 + 2 * num
    assert record.digest == hashlib.blake2b(values.numpy().tobytes(), digest_size=8).hexdigest()


def test_held_out_losses_of_each_example_make_the_mean(make_session):
    session = make_session(data={"held_out": 0.3})
    held_out = session.data.held_out
    found = evaluate(session.training, held_out, max_tokens=120, pad_id=session.pad_id)
    tokens = np.array([example.num_loss_tokens for example in held_out])
    assert len(found.example_losses) == len(held_out) > 10
    assert np.average(found.example_losses, weights=tokens) == pytest.approx(found.loss, rel=1e-5)
    alone = evaluate(session.training, held_out[3:4], max_tokens=120, pad_id=session.pad_id)
    assert found.example_losses[3] == pytest.approx(alone.loss, rel=1e-4)
    assert found.answer_loss == pytest.approx(found.loss)
    assert found.prompt_loss > 0
    with torch.no_grad():
        session.training.model.eval()
        total = sum(
            float(cross_entropy(session.training, session.plan.tensors([example]), "sum")) for example in held_out
        )
    assert found.loss == pytest.approx(total / tokens.sum(), rel=1e-5)


def test_where_everything_is_learnt_prompt_and_answer_are_still_told_apart(make_session):
    answers, everything = (make_session(data={"held_out": 0.3, "loss": loss}) for loss in ("answer", "all"))
    one, two = (
        evaluate(session.training, session.data.held_out, max_tokens=120, pad_id=session.pad_id)
        for session in (answers, everything)
    )
    # Which examples are held out hangs on their tokens, which are the same.
    assert two.answer_loss == pytest.approx(one.loss, rel=1e-5)
    assert two.prompt_loss == pytest.approx(one.prompt_loss, rel=1e-5)
    assert two.loss == pytest.approx(
        (two.prompt_loss * (two.num_loss_tokens - one.num_loss_tokens) + one.loss * one.num_loss_tokens)
        / two.num_loss_tokens,
        rel=1e-5,
    )


def test_plain_text_has_no_prompt(make_session):
    session = make_session()
    text = [Example(str(number), np.arange(3, 12 + number), np.ones(9 + number, bool)) for number in range(3)]
    found = evaluate(session.training, text, max_tokens=64, pad_id=session.pad_id)
    assert (found.prompt_loss, found.answer_loss) == (None, None)
