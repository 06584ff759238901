"""What only a GPU can show of the fused kernels: bf16, CUDA graphs, the host's memory, fp8.

TRITON_INTERPRET=0 python -m pytest tests/test_kernels_gpu.py
"""

import os

import bitsandbytes as bnb
import numpy as np
import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from tests.kernels_reference import attention_of, documents_of, relative
from torch.nn import functional

from jinmaek.kernels.attention import Documents, attend, attend_backward
from jinmaek.kernels.fuse import fuse
from jinmaek.kernels.nf4 import dequantise
from jinmaek.kernels.planner import Plan
from jinmaek.kernels.row import Row
from jinmaek.kernels.stream import Dtypes, Keep

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or os.environ.get("TRITON_INTERPRET") == "1", reason="no CUDA device"
    ),
]
BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32
LENGTHS = [200, 1, 333, 90, 400]
NO_WORSE = 1.1  # times torch's own error


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("dtype", [BF16, FP16, FP32])
@pytest.mark.parametrize("shape", [(15360, 5120), (5120, 20480), (14336, 4096), (1000, 200)])
def test_dequantised_weights_are_bitsandbytes_own_to_the_bit(shape, dtype, nested):
    weight = torch.randn(*shape, device="cuda", dtype=dtype)
    packed, state = bnb.functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=nested)
    expected = bnb.functional.dequantize_4bit(packed, state)
    out = torch.empty(shape[0], shape[1] + 64, device="cuda", dtype=dtype)
    assert torch.equal(dequantise(packed, state, out)[:, : shape[1]], expected)
    back = torch.empty(*shape[::-1], device="cuda", dtype=dtype)
    assert torch.equal(dequantise(packed, state, back, transposed=True).t(), expected)


@pytest.mark.parametrize("size", [64, 128, 256])
def test_attention_errs_no_more_than_torchs_own(size):
    torch.manual_seed(0)
    tokens, documents = sum(LENGTHS), Documents(*(each.cuda() for each in documents_of(LENGTHS).tensors()))
    q, k, v, grad = (torch.randn(tokens, 4, size, device="cuda", dtype=BF16) for _ in range(4))
    out, results = torch.empty_like(q), tuple(torch.empty_like(q) for _ in range(3))
    level = attend(q, k, v, documents, size**-0.5, out)
    attend_backward(grad, q, k, v, out, level, documents, size**-0.5, results)
    wide = [each.double().cpu().requires_grad_() for each in (q, k, v)]
    expected = attention_of(*wide, documents_of(LENGTHS), size**-0.5)
    (expected * grad.double().cpu()).sum().backward()
    own = [each.clone().requires_grad_() for each in (q, k, v)]
    at, parts = 0, []
    for length in LENGTHS:
        here = [each[at : at + length].transpose(0, 1)[None] for each in own]
        parts.append(functional.scaled_dot_product_attention(*here, is_causal=True)[0].transpose(0, 1))
        at += length
    torchs = torch.cat(parts)
    (torchs * grad).sum().backward()
    pairs = [
        (out, torchs, expected),
        *zip(results, (each.grad for each in own), (each.grad for each in wide), strict=True),
    ]
    for ours, theirs, exact in pairs:
        assert relative(ours.cpu(), exact) < NO_WORSE * relative(theirs.cpu(), exact)


SMALL = dict(vocab_size=3000, hidden_size=512, num_hidden_layers=3, bos_token_id=0, eos_token_id=0, pad_token_id=0)
GROUPED = dict(**SMALL, num_attention_heads=8, num_key_value_heads=2, intermediate_size=1024)
WINDOWS = dict(sliding_window=64, layer_types=["sliding_attention", "full_attention", "sliding_attention"])
CONFIGS = {
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**SMALL, num_attention_heads=4, intermediate_size=2048),
    "llama": lambda: transformers.LlamaConfig(**GROUPED),
    "qwen3": lambda: transformers.Qwen3Config(**GROUPED, head_dim=128),
    "gemma3": lambda: transformers.Gemma3TextConfig(**GROUPED, **WINDOWS, head_dim=256),
    "exaone4": lambda: transformers.Exaone4Config(**GROUPED, **WINDOWS),
}


