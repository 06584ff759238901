"""What one step does to the weights, and what its record says."""

import math

import pytest
import torch

from jinmaek.training.batches import IGNORED, pack, pad
from jinmaek.training.step import cross_entropy, run_step
from jinmaek.training.step_seed import step_seed


def weights(session):
    return [weight.detach().clone() for weight in session.training.params.values()]


def same(before, after):
    return all(torch.equal(one, two) for one, two in zip(before, after, strict=True))


def poison(session, value):
    """Put ``value`` into one weight of the frozen base; returns how to take it out again."""
    weight = session.training.model.get_output_embeddings().weight
    kept = weight.data.clone()
    weight.data[0, 0] = value
    return lambda: weight.data.copy_(kept)


@pytest.fixture
def session(make_session):
    return make_session()


def test_a_healthy_step_changes_the_weights_and_says_so(session):
    before = weights(session)
    record = run_step(session.training, 1, session.plan.batches(1)).record()
    assert record.optimizer_stepped is True
    assert math.isfinite(record.loss)
    assert not same(before, weights(session))
    assert record.num_tokens > record.num_loss_tokens > 0
    assert len(record.example_ids) == 4


def test_the_first_adam_update_is_one_lr_large(session):
    record = run_step(session.training, 1, session.plan.batches(1)).record()
    assert record.update_ratio == pytest.approx(1.0, rel=1e-3)


def test_lr_is_the_one_the_step_used(session):
    records = [run_step(session.training, step, session.plan.batches(step)).record() for step in (1, 2, 3)]
    assert [record.lr for record in records] == pytest.approx([1e-3, 1e-3 * 11 / 12, 1e-3 * 10 / 12])


@pytest.mark.parametrize("max_steps", [3, 12, 24])
def test_the_schedule_has_its_own_length(make_session, max_steps):
    """The founding author changed only max_steps, and with it every lr."""
    session = make_session(train={"max_steps": max_steps}, optim={"schedule_steps": 24})
    records = [run_step(session.training, step, session.plan.batches(step)).record() for step in (1, 2, 3)]
    assert [record.lr for record in records] == pytest.approx([1e-3, 1e-3 * 23 / 24, 1e-3 * 22 / 24])


def test_warm_up_rises_to_the_lr_and_constant_stays(make_session):
    session = make_session(optim={"schedule": "constant", "warmup_steps": 2})
    records = [run_step(session.training, step, session.plan.batches(step)).record() for step in range(1, 6)]
    assert [record.lr for record in records] == pytest.approx([0.0, 5e-4, 1e-3, 1e-3, 1e-3])
    assert records[0].update_ratio is None, "nothing divided by an lr of 0"


def test_group_norms_add_up_to_the_gradient_norm(session):
    record = run_step(session.training, 1, session.plan.batches(1)).record()
    assert set(record.groups) == {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}
    squares = sum(stats.grad_norm**2 for stats in record.groups.values())
    assert math.sqrt(squares) == pytest.approx(record.grad_norm, rel=1e-5)


def test_clipping_shortens_the_gradient_to_the_limit(make_session):
    session = make_session(train={"max_grad_norm": 1e-3})
    record = run_step(session.training, 1, session.plan.batches(1)).record()
    norms = torch.stack([weight.grad.norm() for weight in session.training.params.values()])
    assert norms.norm().item() == pytest.approx(1e-3, rel=1e-3)
    assert record.clip_ratio == pytest.approx(1e-3 / record.grad_norm, rel=1e-2)
    assert record.grad_norm > 1e-2


def test_without_a_limit_nothing_is_clipped(make_session):
    session = make_session(train={"max_grad_norm": 0.0})
    record = run_step(session.training, 1, session.plan.batches(1)).record()
    assert record.clip_ratio == 1.0
    norms = torch.stack([weight.grad.norm() for weight in session.training.params.values()])
    assert norms.norm().item() == pytest.approx(record.grad_norm, rel=1e-6)


@pytest.mark.parametrize(("value", "seen"), [(math.nan, math.isnan), (math.inf, lambda x: not math.isfinite(x))])
def test_a_non_finite_step_is_recorded_raw_and_touches_nothing(session, value, seen):
    run_step(session.training, 1, session.plan.batches(1))
    before, lr = weights(session), session.training.optimizer.param_groups[0]["lr"]
    moments = [state["exp_avg"].clone() for state in session.training.optimizer.state.values()]
    heal = poison(session, value)
    record = run_step(session.training, 2, session.plan.batches(2)).record()
    heal()
    assert seen(record.loss)
    assert record.optimizer_stepped is False
    assert record.update_ratio is None
    assert same(before, weights(session))
    assert same(moments, [state["exp_avg"] for state in session.training.optimizer.state.values()])
    assert session.training.optimizer.param_groups[0]["lr"] == lr == record.lr
    after = run_step(session.training, 3, session.plan.batches(3)).record()
    assert after.optimizer_stepped is True
    assert after.lr == lr


def test_a_non_finite_gradient_under_a_finite_loss_touches_nothing(session):
    before = weights(session)
    weight = next(iter(session.training.params.values()))
    hook = weight.register_hook(lambda grad: grad * math.inf)
    record = run_step(session.training, 1, session.plan.batches(1)).record()
    hook.remove()
    assert math.isfinite(record.loss)
    assert not math.isfinite(record.grad_norm)
    assert record.optimizer_stepped is False
    assert same(before, weights(session))


