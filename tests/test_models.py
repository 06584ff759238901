"""Every architecture that a built-in recipe names, and every way to store the base and shape the adapter."""

import math
import shutil

import pytest
import torch
import transformers

from jinmaek.core.errors import ModelError
from jinmaek.training.batches import IGNORED, pack, pad
from jinmaek.training.evaluate import evaluate
from jinmaek.training.step import run_step

SMALL = {
    "vocab_size": 512,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": 1,
}
GATED = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
NEOX = {"query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"}
CONFIGS = {
    "gpt_neox": (
        lambda: transformers.GPTNeoXConfig(
            **{key: value for key, value in SMALL.items() if key not in ("num_key_value_heads", "pad_token_id")}
        ),
        NEOX,
    ),
    "llama": (lambda: transformers.LlamaConfig(**SMALL), GATED),
    "qwen3": (lambda: transformers.Qwen3Config(**SMALL, head_dim=16), GATED),
    "gemma3": (lambda: transformers.Gemma3TextConfig(**SMALL, head_dim=16, sliding_window=32), GATED),
    "exaone4": (lambda: transformers.Exaone4Config(**SMALL, sliding_window=32, sliding_window_pattern=2), GATED),
}


@pytest.fixture(scope="module")
def folder_of(tokenizer_dir, tmp_path_factory):
    """Folders of small random models by architecture, made once."""
    made = {}

    def make(name):
        if name not in made:
            torch.manual_seed(0)
            folder = tmp_path_factory.mktemp(name)
            transformers.AutoModelForCausalLM.from_config(CONFIGS[name][0]()).save_pretrained(folder)
            for file in ("tokenizer.json", "tokenizer_config.json"):
                shutil.copy(tokenizer_dir / file, folder)
            made[name] = str(folder)
        return made[name]

    return make


@pytest.mark.parametrize("name", CONFIGS)
def test_an_architecture_trains_with_its_targets_found(make_session, folder_of, name):
    session = make_session(model={"name": folder_of(name), "quantization": "nf4"}, optim={"lr": 5e-3})
    assert set(session.groups) == CONFIGS[name][1]
    records = [run_step(session.training, step, session.plan.batches(step)).record() for step in range(1, 9)]
    assert all(record.optimizer_stepped for record in records)
    assert all(stats.grad_norm > 0 for record in records for stats in record.groups.values())
    assert records[-1].loss < records[0].loss - 0.05


@pytest.mark.parametrize("name", CONFIGS)
def test_documents_are_kept_apart_in_a_pack(make_session, folder_of, name):
    """Packed losses equal padded ones, and a changed neighbour changes nothing, also with sliding windows."""
    session = make_session(model={"name": folder_of(name)})
    examples = session.plan.microbatches(1)[0]
    model = session.training.model.eval()

    def token_losses(batch):
        logits = model(input_ids=batch.input_ids, position_ids=batch.position_ids, use_cache=False).logits
        losses = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), batch.targets.flatten(), ignore_index=IGNORED, reduction="none"
        )
        return losses[batch.targets.flatten() != IGNORED]

    with torch.no_grad():
        packed = pack(examples)
        difference = token_losses(pad(examples, 1)) - token_losses(packed)
        assert difference.abs().max().item() < 5e-6
        starts = (packed.position_ids[0] == 0).nonzero().flatten().tolist()
        before = model(input_ids=packed.input_ids, position_ids=packed.position_ids, use_cache=False).logits
        packed.input_ids[0, : starts[1]] = 9
        after = model(input_ids=packed.input_ids, position_ids=packed.position_ids, use_cache=False).logits
    assert torch.equal(before[0, starts[1] :], after[0, starts[1] :])
    assert not torch.equal(before[0, : starts[1]], after[0, : starts[1]])


@pytest.mark.parametrize("quantization", ["nf4", "fp4", "int8", "none"])
@pytest.mark.filterwarnings("ignore:MatMul8bit:UserWarning")
def test_every_way_to_store_the_base_trains_after_an_evaluation(make_session, quantization):
    """On a CPU with AVX512-BF16 bitsandbytes repacks what it evaluates, and training broke after it."""
    compute = {"compute_dtype": "fp32"} if quantization in ("nf4", "fp4") else {}
    session = make_session(model={"quantization": quantization, **compute})
    evaluation = evaluate(session.training, session.data.held_out, max_tokens=512, pad_id=1)
    assert math.isfinite(evaluation.loss)
    records = [run_step(session.training, step, session.plan.batches(step)).record() for step in (1, 2, 3)]
    assert all(record.optimizer_stepped for record in records)
    assert all(stats.grad_norm > 0 for stats in records[0].groups.values())


def test_the_quantised_base_is_really_in_4_bits(make_session):
    session = make_session(model={"quantization": "nf4", "double_quant": True})
    layer = session.training.model.get_base_model().gpt_neox.layers[0].mlp.dense_h_to_4h.base_layer
    assert type(layer.weight).__name__ == "Params4bit"
    assert layer.weight.numel() == 64 * 128 // 2
    assert layer.weight.quant_state.nested
    assert layer.weight.quant_state.quant_type == "nf4"


@pytest.mark.parametrize("adapter", [{"dora": True}, {"rslora": True}, {"targets": "peft"}, {"targets": ["dense"]}])
def test_adapter_shapes(make_session, adapter):
    session = make_session(adapter=adapter)
    expected = {"query_key_value"} if adapter.get("targets") == "peft" else NEOX
    expected = {"dense"} if adapter.get("targets") == ["dense"] else expected
    assert {group for group in session.groups if group} >= expected
    assert run_step(session.training, 1, session.plan.batches(1)).record().optimizer_stepped is True


def test_rslora_scales_by_the_root_of_the_rank(make_session):
    scalings = {}
    for rslora in (False, True):
        session = make_session(adapter={"rank": 16, "alpha": 32, "rslora": rslora})
        scalings[rslora] = session.training.model.get_base_model().gpt_neox.layers[0].attention.dense.scaling["default"]
    assert scalings == {False: 2.0, True: 8.0}


def test_a_target_that_matches_nothing_names_those_that_exist(make_session):
    with pytest.raises(ModelError, match="no module is called q_proj.*query_key_value"):
        make_session(adapter={"targets": ["query_key_value", "q_proj"]})


def test_only_the_adapter_trains(make_session):
    session = make_session(model={"quantization": "nf4"})
    trainable = {name for name, weight in session.training.model.named_parameters() if weight.requires_grad}
    assert trainable == set(session.training.params)
    assert all(".lora_" in name for name in trainable)


def test_the_fresh_adapter_is_a_function_of_the_seed(make_session):
    one, two, other = (make_session(train={"seed": seed}) for seed in (1, 1, 2))
    name = next(iter(one.training.params))
    assert torch.equal(one.training.params[name], two.training.params[name])
    assert not torch.equal(one.training.params[name], other.training.params[name])
