"""Each fused kernel against plain torch in fp64, run by Triton's interpreter on the CPU.

The interpreter truncates to bf16 and cannot multiply bf16 matrices: bf16 is tested in tests/test_kernels_gpu.py.
"""

import bitsandbytes.functional as bnb
import pytest
import torch
from tests.kernels_reference import attention_of, documents_of, relative
from torch.nn import functional

from jinmaek.kernels.activation import activate, activate_backward
from jinmaek.kernels.attention import attend, attend_backward
from jinmaek.kernels.dropout import drop
from jinmaek.kernels.loss_head import cross_entropy_, head_loss
from jinmaek.kernels.nf4 import dequantise
from jinmaek.kernels.norm import Norm, add_and_normalise, normalise_backward
from jinmaek.kernels.rotary import rotate

# numpy, which the interpreter computes with, warns of infinities that the kernels mean.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

DEVICE = torch.device("cpu")  # tests/test_kernels_gpu.py has what needs a GPU
EXACT = 2e-6  # what fp32 inside leaves, several roundings long


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def randn(*shape):
    return torch.randn(*shape, device=DEVICE)


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("shape", [(96, 200), (32, 64), (5, 1024), (3, 2560)])
def test_dequantised_weights_are_bitsandbytes_own_to_the_bit(shape, dtype, nested):
    packed, state = bnb.quantize_4bit(randn(*shape).to(dtype), quant_type="nf4", compress_statistics=nested)
    expected = bnb.dequantize_4bit(packed, state)
    out = torch.full((shape[0], shape[1] + 64), 7.0, dtype=dtype, device=DEVICE)
    dequantise(packed, state, out)
    assert torch.equal(out[:, : shape[1]], expected)
    assert bool((out[:, shape[1] :] == 7).all()), "the room beside the weights is not touched"
    transposed = torch.empty(shape[1], shape[0], dtype=dtype, device=DEVICE)
    assert torch.equal(dequantise(packed, state, transposed, transposed=True).t(), expected)


def test_dequantised_weights_can_be_divided():
    packed, state = bnb.quantize_4bit(randn(8, 128), quant_type="nf4", compress_statistics=True)
    out = dequantise(packed, state, torch.empty(8, 128, device=DEVICE), divisor=torch.tensor([0.37], device=DEVICE))
    assert relative(out, bnb.dequantize_4bit(packed, state) / 0.37) < EXACT


def layer_norms(hidden, count):
    return [Norm(randn(hidden), randn(hidden), 1e-5, centred=True) for _ in range(count)]


def normalised(norm, x):
    if norm.centred:
        return functional.layer_norm(x, x.shape[-1:], norm.weight.double(), norm.bias.double(), norm.eps)
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + norm.eps) * norm.weight.double()


@pytest.mark.parametrize("hidden", [64, 96])
@pytest.mark.parametrize("num_deltas", [0, 1, 2])
@pytest.mark.parametrize("num_norms", [1, 2])
def test_the_residual_sum_and_its_layer_norms(hidden, num_deltas, num_norms):
    x, deltas, shift = randn(5, hidden), [randn(5, hidden) for _ in range(num_deltas)], randn(hidden)
    norms = layer_norms(hidden, num_norms)
    outs = [torch.full((5, hidden + 64), 7.0, device=DEVICE) for _ in norms]
    total = torch.empty_like(x)
    add_and_normalise(x, deltas, shift, norms, outs, total)
    expected = x.double() + sum(delta.double() for delta in deltas) + shift.double()
    assert relative(total, expected) < EXACT
    for norm, out in zip(norms, outs, strict=True):
        assert relative(out[:, :hidden], normalised(norm, expected)) < EXACT
        assert bool((out[:, hidden:] == 7).all())


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("num_norms", [1, 2])
@pytest.mark.parametrize("residual", [True, False])
def test_the_gradient_through_norms_and_past_them(centred, num_norms, residual):
    hidden = 96
    norms = [Norm(randn(hidden), randn(hidden) if centred else None, 1e-6, centred) for _ in range(num_norms)]
    x, grads = randn(6, hidden), [randn(6, hidden + 32)[:, :hidden] for _ in norms]
    past = randn(6, hidden) if residual else None
    wide = x.double().requires_grad_()
    sum((normalised(norm, wide) * grad.double()).sum() for norm, grad in zip(norms, grads, strict=True)).backward()
    expected = wide.grad + (past.double() if residual else 0)
    out, half = (past if residual else torch.empty_like(x)), torch.empty(6, hidden, dtype=torch.float16, device=DEVICE)
    normalise_backward(x, grads, norms, past, out, half)
    assert relative(out, expected) < EXACT
    assert relative(half, expected) < 1e-3


@pytest.mark.parametrize("gated", [True, False])
@pytest.mark.parametrize(
    ("kind", "function"),
    [
        ("gelu", functional.gelu),
        ("silu", functional.silu),
        ("gelu_tanh", lambda x: functional.gelu(x, approximate="tanh")),
    ],
)
def test_activations_and_their_gradients(kind, function, gated):
    width = 1100  # more than one tile
    x = 3 * randn(4, width * (2 if gated else 1))
    out = torch.empty(4, width + 20, device=DEVICE)
    activate(x, out, kind, gated=gated)
    wide = x.double().requires_grad_()
    expected = function(wide[:, :width]) * (wide[:, width:] if gated else 1)
    grad = randn(4, width)
    (expected * grad).sum().backward()
    assert relative(out[:, :width], expected) < EXACT
    assert relative(activate_backward(x.clone(), grad, kind, gated=gated), wide.grad) < EXACT


