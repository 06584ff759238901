"""What bench/founding.py trains on: a random checkpoint of polyglot-ko's shape and KoAlpaca's rows.

And, where managed memory is unwelcome, plain memory for the paged optimizer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch


def make_model(folder: str, tokenizer: str, layers: int) -> dict[str, Any]:
    """Write a checkpoint of polyglot-ko-12.8b's shape (fp16 as published, random weights)."""
    from safetensors.torch import save_file
    from transformers import GPTNeoXConfig

    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    hidden, wide = 5120, 20480
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(0)
    index: dict[str, str] = {}

    def normal(*shape: int) -> torch.Tensor:
        return (torch.randn(*shape, device=device, dtype=torch.float16, generator=generator) * 0.02).cpu()

    def put(name: str, weights: dict[str, torch.Tensor]) -> None:
        save_file(weights, path / name, metadata={"format": "pt"})
        index.update(dict.fromkeys(weights, name))

    one, zero = torch.ones(hidden, dtype=torch.float16), torch.zeros(hidden, dtype=torch.float16)
    put(
        "ends.safetensors",
        {
            "gpt_neox.embed_in.weight": normal(30080, hidden),
            "embed_out.weight": normal(30080, hidden),
            "gpt_neox.final_layer_norm.weight": one.clone(),
            "gpt_neox.final_layer_norm.bias": zero.clone(),
        },
    )
    shapes = {
        "attention.query_key_value": (3 * hidden, hidden),
        "attention.dense": (hidden, hidden),
        "mlp.dense_h_to_4h": (wide, hidden),
        "mlp.dense_4h_to_h": (hidden, wide),
    }
    for layer in range(layers):
        prefix = f"gpt_neox.layers.{layer}."
        weights = {}
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights |= {f"{prefix}{name}.weight": one.clone(), f"{prefix}{name}.bias": zero.clone()}
        for name, shape in shapes.items():
            weights[f"{prefix}{name}.weight"] = normal(*shape)
            weights[f"{prefix}{name}.bias"] = torch.zeros(shape[0], dtype=torch.float16)
        put(f"layer-{layer}.safetensors", weights)
    (path / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    config = GPTNeoXConfig(
        vocab_size=30080, hidden_size=hidden, intermediate_size=wide, num_hidden_layers=layers,
        num_attention_heads=40, max_position_embeddings=2048, rotary_pct=0.5, use_parallel_residual=True,
        layer_norm_eps=1e-5, hidden_act="gelu", bos_token_id=0, eos_token_id=0, tie_word_embeddings=False,
        architectures=["GPTNeoXForCausalLM"], dtype="float16",
    )  # fmt: skip
    config.save_pretrained(path)
    shutil.copy(tokenizer, path / "tokenizer.json")
    tokens = {"eos_token": "<|endoftext|>", "pad_token": "<|pad|>", "unk_token": "<|unk|>"}
    (path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", **tokens}))
    return {"stage": "make-model", "layers": layers}


def make_data(rows: str, out: str) -> dict[str, Any]:
    """Rows of the text-only KoAlpaca file back into its own columns, instruction and output."""
    pairs = []
    for line in Path(rows).read_text("utf-8").splitlines():
        asked, _, said = json.loads(line)["text"].partition("\n\n### 답변: ")
        pairs.append({"instruction": asked.removeprefix("### 질문: "), "output": said.removesuffix("<|endoftext|>")})
    Path(out).write_text("".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs), "utf-8")
    return {"stage": "make-data", "rows": len(pairs)}


def plain_memory() -> None:
    """Keep the paged optimizer's state in ordinary GPU memory: the same class and arithmetic, nothing to page."""
    from bitsandbytes.optim.optimizer import Optimizer8bit

    def buffer(_: Any, weight: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.zeros_like(weight, dtype=dtype)

    Optimizer8bit.get_state_buffer = buffer
