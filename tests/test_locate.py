"""Where a step breaks: the right module, the right operation, the right token, and never a mask."""

import math

import pytest
import torch

from jinmaek.replay.locate import locate, nearest_to_limit, plain_name
from jinmaek.training.batches import pack
from scenes import layer, scaled, scene_of

LIMIT = 65504.0
PACK = {"packing": True, "max_length": 96}
each_attention = pytest.mark.parametrize("attention", ["eager", "sdpa"])
each_layout = pytest.mark.parametrize("packing", [False, True], ids=["padded", "packed"])
each_checkpointing = pytest.mark.parametrize("checkpointing", [False, True])


def session_of(make_session, *, packing=False, attention="sdpa", precision="fp16", checkpointing=False, **sections):
    train = {"precision": precision} | sections.pop("train", {})
    if packing:
        train |= {"batch_size": None, "batch_tokens": 192}
    model = {"attention": attention, "activation_checkpointing": checkpointing} | sections.pop("model", {})
    return make_session(model=model, data=PACK if packing else {}, train=train, **sections)


def located(session, step=1):
    scene = scene_of(session)
    found = locate(scene, scene.fresh, step)
    assert found is None or found[0].module == plain_name(found[1].key[0])
    return None if found is None else found[0]


def embedding(session):
    return session.training.model.get_input_embeddings().weight


def one_token(session, value):
    """Give the token that is seen once in step 1 an embedding of its own; its place: example, position, text."""
    [batch] = session.plan.batches(1)
    ids, counts = batch.input_ids.unique(return_counts=True)
    for token in ids[counts == 1].tolist():
        row, place = (batch.input_ids == token).nonzero()[0].tolist()
        example = row if batch.position_ids is None else int((batch.position_ids[0, : place + 1] == 0).sum()) - 1
        if example > 0 and place > 3:
            break
    else:
        raise AssertionError("no such token")
    with torch.no_grad():
        embedding(session)[token] = value
    return batch.example_ids[example], place, session.tokenizer.decode([token])


@each_checkpointing
@each_attention
@each_layout
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_healthy_step_breaks_nowhere(make_session, packing, attention, precision, checkpointing):
    session = session_of(
        make_session, packing=packing, attention=attention, precision=precision, checkpointing=checkpointing
    )
    assert located(session) is None


@each_attention
@each_layout
def test_scores_that_fall_below_the_mask_are_no_overflow(make_session, packing, attention):
    """fp16: -65504 and a score of -40 is -inf, and harmless."""
    session = session_of(make_session, packing=packing, attention=attention, train={"loss_scale_init": 1024.0})
    for number in (0, 1):
        scaled(session, number, "attention.query_key_value", 30.0)
    scene = scene_of(session)
    assert math.isfinite(scene.measure(scene.fresh, 1).grad_norm)
    assert located(session) is None


@each_checkpointing
@each_attention
@each_layout
def test_behind_such_a_mask_the_overflow_is_found(make_session, packing, attention, checkpointing):
    session = session_of(make_session, packing=packing, attention=attention, checkpointing=checkpointing)
    scaled(session, 0, "attention.query_key_value", 30.0)
    scaled(session, 1, "mlp.dense_h_to_4h", 2e5)
    assert layer(session, 1).mlp.dense_h_to_4h.base_layer.weight.isfinite().all()
    place = located(session)
    assert place.module == "gpt_neox.layers.1.mlp.dense_h_to_4h"
    assert (place.op, place.phase) == ("aten.addmm", "forward")
    assert place.weight is None


@each_checkpointing
@each_layout
@pytest.mark.parametrize(("number", "name"), [(0, "mlp.dense_h_to_4h"), (1, "attention.query_key_value")])
def test_an_overflow_is_told_with_its_numbers(make_session, packing, checkpointing, number, name):
    session = session_of(make_session, packing=packing, checkpointing=checkpointing)
    scaled(session, number, name, 3e5)
    inputs, linear = [], layer(session, number).get_submodule(name).base_layer
    assert linear.weight.isfinite().all()
    handle = linear.register_forward_hook(lambda module, args, output: inputs.append((args[0].detach(), output)))
    scene = scene_of(session)
    scene.measure(scene.fresh, 1)
    handle.remove()
    x, y = inputs[0][0].half(), inputs[0][1]
    exact = x.double() @ linear.weight.double().t() + linear.bias.double()
    place = located(session)
    assert place.module == f"gpt_neox.layers.{number}.{name}"
    assert (place.phase, place.dtype, place.limit) == ("forward", "float16", LIMIT)
    assert place.true_absmax == pytest.approx(exact.abs().max().item(), rel=1e-9)
    assert place.true_absmax > LIMIT
    assert place.output_absmax <= LIMIT
    assert place.num_non_finite == (~y.isfinite()).sum().item() > 0
    assert place.num_values == y.numel()
    given = sorted(each.abs().max().item() for each in (linear.bias, x, linear.weight))
    assert sorted(place.input_absmax) == given
    row, position = (~y.isfinite()).any(dim=-1).nonzero()[0].tolist()
    [batch] = session.plan.batches(1)
    assert place.position == position
    assert place.token == session.tokenizer.decode([int(batch.input_ids[row, position])])