def quantised(config, dtype=BF16):
    """A small model in NF4 on the GPU with a trained-looking adapter on every linear layer."""
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    head = model.get_output_embeddings()
    for name, layer in list(model.named_modules()):
        if isinstance(layer, torch.nn.Linear) and layer is not head:
            four = bnb.nn.Linear4bit(
                layer.in_features, layer.out_features, layer.bias is not None, compute_dtype=dtype, quant_type="nf4"
            )
            four.load_state_dict(layer.state_dict())
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, four)
    model = get_peft_model(
        model.cuda(), LoraConfig(r=8, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(0, 0.02)
    return model


def row(seed=0):
    rng = np.random.default_rng(seed)
    ids = rng.integers(3, 3000, sum(LENGTHS))
    targets = np.roll(ids, -1)
    targets[np.cumsum(LENGTHS) - 1] = -1
    return ids, targets, Row.of(ids, targets, LENGTHS, torch.device("cuda"), all_learnt=True)


def fused(model, dtypes=None, **more):
    return fuse(model, dtypes or Dtypes(BF16, BF16, BF16), max_positions=512, recompute=True, memory_limit=None, **more)


def gradients(model, fast, seed=1):
    for weight in model.parameters():
        weight.grad = None
    loss = fast.loss(row()[2], torch.tensor([seed], device="cuda"), torch.tensor([1e-3], device="cuda"))
    return [loss, *(weight.grad.clone() for weight in model.parameters() if weight.requires_grad)]


def plain_gradients(model, dtype):
    ids, targets, _ = row()
    for weight in model.parameters():
        weight.grad = None
    at, loss = 0, 0.0
    for length in LENGTHS:
        here = slice(at, at + length)
        with torch.autocast("cuda", dtype, enabled=dtype != FP32):
            logits = model(input_ids=torch.tensor(ids[here], device="cuda")[None], use_cache=False).logits[0]
        loss = loss + functional.cross_entropy(
            logits.float(), torch.tensor(targets[here], device="cuda"), ignore_index=-1, reduction="sum"
        )
        at += length
    (loss * 1e-3).backward()
    return [loss.detach(), *(weight.grad.clone() for weight in model.parameters() if weight.requires_grad)]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_model_in_bf16_errs_no_more_than_plain_bf16(name):
    model = quantised(CONFIGS[name]())
    ours, theirs = gradients(model, fused(model)), plain_gradients(model, BF16)
    for module in model.modules():
        if hasattr(module, "compute_dtype"):
            module.compute_dtype = FP32
    exact = plain_gradients(model.float(), FP32)
    errors = [[relative(one, right) for one, right in zip(each, exact, strict=True)] for each in (ours, theirs)]
    assert np.mean(errors[0]) < NO_WORSE * np.mean(errors[1])
    assert errors[0][0] < 1e-3, "the loss itself"


@pytest.mark.parametrize("dtypes", [(FP16, FP16, FP32), (BF16, FP16, FP32)])
def test_fp16_agrees_with_plain_fp16(dtypes):
    model = quantised(CONFIGS["gpt_neox"](), dtypes[0])
    ours, theirs = gradients(model, fused(model, Dtypes(*dtypes))), plain_gradients(model, FP16)
    assert relative(ours[0], theirs[0]) < 1e-3
    assert np.median([relative(one, other) for one, other in zip(ours, theirs, strict=True)]) < 3e-2


@pytest.mark.parametrize("name", CONFIGS)
def test_graphs_plans_and_kept_weights_give_the_same_bits(name, monkeypatch):
    model = quantised(CONFIGS[name]())
    first = gradients(model, fused(model))
    graphed = fused(model)
    graphed.fixed_tokens = sum(LENGTHS)
    kept = fused(model)
    kept.weights.keep = True
    found = {
        "again": gradients(model, fused(model)),
        "graph": gradients(model, graphed),
        "kept": gradients(model, kept),
    }
    found["graph again"] = gradients(model, graphed)
    for keep, offload in ((Keep.ATTENTION, False), (Keep.INPUT, False), (Keep.INPUT, True)):
        other = fused(model)
        plan = Plan((keep,) * 3, offload, 0)
        monkeypatch.setattr(type(other), "plan", lambda self, _, plan=plan: plan)
        found[f"{keep.name} {offload}"] = gradients(model, other)
    for how, each in found.items():
        assert all(torch.equal(one, other) for one, other in zip(first, each, strict=True)), how


def test_fp8_is_near_and_finite():
    model = quantised(CONFIGS["gpt_neox"]())
    exact, lossy = fused(model), fused(model)
    lossy.weights.fp8 = True
    one, other = gradients(model, exact), gradients(model, lossy)
    assert relative(other[0], one[0]) < 5e-3
    assert np.median([relative(a, b) for a, b in zip(other, one, strict=True)]) < 0.15
