"""A whole model on the fast path against transformers' own in fp64: loss, every adapter's gradient, every memory plan."""

import functools

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from tests.kernels_reference import relative, row_of_random
from torch.nn import functional

from jinmaek.kernels.fuse import UnsupportedError, fuse, require_supported
from jinmaek.kernels.planner import Plan
from jinmaek.kernels.stream import Dtypes, Keep

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")

SMALL = {
    "vocab_size": 300,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 128,
    "bos_token_id": 0,
    "eos_token_id": 2,
}
GROUPED = SMALL | {"num_key_value_heads": 2}
CONFIGS = {
    "gpt_neox": lambda: transformers.GPTNeoXConfig(**SMALL),
    "gpt_neox, one after the other": lambda: transformers.GPTNeoXConfig(**SMALL, use_parallel_residual=False),
    "llama": lambda: transformers.LlamaConfig(**GROUPED),
    "mistral": lambda: transformers.MistralConfig(**GROUPED, sliding_window=4),
    "qwen2": lambda: transformers.Qwen2Config(**GROUPED),
    "qwen2, one layer of two with a window": lambda: transformers.Qwen2Config(
        **GROUPED, use_sliding_window=True, sliding_window=4, max_window_layers=1
    ),
    "qwen3": lambda: transformers.Qwen3Config(**GROUPED, head_dim=32),
    "gemma3, one layer of two with a window": lambda: transformers.Gemma3TextConfig(
        **GROUPED,
        head_dim=16,
        sliding_window=4,
        query_pre_attn_scalar=20,
        layer_types=["sliding_attention", "full_attention"],
    ),
    "exaone4": lambda: transformers.Exaone4Config(
        **GROUPED, sliding_window=None, layer_types=["full_attention", "full_attention"]
    ),
    "exaone4, one layer of two with a window": lambda: transformers.Exaone4Config(
        **GROUPED, sliding_window=4, layer_types=["sliding_attention", "full_attention"]
    ),
}
SOME = {"gpt_neox": ["query_key_value"], "other": ["q_proj", "v_proj"]}
LENGTHS = [5, 9, 1, 6]
FP32 = Dtypes(torch.float32, torch.float32, torch.float32)


def adapted(config, targets, **more):
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config)
    for name, weight in model.named_parameters():
        if "bias" in name or "norm" in name:
            weight.data += 0.1 * torch.randn_like(weight)
    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM", **more))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(0, 0.1)
    return model


def gradients(model):
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.requires_grad}
    model.zero_grad()
    return found


def reference(model, ids, targets):
    """Each document by itself, in fp64."""
    model.double()
    at, loss = 0, 0.0
    for length in LENGTHS:
        here = slice(at, at + length)
        logits = model(input_ids=torch.tensor(ids[here])[None], use_cache=False).logits[0]
        loss = loss + functional.cross_entropy(logits, torch.tensor(targets[here]), ignore_index=-1, reduction="sum")
        at += length
    (0.5 * loss).backward()
    found = gradients(model)
    model.float()
    return loss.detach(), found


def fused(model, **more):
    return fuse(model, FP32, max_positions=64, recompute=True, memory_limit=None, **more)


def planned(model, monkeypatch, keep):
    monkeypatch.setattr(type(model), "plan", lambda self, _: Plan((keep,) * len(self.blocks), False, 0))


@pytest.mark.parametrize(
    ("name", "all_linear"), [*((name, True) for name in CONFIGS), ("gpt_neox", False), ("llama", False)]
)
def test_loss_and_gradients_are_transformers_own(name, all_linear, monkeypatch):
    config = CONFIGS[name]()
    model = adapted(config, "all-linear" if all_linear else SOME.get(config.model_type, SOME["other"]))
    ids, targets, row = row_of_random(LENGTHS, 300, skipped=(2, 9))
    loss, expected = reference(model, ids, targets)
    fast = fused(model)
    for keep in (Keep.ALL, Keep.INPUT):
        planned(fast, monkeypatch, keep)
        assert relative(fast.loss(row, torch.tensor([1]), torch.tensor([0.5])), loss) < 1e-6
        found = gradients(model)
        assert set(found) == set(expected)
        assert max(relative(found[each], expected[each]) for each in expected) < 5e-6
    assert relative(fast.loss(row), loss) < 1e-6
    assert all(grad is None for grad in gradients(model).values()), "an evaluation leaves no gradient"


@pytest.mark.parametrize("compute", [torch.float16, torch.bfloat16])
def test_half_precision_is_near(compute):
    """The interpreter truncates to bf16, twice what rounding errs."""
    model = adapted(CONFIGS["gpt_neox"](), "all-linear")
    ids, targets, row = row_of_random(LENGTHS, 300)
    loss, expected = reference(model, ids, targets)
    dtypes = Dtypes(compute, torch.float16, torch.float32)
    fast = fuse(model, dtypes, max_positions=64, recompute=True, memory_limit=None)
    tolerance = 5e-3 if compute == torch.float16 else 5e-2
    assert relative(fast.loss(row, torch.tensor([1]), torch.tensor([0.5])), loss) < tolerance
    found = gradients(model)
    assert all(grad.dtype == torch.float32 for grad in found.values())
    assert max(relative(found[each], expected[each]) for each in expected) < 10 * tolerance