@each_attention
@each_layout
def test_the_example_and_the_token_are_the_ones_that_overflow(make_session, packing, attention):
    """Only one token's row is larger: it is the one that is named."""
    session = session_of(make_session, packing=packing, attention=attention)
    example, position, token = one_token(session, 6e4)
    with torch.no_grad():
        layer(session, 0).mlp.dense_4h_to_h.base_layer.weight[0] = 0.0
        layer(session, 0).mlp.dense_4h_to_h.base_layer.bias[0] = 2e4
    place = located(session)
    assert place.phase == "forward"
    assert place.dtype == "float16"
    assert place.true_absmax == pytest.approx(8e4, rel=0.01)
    assert (place.example_id, place.position, place.token) == (example, position, token)


def test_the_microbatch_is_the_one_that_overflows(make_session):
    session = session_of(make_session, train={"batch_size": 1, "accumulation": 4})
    batches = session.plan.batches(1)
    tokens = [set(batch.input_ids.flatten().tolist()) for batch in batches]
    token = min(tokens[2] - tokens[0] - tokens[1] - tokens[3])
    with torch.no_grad():
        embedding(session)[token] = math.nan
    place = located(session)
    assert place.weight == "gpt_neox.embed_in.weight"
    assert place.example_id == batches[2].example_ids[0]
    assert place.position == (batches[2].input_ids[0] == token).nonzero()[0].item()


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("name", "row"), [("mlp.dense_h_to_4h", 7), ("attention.query_key_value", 3), ("mlp.dense_4h_to_h", 0)]
)
def test_a_weight_that_is_not_finite_is_named(make_session, name, row, value):
    session = session_of(make_session)
    with torch.no_grad():
        layer(session, 1).get_submodule(name).base_layer.weight[row] = value
    place = located(session)
    assert place.weight == f"gpt_neox.layers.1.{name}.weight"
    assert (place.module, place.op) == (f"gpt_neox.layers.1.{name}", "aten.addmm")
    assert place.true_absmax is None
    assert place.num_non_finite == place.num_values // layer(session, 1).get_submodule(name).base_layer.out_features


@each_checkpointing
def test_a_trained_weight_that_is_not_finite_is_named(make_session, checkpointing):
    session = session_of(make_session, precision="fp32", checkpointing=checkpointing)
    weight = layer(session, 1).mlp.dense_h_to_4h.lora_A.default.weight
    weight.data[2, 5] = math.nan
    assert located(session).weight == "gpt_neox.layers.1.mlp.dense_h_to_4h.lora_A.weight"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_embedding_that_is_not_finite_is_named_with_its_token(make_session, value):
    session = session_of(make_session)
    example, position, token = one_token(session, value)
    place = located(session)
    assert place.weight == "gpt_neox.embed_in.weight"
    assert (place.example_id, place.position, place.token) == (example, position, token)


def test_of_two_bad_weights_the_one_in_use_is_named(make_session):
    session = session_of(make_session)
    seen = session.plan.batches(1)[0].input_ids.unique().tolist()
    unseen = next(token for token in range(512) if token not in seen)
    with torch.no_grad():
        embedding(session)[unseen] = math.nan
    assert located(session) is None
    with torch.no_grad():
        layer(session, 1).attention.dense.base_layer.weight[4] = math.inf
    place = located(session)
    assert place.weight == "gpt_neox.layers.1.attention.dense.weight"
    assert place.module == "gpt_neox.layers.1.attention.dense"


@pytest.mark.parametrize("double_quant", [False, True])
def test_a_4_bit_weight_whose_scale_is_not_finite_is_named(make_session, double_quant):
    session = session_of(make_session, precision="bf16", model={"quantization": "nf4", "double_quant": double_quant})
    state = layer(session, 1).mlp.dense_h_to_4h.base_layer.weight.quant_state
    (state.state2 if double_quant else state).absmax[0] = math.nan
    place = located(session)
    assert place.weight == place.module + ".weight" == "gpt_neox.layers.1.mlp.dense_h_to_4h.weight"