CASES = {
    "one head each": (4, 4, 32, None),
    "grouped": (4, 2, 64, None),
    "wide heads": (2, 1, 256, None),
    "window": (2, 2, 32, 7),
}


@pytest.mark.parametrize("case", CASES)
def test_attention_of_documents_and_its_gradients(case):
    heads, key_heads, size, window = CASES[case]
    documents = documents_of([5, 70, 1, 33, 64])
    tokens, scale = 173, size**-0.5
    q, k, v = randn(tokens, heads, size), randn(tokens, key_heads, size), randn(tokens, key_heads, size)
    wide = [each.double().requires_grad_() for each in (q, k, v)]
    expected = attention_of(*wide, documents, scale, window)
    grad = randn(tokens, heads, size)
    (expected * grad).sum().backward()
    seen = documents if window is None else documents.within(window)
    out = torch.empty(tokens, heads * size + 64, device=DEVICE)[:, : heads * size].view(tokens, heads, size)
    level = attend(q, k, v, seen, scale, out)
    results = tuple(torch.full_like(each, torch.nan) for each in (q, k, v))
    attend_backward(grad, q, k, v, out, level, seen, scale, results)
    assert relative(out, expected) < EXACT
    assert max(relative(one, other.grad) for one, other in zip(results, wide, strict=True)) < EXACT


def test_another_document_changes_no_bit():
    documents = documents_of([40, 30, 50])
    q, k, v = (randn(120, 2, 32) for _ in range(3))
    outs = []
    for _ in range(2):
        out = torch.empty_like(q)
        attend(q, k, v, documents, 0.2, out)
        outs.append(out)
        k, v = (torch.cat([each[:40], randn(30, 2, 32), each[70:]]) for each in (k, v))
    assert torch.equal(outs[0][:40], outs[1][:40])
    assert torch.equal(outs[0][70:], outs[1][70:])
    assert not torch.equal(outs[0][40:70], outs[1][40:70])


@pytest.mark.parametrize("pairs", [True, False])
def test_rotary_positions_turn_and_turn_back(pairs):
    angles = torch.arange(20)[:, None] * (10000.0 ** -(torch.arange(4) / 4))
    positions = torch.tensor([0, 1, 2, 7, 19], dtype=torch.int32)
    x = randn(5, 3, 3, 16)[:, :, :2] if pairs else randn(5, 6, 16)
    before = x.clone()
    rotate(x, angles.cos(), angles.sin(), positions)
    cos, sin = (
        each.double()[positions.long()].view(5, *([1] * (x.ndim - 2)), 4) for each in (angles.cos(), angles.sin())
    )
    first, second = before[..., :4].double(), before[..., 4:8].double()
    expected = torch.cat([first * cos - second * sin, second * cos + first * sin, before[..., 8:].double()], -1)
    assert relative(x, expected) < EXACT
    rotate(x, angles.cos(), angles.sin(), positions, back=True)
    assert relative(x, before) < EXACT


def test_dropout_is_a_function_of_seed_salt_and_place():
    x, seed = torch.ones(60, 1000, device=DEVICE), torch.tensor([5], device=DEVICE)

    def dropped(salt, number=seed, share=0.3):
        return drop(x, share, number, salt, torch.empty_like(x))

    assert torch.equal(dropped(1), dropped(1))
    assert not torch.equal(dropped(1), dropped(2))
    assert not torch.equal(dropped(1), dropped(1, seed + 1_000))
    assert dropped(1).unique().tolist() == [0.0, pytest.approx(1 / 0.7)]
    share = float((dropped(1) == 0).float().mean())
    assert abs(share - 0.3) < 4 * (0.3 * 0.7 / x.numel()) ** 0.5, "four standard errors of 60,000 draws"
    assert torch.equal(drop(x, 0.3, seed, 1, x.clone(), add=x), dropped(1) + 1)


@pytest.mark.parametrize("whole", [True, False])
def test_the_loss_head_over_the_tokens_that_are_learnt(whole):
    hidden, head = randn(30, 48), randn(700, 48)
    targets = torch.randint(0, 700, (30,))
    targets[[1, 7]] = -1
    learnt = torch.arange(30) if whole else torch.tensor([0, 3, 4, 9, 29])
    counted = [place for place in learnt.tolist() if targets[place] >= 0]
    wide = hidden.double().requires_grad_()
    expected = functional.cross_entropy((wide @ head.double().t())[counted], targets[counted], reduction="sum")
    (expected * 0.25).backward()
    losses, grad = head_loss(hidden, head, targets, learnt, torch.tensor([0.25]))
    assert losses.shape == learnt.shape
    assert relative(losses.sum(), expected) < EXACT
    assert relative(grad, wide.grad) < EXACT
    assert head_loss(hidden, head, targets, learnt, None)[1] is None


def test_the_loss_of_large_and_of_broken_logits():
    logits = torch.tensor([[1e4, 0.0, -1e4], [0.0, 0.0, 0.0], [torch.nan, 0.0, 0.0], [torch.inf, 0.0, 0.0]])
    losses = cross_entropy_(logits.clone(), torch.tensor([1, 0, 1, 1]), None)
    assert losses[0] == 1e4
    assert float(losses[1]) == pytest.approx(1.0986123, rel=1e-6)
    assert not torch.isfinite(losses[2:]).any(), "what is no number is no loss of 0"