def test_a_batch_without_loss_tokens_has_no_loss_rather_than_zero(session):
    [batch] = session.plan.batches(1)
    batch.targets.fill_(IGNORED)
    empty = type(batch)(batch.input_ids, batch.targets, None, batch.num_tokens, 0, ("0",), batch.lengths)
    before = weights(session)
    record = run_step(session.training, 1, [empty]).record()
    assert record.loss is None
    assert record.grad_norm is None
    assert record.digest is None
    assert record.num_loss_tokens == 0
    assert record.optimizer_stepped is False
    assert same(before, weights(session))


def test_accumulation_is_a_mean_over_all_tokens_of_the_step(make_session):
    """4×1 = 2×2 = 1×4: same examples, same loss, same gradient."""
    found = {}
    for size in (4, 2, 1):
        session = make_session(train={"batch_size": size, "accumulation": 4 // size})
        examples = [example for micro in session.plan.microbatches(1) for example in micro]
        record = run_step(session.training, 1, session.plan.batches(1)).record()
        grads = torch.cat([weight.grad.flatten() for weight in session.training.params.values()])
        found[size] = ([example.id for example in examples], record.loss, grads)
    assert found[4][0] == found[2][0] == found[1][0]
    for size in (2, 1):
        assert found[size][1] == pytest.approx(found[4][1], abs=1e-6)
        difference = found[size][2] - found[4][2]
        assert difference.abs().max().item() < 1e-7
        assert abs(difference.mean().item()) < 1e-9


def test_an_uneven_microbatch_does_not_weigh_more(make_session):
    """Mean of means would be wrong here: the microbatches differ in tokens."""
    session = make_session(train={"batch_size": 1, "accumulation": 4})
    batches = session.plan.batches(1)
    assert len({batch.num_loss_tokens for batch in batches}) > 1
    with torch.no_grad():
        total = sum(cross_entropy(session.training, batch, "sum").double() for batch in batches)
    record = run_step(session.training, 1, batches).record()
    assert record.loss == pytest.approx(float(total) / sum(batch.num_loss_tokens for batch in batches), rel=1e-6)


def test_checkpointing_on_equals_off_to_the_bit(make_session):
    digests = []
    for enabled in (False, True):
        session = make_session(model={"activation_checkpointing": enabled}, adapter={"dropout": 0.1})
        digests.append(
            [run_step(session.training, step, session.plan.batches(step)).record().digest for step in (1, 2, 3)]
        )
    assert digests[0] == digests[1]


def test_any_step_can_be_run_again_by_itself(make_session):
    """Random numbers and examples are functions of seed and step: no history is needed but the weights."""
    first = make_session(adapter={"dropout": 0.2})
    for step in (1, 2):
        run_step(first.training, step, first.plan.batches(step))
    state = weights(first)
    expected = run_step(first.training, 3, first.plan.batches(3)).record()
    again = make_session(adapter={"dropout": 0.2})
    with torch.no_grad():
        for weight, kept in zip(again.training.params.values(), state, strict=True):
            weight.copy_(kept)
    torch.manual_seed(999)
    assert run_step(again.training, 3, again.plan.batches(3)).record().digest == expected.digest


def test_step_seeds_differ_and_are_fixed():
    assert len({step_seed(42, step) for step in range(1000)}) == 1000
    assert step_seed(42, 7) == step_seed(42, 7) != step_seed(43, 7)


def test_packed_token_losses_equal_padded_ones(make_session):
    session = make_session()
    examples = [example for micro in session.plan.microbatches(1) for example in micro]
    with torch.no_grad():
        padded, packed = (token_losses(session, batch) for batch in (pad(examples, 1), pack(examples)))
    assert len(padded) == len(packed) > 20
    difference = padded - packed
    assert difference.abs().max().item() < 2e-6
    assert abs(difference.mean().item()) < 1e-7


def token_losses(session, batch):
    logits = session.training.model(input_ids=batch.input_ids, position_ids=batch.position_ids).logits
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return losses[batch.targets.flatten() != IGNORED]


def test_packed_documents_cannot_see_each_other(make_session):
    """Changing one document leaves the logits of the others as they were, to the bit."""
    session = make_session()
    batch = pack(session.plan.microbatches(1)[0])
    starts = (batch.position_ids[0] == 0).nonzero().flatten().tolist() + [batch.input_ids.shape[1]]
    changed = batch.input_ids.clone()
    changed[0, starts[1] : starts[2]] = 7
    with torch.no_grad():
        model = session.training.model.eval()
        one = model(input_ids=batch.input_ids, position_ids=batch.position_ids).logits[0]
        two = model(input_ids=changed, position_ids=batch.position_ids).logits[0]
    same_rows = (one == two).all(dim=-1)
    assert not same_rows[starts[1] : starts[2]].any()
    assert same_rows[: starts[1]].all()
    assert same_rows[starts[2] :].all()


def test_padding_does_not_change_a_loss(make_session):
    session = make_session()
    examples = session.plan.microbatches(1)[0]
    with torch.no_grad():
        together = cross_entropy(session.training, pad(examples, 1), "sum")
        alone = sum(cross_entropy(session.training, pad([example], 1), "sum") for example in examples)
    assert float(together) == pytest.approx(float(alone), rel=1e-6)
