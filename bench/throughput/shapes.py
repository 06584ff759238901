"""The shapes of the compared models: their configuration and the names and sizes of their weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

# Both families have the rows' tokenizer, polyglot-ko's. Llama's own vocabulary would be 128,256: of its head's work and
# memory the measured shape has a quarter, for every peer alike.
VOCABULARY = 30080
# Longer than any pack: Unsloth scales the rotary embedding when asked for more than this. Nothing else depends on it.
POSITIONS = 8448
DTYPE = "bfloat16"  # one for all: every peer quantises the matrices and widens the rest as it likes
PAD, END = 1, 2  # <|pad|> and <|endoftext|> of that tokenizer
Fill = Literal["normal", "one", "zero"]
Weights = dict[str, tuple[Fill, tuple[int, ...]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A model's sizes, as published."""

    family: Literal["neox", "llama"]
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    wide: int

    def shards(self) -> Iterator[tuple[str, Weights]]:
        """Files and the weights in them: a layer each, and one for both ends."""
        yield "ends.safetensors", _neox_ends(self) if self.family == "neox" else _llama_ends(self)
        layer_of = _neox_layer if self.family == "neox" else _llama_layer
        for layer in range(self.layers):
            yield f"layer-{layer}.safetensors", layer_of(self, layer)

    def config(self) -> Any:
        """The configuration as transformers writes it."""
        from transformers import GPTNeoXConfig, LlamaConfig

        common = dict(
            vocab_size=VOCABULARY, hidden_size=self.hidden, intermediate_size=self.wide,
            num_hidden_layers=self.layers, num_attention_heads=self.heads, max_position_embeddings=POSITIONS,
            bos_token_id=END, eos_token_id=END, pad_token_id=PAD, tie_word_embeddings=False, dtype=DTYPE,
        )  # fmt: skip
        if self.family == "llama":
            rope = {"rope_type": "default", "rope_theta": 500000.0}
            return LlamaConfig(
                **common, num_key_value_heads=self.kv_heads, rms_norm_eps=1e-5, rope_parameters=rope,
                architectures=["LlamaForCausalLM"],
            )  # fmt: skip
        return GPTNeoXConfig(
            **common, rotary_pct=0.5, use_parallel_residual=True, layer_norm_eps=1e-5, hidden_act="gelu",
            architectures=["GPTNeoXForCausalLM"],
        )  # fmt: skip


SHAPES = {
    "12.8b": Shape(family="neox", hidden=5120, layers=40, heads=40, kv_heads=40, wide=20480),
    "1.3b": Shape(family="neox", hidden=2048, layers=24, heads=16, kv_heads=16, wide=8192),
    "llama8b": Shape(family="llama", hidden=4096, layers=32, heads=32, kv_heads=8, wide=14336),
    # To see the command work without a GPU.
    "tiny": Shape(family="neox", hidden=64, layers=2, heads=4, kv_heads=4, wide=256),
    "tiny-llama": Shape(family="llama", hidden=64, layers=2, heads=4, kv_heads=2, wide=192),
}


def _neox_ends(shape: Shape) -> Weights:
    return {
        "gpt_neox.embed_in.weight": ("normal", (VOCABULARY, shape.hidden)),
        "embed_out.weight": ("normal", (VOCABULARY, shape.hidden)),
        "gpt_neox.final_layer_norm.weight": ("one", (shape.hidden,)),
        "gpt_neox.final_layer_norm.bias": ("zero", (shape.hidden,)),
    }


def _neox_layer(shape: Shape, layer: int) -> Weights:
    prefix, hidden = f"gpt_neox.layers.{layer}.", shape.hidden
    linears = {
        "attention.query_key_value": (3 * hidden, hidden),
        "attention.dense": (hidden, hidden),
        "mlp.dense_h_to_4h": (shape.wide, hidden),
        "mlp.dense_4h_to_h": (hidden, shape.wide),
    }
    weights: Weights = {}
    for name in ("input_layernorm", "post_attention_layernorm"):
        weights |= {f"{prefix}{name}.weight": ("one", (hidden,)), f"{prefix}{name}.bias": ("zero", (hidden,))}
    for name, size in linears.items():
        weights |= {f"{prefix}{name}.weight": ("normal", size), f"{prefix}{name}.bias": ("zero", size[:1])}
    return weights


def _llama_ends(shape: Shape) -> Weights:
    return {
        "model.embed_tokens.weight": ("normal", (VOCABULARY, shape.hidden)),
        "lm_head.weight": ("normal", (VOCABULARY, shape.hidden)),
        "model.norm.weight": ("one", (shape.hidden,)),
    }


def _llama_layer(shape: Shape, layer: int) -> Weights:
    prefix, hidden = f"model.layers.{layer}.", shape.hidden
    narrow = hidden // shape.heads * shape.kv_heads
    linears = {
        "self_attn.q_proj": (hidden, hidden),
        "self_attn.k_proj": (narrow, hidden),
        "self_attn.v_proj": (narrow, hidden),
        "self_attn.o_proj": (hidden, hidden),
        "mlp.gate_proj": (shape.wide, hidden),
        "mlp.up_proj": (shape.wide, hidden),
        "mlp.down_proj": (hidden, shape.wide),
    }
    norms: Weights = {
        f"{prefix}{name}.weight": ("one", (hidden,)) for name in ("input_layernorm", "post_attention_layernorm")
    }
    return norms | {f"{prefix}{name}.weight": ("normal", size) for name, size in linears.items()}