def test_every_plan_gives_the_same_bits(monkeypatch):
    model = adapted(CONFIGS["gpt_neox"](), ["query_key_value", "dense"], lora_dropout=0.3)
    _, _, row = row_of_random(LENGTHS, 300)
    fast, seen = fused(model), []
    for keep in Keep:
        planned(fast, monkeypatch, keep)
        loss = fast.loss(row, torch.tensor([7]), torch.tensor([1.0]))
        seen.append([loss, *gradients(model).values()])
    assert all(torch.equal(one, other) for later in seen[1:] for one, other in zip(seen[0], later, strict=True))


def test_gradients_with_dropout_are_those_of_the_masks_that_the_forward_pass_drew():
    """Central differences in fp32: the loss with the masks of one seed is a smooth function of the adapter."""
    model = adapted(CONFIGS["gpt_neox"](), ["query_key_value", "dense_4h_to_h"], lora_dropout=0.3)
    _, _, row = row_of_random(LENGTHS, 300)
    fast, seed = fused(model), torch.tensor([7])
    fast.loss(row, seed, torch.tensor([1.0]))
    found = gradients(model)
    assert float(fast.loss(row, seed)) != float(fast.loss(row)), "dropout changes the loss"
    for name, weight in model.named_parameters():
        if name.endswith(
            ("1.attention.query_key_value.lora_B.default.weight", "1.mlp.dense_4h_to_h.lora_A.default.weight")
        ):
            direction = torch.sign(found[name])
            change = []
            for step in (1e-3, -1e-3):
                with torch.no_grad():
                    weight.add_(direction, alpha=step)
                    change.append(float(fast.loss(row, seed)))
                    weight.sub_(direction, alpha=step)
            slope = (change[0] - change[1]) / 2e-3
            assert slope == pytest.approx(float(found[name].abs().sum()), rel=2e-2), name


def test_microbatches_add_up():
    model = adapted(CONFIGS["llama"](), "all-linear")
    _, _, row = row_of_random(LENGTHS, 300)
    fast = fused(model)
    fast.loss(row, torch.tensor([1]), torch.tensor([1.0]))
    once = gradients(model)
    for _ in range(2):
        fast.loss(row, torch.tensor([1]), torch.tensor([0.5]))
    twice = gradients(model)
    assert max(relative(twice[name], once[name]) for name in once) < 1e-6


def test_other_documents_of_a_row_change_no_bit_of_a_documents_hidden_state(monkeypatch):
    model = adapted(CONFIGS["gpt_neox"](), "all-linear")
    fast, seen = fused(model), []
    import jinmaek.kernels.model as module

    def head_loss(hidden, *_):
        seen.append(hidden.clone())
        return torch.zeros(1), None

    monkeypatch.setattr(module, "head_loss", head_loss)
    ids, targets, row = row_of_random(LENGTHS, 300)
    fast.loss(row)
    ids[5:14] = (ids[5:14] + 11) % 300
    fast.loss(type(row).of(ids, targets, LENGTHS, torch.device("cpu")))
    assert torch.equal(seen[0][:5], seen[1][:5])
    assert torch.equal(seen[0][14:], seen[1][14:])
    assert not torch.equal(seen[0][5:14], seen[1][5:14])


UNSUPPORTED = {
    "architecture": functools.partial(transformers.GPT2Config),
    "head_size": functools.partial(transformers.LlamaConfig, **(GROUPED | {"hidden_size": 96})),
    "activation": functools.partial(transformers.LlamaConfig, **GROUPED, hidden_act="relu"),
    "model_setting": functools.partial(transformers.Gemma3TextConfig, **GROUPED, attn_logit_softcapping=50.0),
    "model_dropout": functools.partial(transformers.GPTNeoXConfig, **SMALL, hidden_dropout=0.1),
    "rotary": functools.partial(
        transformers.LlamaConfig,
        **GROUPED,
        rope_parameters={"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 2.0},
    ),
}


@pytest.mark.parametrize("code", UNSUPPORTED)
def test_what_is_not_computed_is_said(code):
    with pytest.raises(UnsupportedError) as caught:
        require_supported(UNSUPPORTED[code]())
    assert caught.value.code == f"kernels.{code}"


def test_variants_of_lora_are_not_computed():
    with pytest.raises(UnsupportedError) as caught:
        fused(adapted(CONFIGS["llama"](), ["q_proj"], use_dora=True))
    assert caught.value.code == "kernels.variant"
