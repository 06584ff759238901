"""4-bit weights by the definition, and what an arm changes of a training: one thing, put back to the bit."""

import math

import bitsandbytes.functional
import pytest
import torch
from bitsandbytes.nn import Linear4bit, Params4bit

from jinmaek.replay.changes import (
    attention_by,
    attention_in_fp32,
    computed_in,
    lr_times,
    reference_dequantisation,
    value_replaced,
    with_loss_scale,
    with_weights,
    without_dropout,
    without_non_finite,
)
from jinmaek.replay.dequantisation import dequantised, reference_linear
from jinmaek.training.state import bring_to
from jinmaek.training.step import measure_step, run_step
from scenes import layer, scene_of

NF4 = {"quantization": "nf4"}
KINDS = [(kind, nested) for kind in ("nf4", "fp4") for nested in (False, True)]
each_kind = pytest.mark.parametrize(("kind", "nested"), KINDS, ids=str)


def quantised(shape, kind, nested, storage=torch.uint8, blocksize=64):
    """A random matrix of which one block is zeros and one value stands out, as a Params4bit."""
    torch.manual_seed(sum(shape))
    matrix = torch.randn(shape)
    matrix.view(-1)[:blocksize] = 0.0
    matrix.view(-1)[-1] = 1e3
    weight = Params4bit(
        matrix, quant_type=kind, compress_statistics=nested, quant_storage=storage, blocksize=blocksize
    ).to("cpu")
    assert weight.quant_state.nested is nested
    return matrix, weight


def theirs(weight):
    """bitsandbytes' own dequantisation, in fp32."""
    weight.quant_state.dtype = torch.float32
    return bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)


# One block, rows that end within a block, more than 256 blocks (a second nested scale), a short last block,
# an odd number of values.
SHAPES = [(1, 64), (24, 40), (130, 256), (10, 50), (7, 9), (300, 65)]


@each_kind
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_4_bit_matrix_is_bitsandbytes_own_to_the_bit(shape, kind, nested):
    matrix, weight = quantised(shape, kind, nested)
    found = dequantised(weight)
    assert found.dtype == torch.float32
    assert found.shape == matrix.shape
    assert torch.equal(found, theirs(weight))
    assert found.view(-1)[-1].item() == pytest.approx(1e3, rel=0.01)