def test_a_4_bit_layer_that_overflows_has_its_true_value_from_the_codes(make_session):
    from jinmaek.replay.dequantisation import dequantised

    session = session_of(make_session, model={"quantization": "nf4", "compute_dtype": "fp16", "double_quant": False})
    linear = layer(session, 0).mlp.dense_h_to_4h.base_layer
    linear.weight.quant_state.absmax.mul_(3e5)
    inputs = []
    handle = linear.register_forward_hook(lambda module, args, output: inputs.append(args[0].detach().half()))
    scene = scene_of(session)
    scene.measure(scene.fresh, 1)
    handle.remove()
    exact = inputs[0].double() @ dequantised(linear.weight).double().t() + linear.bias.double()
    place = located(session)
    assert place.module == "gpt_neox.layers.0.mlp.dense_h_to_4h"
    assert place.weight is None
    assert place.true_absmax == pytest.approx(exact.abs().max().item(), rel=1e-6)
    assert place.true_absmax > LIMIT


def test_scores_that_overflow_are_found_in_the_attention(make_session):
    session = session_of(make_session, attention="eager")
    scaled(session, 1, "attention.query_key_value", 1e3)
    place = located(session)
    assert place.module == "gpt_neox.layers.1.attention"
    assert place.op in ("aten.bmm", "aten.baddbmm")
    assert place.true_absmax > LIMIT


@each_checkpointing
@each_attention
@each_layout
def test_a_gradient_that_overflows_alone_is_found_in_the_backward_pass(make_session, packing, attention, checkpointing):
    session = session_of(
        make_session,
        packing=packing,
        attention=attention,
        checkpointing=checkpointing,
        train={"loss_scale_init": 2.0**40},
    )
    scene = scene_of(session)
    record = scene.measure(scene.fresh, 1)
    assert math.isfinite(record.loss)
    assert not math.isfinite(record.grad_norm)
    place = located(session)
    assert (place.phase, place.dtype, place.weight) == ("backward", "float16", None)
    assert place.true_absmax > LIMIT
    assert place.example_id in record.example_ids


@each_attention
@each_layout
def test_an_attention_that_overflows_backward_is_found_in_spite_of_its_mask(make_session, packing, attention):
    """Large keys under small queries: the scores are as before, the gradient for the queries is too large."""
    session = session_of(make_session, packing=packing, attention=attention, train={"loss_scale_init": 2.0**17})
    linear = layer(session, 1).attention.query_key_value.base_layer
    with torch.no_grad():
        query, key, _ = linear.weight.view(2, 3, 32, 64).unbind(1)
        query /= 6e4
        key *= 6e4
    scene = scene_of(session)
    assert math.isfinite(scene.measure(scene.fresh, 1).loss)
    place = located(session)
    assert (place.module, place.phase) == ("gpt_neox.layers.1.attention", "backward")
    assert ("scaled_dot_product" if attention == "sdpa" else "bmm") in place.op


@each_attention
@each_layout
def test_the_nearest_to_the_limit_of_a_healthy_step(make_session, packing, attention):
    """Neither a mask, which is at the limit itself, nor a score below it."""
    session = session_of(make_session, packing=packing, attention=attention)
    scaled(session, 0, "attention.query_key_value", 20.0)
    head = session.training.model.get_output_embeddings()
    with torch.no_grad():
        head.weight[9] *= 1e4
    outputs = []
    handle = head.register_forward_hook(lambda module, args, output: outputs.append(output.abs().max().item()))
    scene = scene_of(session)
    op, share = nearest_to_limit(scene, scene.fresh, 1)
    handle.remove()
    assert plain_name(op.key[0]) == "lm_head"
    assert (op.key[2], op.dtype) == ("forward", torch.float16)
    assert share == outputs[0] / LIMIT
    assert 0.05 < share < 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_without_fp16_nothing_is_near_its_limit(make_session, precision):
    scene = scene_of(session_of(make_session, precision=precision))
    assert nearest_to_limit(scene, scene.fresh, 1) is None


def test_a_located_step_is_left_as_it_was(make_session):
    session = session_of(make_session)
    scaled(session, 1, "mlp.dense_h_to_4h", 2e5)
    before = {name: weight.detach().clone() for name, weight in session.training.model.named_parameters()}
    scene = scene_of(session)
    first = locate(scene, scene.fresh, 1)
    assert first == locate(scene, scene.fresh, 1)
    assert all(torch.equal(weight, before[name]) for name, weight in session.training.model.named_parameters())
    assert all(not module._forward_hooks for module in session.training.model.modules())


def test_pack_positions_are_those_of_the_row(make_session):
    """In a pack a position is where the token lies in the row, not in its document."""
    session = session_of(make_session, packing=True)
    examples = session.plan.microbatches(1)[0]
    example, position, _ = one_token(session, math.nan)
    starts = torch.tensor([0] + [each.num_tokens for each in examples]).cumsum(0).tolist()
    number = [each.id for each in examples].index(example)
    assert starts[number] <= position < starts[number + 1]
    assert pack(examples).input_ids[0, position] == session.plan.batches(1)[0].input_ids[0, position]
    assert located(session).position == position