@pytest.mark.parametrize(("blocksize", "shape"), [(64, (48, 96)), (128, (48, 64)), (256, (48, 128))])
def test_rows_that_are_not_whole_blocks_are_right_too(blocksize, shape):
    """bitsandbytes 0.50.2 is not: its AVX512 kernel begins a block with each row whose width is a multiple of 32."""
    matrix, weight = quantised(shape, "nf4", False, blocksize=blocksize)
    code = weight.quant_state.code
    codes = torch.stack((weight.data >> 4, weight.data & 15), dim=1).flatten().tolist()
    scales = matrix.flatten().view(-1, blocksize).abs().amax(dim=1).tolist()
    exact = [code[each].item() * scales[place // blocksize] for place, each in enumerate(codes)]
    assert torch.allclose(dequantised(weight).flatten(), torch.tensor(exact), rtol=1e-6, atol=0)


@pytest.mark.parametrize("storage", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("blocksize", [64, 256])
def test_the_dtype_that_the_codes_are_stored_in_and_the_block_do_not_matter(storage, blocksize):
    _, weight = quantised((48, 256), "nf4", True, storage, blocksize)
    assert weight.dtype == storage
    assert torch.equal(dequantised(weight), theirs(weight))


def four_bit_layer(kind="nf4", nested=True, compute=torch.float32, bias=True):
    torch.manual_seed(1)
    made = Linear4bit(128, 40, bias=bias, compute_dtype=compute, compress_statistics=nested, quant_type=kind).to("cpu")
    made.support_avx512bf16_for_cpu = False  # as jinmaek.training.model does
    return made


def product(forward, x):
    """What ``forward`` makes of ``x``, and the gradient for it under a random one."""
    x = x.clone().requires_grad_()
    y = forward(x)
    torch.manual_seed(2)
    y.backward(torch.randn(y.shape).to(y.dtype))
    return y.detach(), x.grad


def exactly(layer_, x):
    """The same in fp64."""
    matrix = dequantised(layer_.weight).double()
    torch.manual_seed(2)
    grad = torch.randn(*x.shape[:-1], matrix.shape[0]).to(x.dtype).double()
    bias = 0.0 if layer_.bias is None else layer_.bias.detach().double()
    return x.double() @ matrix.t() + bias, grad @ matrix


def relative(found, exact):
    return ((found.double() - exact).norm() / exact.norm()).item()


@each_kind
@pytest.mark.parametrize("bias", [True, False])
def test_the_reference_product_in_fp32_is_exact_up_to_rounding(kind, nested, bias):
    layer_ = four_bit_layer(kind, nested, bias=bias)
    x = torch.randn(2, 5, 128)
    reference, own, exact = product(reference_linear(layer_), x), product(layer_, x), exactly(layer_, x)
    for ours, library, best in zip(reference, own, exact, strict=True):
        assert ours.dtype == torch.float32
        assert relative(ours, best) < 1e-6
        assert abs((ours.double() - best).mean().item()) < 1e-6
        assert relative(library, best) < 1e-6


@pytest.mark.parametrize(("compute", "limit"), [(torch.bfloat16, 2**-7), (torch.float16, 2**-10)])
@pytest.mark.parametrize("given", [torch.float32, torch.float16])
def test_the_reference_product_is_computed_in_the_layers_dtype_and_given_in_the_inputs(compute, limit, given):
    layer_ = four_bit_layer(compute=compute)
    x = torch.randn(7, 128).to(given)
    reference, own, exact = product(reference_linear(layer_), x), product(layer_, x), exactly(layer_, x)
    for ours, library, best in zip(reference, own, exact, strict=True):
        assert ours.dtype == library.dtype == given
        assert relative(ours, best) < limit
        assert relative(library, best) < limit
        assert relative(ours, best) > limit / 100, "it was computed in a wider dtype than the layer's"


def test_the_reference_product_is_not_autocast():
    layer_ = four_bit_layer(compute=torch.float32)
    x = torch.randn(3, 128)
    with torch.autocast("cpu", torch.bfloat16):
        inside = reference_linear(layer_)(x)
    assert torch.equal(inside, reference_linear(layer_)(x))


FP16 = {"precision": "fp16"}


def managers(session):
    """Every change that is put back, by name."""
    training = session.training
    head = training.model.get_output_embeddings().weight
    return {
        "computed in fp32": lambda: computed_in(training, torch.float32),
        "computed in bf16": lambda: computed_in(training, torch.bfloat16),
        "computed in fp16": lambda: computed_in(training, torch.float16),
        "without dropout": lambda: without_dropout(training),
        "attention by eager": lambda: attention_by(training, "eager"),
        "attention in fp32": lambda: attention_in_fp32(training),
        "reference dequantisation": lambda: reference_dequantisation(training),
        "a value replaced": lambda: value_replaced(head, 5, 3.0),
        "a value made NaN": lambda: value_replaced(head, 5, math.nan),
        "without what is not finite": lambda: without_non_finite(head),
        "lr times": lambda: lr_times(training, lambda update: 0.25),
    }


# What is no change here: the recipe's own dtype, and a head that is finite.
SAME = {"fp16": {"computed in fp16"}, "nf4": {"computed in bf16"}, "fp32": {"computed in fp32"}}
# Other kernels, whose results can be the same to the bit.
MAY_BE_SAME = {"attention in fp32", "reference dequantisation"}
# The digest is that of the gradient, before an update; a finite weight has nothing to take out.
SAME_DIGEST = {"without what is not finite", "lr times"}
RECIPES = {
    "fp32": {"adapter": {"dropout": 0.2}},
    "fp16": {"train": FP16, "adapter": {"dropout": 0.2}},
    "nf4": {"model": NF4, "train": {"precision": "bf16"}, "adapter": {"dropout": 0.2}},
}


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_change_changes_the_step_and_is_put_back_to_the_bit(make_session, recipe):
    session = make_session(**RECIPES[recipe])
    training, batches = session.training, session.plan.batches(2)
    run_step(training, 1, session.plan.batches(1))
    state = scene_of(session).fresh
    frozen = {name: weight.detach().clone() for name, weight in training.model.named_parameters()}

    def digest():
        bring_to(training, state)
        return measure_step(training, 2, batches).record().digest

    def check_same():
        assert digest() == before, name
        assert training.dtype is dtype, name
        assert training.loss_scale is scale, name
        for each, weight in training.model.named_parameters():
            assert weight.dtype == frozen[each].dtype, (name, each)
            assert torch.equal(weight, frozen[each]), (name, each)

    name, dtype, scale = "nothing", training.dtype, training.loss_scale
    before = digest()
    for name, change in managers(session).items():
        with change():
            inside = digest()
        assert (inside == before) is (name in SAME[recipe] | SAME_DIGEST) or name in MAY_BE_SAME, name
        check_same()
        with pytest.raises(ZeroDivisionError), change():
            raise ZeroDivisionError
        check_same()


def forward_dtypes(session, run):
    """dtypes of the outputs of all linear layers of the base and of the head."""
    seen, handles = set(), []
    for module in session.training.model.modules():
        if isinstance(module, torch.nn.Linear):
            handles.append(module.register_forward_hook(lambda module, args, output: seen.add(output.dtype)))
    run()
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_step_computed_in_a_dtype_is_computed_in_it(make_session, precision, dtype):
    session = make_session(train={"precision": precision})
    with computed_in(session.training, dtype):
        run = lambda: measure_step(session.training, 1, session.plan.batches(1))  # noqa: E731
        assert forward_dtypes(session, run) == {dtype}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_4_bit_layers_multiply_in_the_dtype_too(make_session, dtype, monkeypatch):
    session = make_session(model=NF4, train={"precision": "fp16"})
    seen, own = set(), bitsandbytes.matmul_4bit

    def watched(x, *args, **settings):
        seen.add(x.dtype)
        return own(x, *args, **settings)

    monkeypatch.setattr(bitsandbytes, "matmul_4bit", watched)
    scene = scene_of(session)
    scene.measure(scene.fresh, 1)
    assert seen == {torch.bfloat16}, "the recipe's compute_dtype"
    seen.clear()
    with computed_in(session.training, dtype):
        record = scene.measure(scene.fresh, 1)
    assert seen == {dtype}
    assert (record.loss_scale is None) is (dtype != torch.float16)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_reference_dequantisation_uses_none_of_the_kernels(make_session, checkpointing, monkeypatch):
    session = make_session(model=NF4 | {"activation_checkpointing": checkpointing}, train={"precision": "bf16"})
    scene = scene_of(session)
    expected = scene.measure(scene.fresh, 1)
    for name in ("gemm_4bit", "dequantize_4bit", "gemv_4bit"):
        monkeypatch.setattr(torch.ops.bitsandbytes, name, None)
    with reference_dequantisation(session.training):
        found = scene.measure(scene.fresh, 1)
    assert found.loss == pytest.approx(expected.loss, abs=1e-2)
    assert found.grad_norm == pytest.approx(expected.grad_norm, rel=2e-2)
    with pytest.raises((TypeError, AttributeError)):
        scene.measure(scene.fresh, 1)


def test_fp32_heals_what_overflows_in_fp16(make_session):
    session = make_session(train={"precision": "fp16"})
    session.training.model.get_output_embeddings().weight.data[:, 0] = 6e4
    layer(session, 1).mlp.dense_4h_to_h.base_layer.weight.data[0] = 6e4
    scene = scene_of(session)
    assert not math.isfinite(scene.measure(scene.fresh, 1).loss)
    with computed_in(session.training, torch.float32):
        assert math.isfinite(scene.measure(scene.fresh, 1).loss)
    assert not math.isfinite(scene.measure(scene.fresh, 1).loss)


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_another_attention_is_the_same_function_up_to_rounding(make_session, packing, attention):
    pack = {"data": {"packing": True, "max_length": 96}} if packing else {}
    train = {"batch_size": None, "batch_tokens": 128} if packing else {}
    session = make_session(model={"attention": attention}, train=train, **pack)
    scene = scene_of(session)
    expected = scene.measure(scene.fresh, 1)
    other = "eager" if attention == "sdpa" else "sdpa"
    for change in (attention_in_fp32(session.training), attention_by(session.training, other)):
        with change:
            found = scene.measure(scene.fresh, 1)
        assert found.loss == pytest.approx(expected.loss, abs=2e-6)
        assert found.grad_norm == pytest.approx(expected.grad_norm, rel=1e-5)


def test_attention_in_fp32_under_fp16_is_nearer_to_fp32(make_session):
    """Queries and keys, whose product fp16 cannot hold, are multiplied in fp32; the layers stay in fp16."""
    session = make_session(model={"attention": "eager"}, train=FP16)
    layer(session, 0).attention.query_key_value.base_layer.weight.data.mul_(1e3)
    scene = scene_of(session)
    assert not math.isfinite(scene.measure(scene.fresh, 1).loss)
    with attention_in_fp32(session.training):
        run = lambda: forward.append(scene.measure(scene.fresh, 1))  # noqa: E731
        forward = []
        assert forward_dtypes(session, run) == {torch.float16}
    assert math.isfinite(forward[0].loss)


def test_without_dropout_is_the_step_of_a_recipe_without(make_session):
    plain = make_session()
    session = make_session(adapter={"dropout": 0.3})
    expected = measure_step(plain.training, 1, plain.plan.batches(1)).record().digest
    with without_dropout(session.training):
        assert measure_step(session.training, 1, session.plan.batches(1)).record().digest == expected


def test_without_what_is_not_finite_has_zeros_there(make_session):
    session = make_session()
    weight = session.training.model.get_output_embeddings().weight
    weight.data[0, :3] = torch.tensor([math.nan, math.inf, -math.inf])
    before = weight.detach().clone()
    with without_non_finite(weight):
        assert weight[0, :3].tolist() == [0.0, 0.0, 0.0]
        assert torch.equal(weight[1:], before[1:])
        assert math.isfinite(measure_step(session.training, 1, session.plan.batches(1)).record().loss)
    assert torch.equal(weight.view(torch.int32), before.view(torch.int32))


def test_one_value_and_no_other_is_replaced(make_session):
    session = make_session()
    weight = session.training.model.get_output_embeddings().weight
    before = weight.detach().clone()
    with value_replaced(weight, 70, 2.5):
        assert weight[1, 6].item() == 2.5
        assert (weight != before).sum().item() == 1
    assert torch.equal(weight, before)


@pytest.mark.parametrize("name", ["adamw", "adamw_8bit"])
def test_a_slower_update_leaves_schedule_and_optimizer_as_they_were(make_session, name):
    settings = {"optim": {"name": name, "schedule": "cosine", "warmup_steps": 2, "lr": 1e-3}, "adapter": {"rank": 64}}
    usual, session = make_session(**settings), make_session(**settings)
    training = session.training
    step, counted, moved = training.optimizer.step, [], []

    def half(update):
        counted.append(update)
        return 0.5

    with lr_times(training, half):
        for number in (1, 2, 3):
            before = {key: weight.detach().clone() for key, weight in training.params.items()}
            record = run_step(training, number, session.plan.batches(number)).record()
            full = run_step(usual.training, number, usual.plan.batches(number)).record()
            assert record.lr == full.lr == usual_lr(number)
            moved.append(max((weight - before[key]).abs().max().item() for key, weight in training.params.items()))
            if number == 2:  # step 1 moves nothing: lr is still 0
                assert record.update_ratio == pytest.approx(full.update_ratio / 2, rel=1e-3)
    assert counted == [0, 1, 2]
    assert moved[0] == 0.0
    assert moved[2] > 0.0
    assert training.optimizer.step == step
    assert training.schedule.state_dict() == usual.training.schedule.state_dict()
    after = run_step(training, 4, session.plan.batches(4)).record()
    assert after.lr == run_step(usual.training, 4, usual.plan.batches(4)).record().lr


def usual_lr(number):
    """Two steps of warm-up; from then on half a cosine over the ten steps that remain."""
    done = number - 1
    if done < 2:
        return pytest.approx(1e-3 * done / 2)
    return pytest.approx(1e-3 * 0.5 * (1 + math.cos(math.pi * (done - 2) / 10)))


def test_an_update_that_fails_leaves_the_lr_as_it_was(make_session, monkeypatch):
    session = make_session()
    optimizer = session.training.optimizer

    def broken(*_):
        raise torch.OutOfMemoryError("no room")

    monkeypatch.setattr(optimizer, "step", broken)
    with pytest.raises(torch.OutOfMemoryError), lr_times(session.training, lambda update: 0.1):
        optimizer.step()
    assert [group["lr"] for group in optimizer.param_groups] == [1e-3]
    assert optimizer.step is broken


def test_a_changed_state_leaves_the_given_one_as_it_was(make_session):
    scene = scene_of(make_session(train=FP16))
    scale = scene.fresh["loss_scale"]["scale"].clone()
    weights = {name: weight + 1 for name, weight in scene.fresh["weights"].items()}
    kept = scene.fresh["weights"]
    assert float(with_loss_scale(scene.fresh, 8.0)["loss_scale"]["scale"]) == 8.0
    assert with_weights(scene.fresh, weights)["weights"] is weights
    assert torch.equal(scene.fresh["loss_scale"]["scale"], scale)
    assert scene.fresh["weights"] is kept
    assert scene.measure(with_loss_scale(scene.fresh, 8.0), 1).loss_scale == 8.0
    assert scene.measure(scene.fresh, 1).loss_scale == 65536.0
