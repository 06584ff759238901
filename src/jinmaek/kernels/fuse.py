"""From a model as transformers and PEFT build it to its fused counterpart, on the same weights."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from jinmaek.kernels.activation import Activation
from jinmaek.kernels.block import Block
from jinmaek.kernels.model import FusedModel
from jinmaek.kernels.nf4 import is_supported
from jinmaek.kernels.norm import Norm
from jinmaek.kernels.parts import Attention, Mlp
from jinmaek.kernels.projection import Adapter, Projection, Weights
from jinmaek.kernels.stream import Dtypes

_ACTIVATIONS: dict[str, Activation] = {"gelu": "gelu", "silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}
_FIXED_ROTARY = ("default", "linear", "llama3", "yarn")  # the angles do not depend on the length of the input
GATED = ("llama", "mistral", "qwen2", "qwen3", "gemma3_text", "exaone4")
ARCHITECTURES = ("gpt_neox", *GATED)


class UnsupportedError(Exception):
    """The model has something that the fused kernels do not compute. ``code``: the message's; ``facts``: for it."""

    def __init__(self, code: str, **facts: Any) -> None:
        super().__init__(code)
        self.code = code
        self.facts = facts


@dataclass(slots=True)
class _Builder:
    """Makes the parts.

    ``salts`` numbers the projections, so that each draws dropout masks of its own; ``tables``: which rotary table a
    kind of layer has.
    """

    dtypes: Dtypes
    weights: Weights
    salts: Iterator[int]
    model_type: str
    tables: dict[str | None, int]

    def projection(self, module: Any, *, bias: bool = True) -> Projection:
        """A linear layer with or without an adapter; without ``bias`` its bias is added elsewhere."""
        base = _base_of(module)
        own = base.bias.detach().to(self.dtypes.compute) if bias and base.bias is not None else None
        return Projection(_weight(base), own, self._adapter(module), self.weights, next(self.salts))

    def norm(self, module: Any) -> Norm:
        """A norm; Gemma's weights are stored less 1."""
        eps = float(getattr(module, "variance_epsilon", getattr(module, "eps", 0.0)))
        bias = getattr(module, "bias", None)
        weight = module.weight.detach().float() + (1.0 if self.model_type.startswith("gemma") else 0.0)
        return Norm(weight, None if bias is None else bias.detach().float(), eps, isinstance(module, nn.LayerNorm))

    def _adapter(self, module: Any) -> Adapter | None:
        names = getattr(module, "active_adapters", [])
        if not names:
            return None
        (name,) = names
        if module.lora_variant:
            raise UnsupportedError("kernels.variant")
        a, b = module.lora_A[name].weight, module.lora_B[name].weight
        share = float(getattr(module.lora_dropout[name], "p", 0.0))
        return Adapter.of(a, b, float(module.scaling[name]), share, self.dtypes.compute)


def require_supported(config: Any) -> None:
    """Tell from a transformers configuration alone whether the kernels know its architecture.

    Raises:
        UnsupportedError: they do not.
    """
    if config.model_type not in ARCHITECTURES:
        raise UnsupportedError("kernels.architecture", name=config.model_type, known=", ".join(ARCHITECTURES))
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    if size & (size - 1) or not 16 <= size <= 256:
        raise UnsupportedError("kernels.head_size", size=size)
    act = _activation_of(config)
    if act not in _ACTIVATIONS or (config.model_type in GATED) != (act != "gelu"):
        raise UnsupportedError("kernels.activation", name=act)
    for kind in _rotary_kinds(config.rope_parameters):
        if kind not in _FIXED_ROTARY:
            raise UnsupportedError("kernels.rotary", name=kind)
    for name in ("attn_logit_softcapping", "final_logit_softcapping", "use_bidirectional_attention"):
        if getattr(config, name, None):
            raise UnsupportedError("kernels.model_setting", name=name, value=getattr(config, name))
    shares = [getattr(config, name, 0.0) or 0.0 for name in ("attention_dropout", "hidden_dropout")]
    if any(shares):
        raise UnsupportedError("kernels.model_dropout", share=max(shares))


def fuse(model: Any, dtypes: Dtypes, *, max_positions: int, recompute: bool, memory_limit: int | None) -> FusedModel:
    """The fused counterpart of a PEFT model; both share the adapter's parameters and the quantised base.

    Args:
        model: a ``PeftModel`` with one LoRA adapter over a causal LM.
        dtypes: of computing; the residual stream of bf16 is bf16, that of fp16 fp32.
        max_positions: no document is longer.
        recompute: whether activations may be computed twice where memory is short.
        memory_limit: bytes of device memory to stay below.

    Raises:
        UnsupportedError: naming the first thing that the kernels do not compute.
    """
    base = model.get_base_model()
    require_supported(base.config)
    head = base.get_output_embeddings()
    weights = Weights(head.weight.device, dtypes.compute)
    inner = base.base_model
    tables = _rotary_tables(inner, max_positions, head.weight.device)
    places = {kind: number for number, kind in enumerate(tables)}
    build = _Builder(dtypes, weights, itertools.count(1), base.config.model_type, places)
    neox = base.config.model_type == "gpt_neox"
    make_block, final = (_neox_block, inner.final_layer_norm) if neox else (_gated_block, inner.norm)
    blocks = [make_block(layer, inner.config, build) for layer in inner.layers]
    _require_frozen(base)
    scale = getattr(base.get_input_embeddings(), "embed_scale", None)
    return FusedModel(
        embedding=base.get_input_embeddings().weight.detach(),
        blocks=blocks,
        final_norm=build.norm(final),
        head=head.weight.detach().to(dtypes.attention),
        rotary=tuple(tables.values()),
        dtypes=dtypes,
        recompute=recompute,
        memory_limit=memory_limit,
        weights=weights,
        embedding_scale=None if scale is None else float(scale.to(base.get_input_embeddings().weight.dtype)),
    )


def _neox_block(layer: Any, config: Any, build: _Builder) -> Block:
    size = config.hidden_size // config.num_attention_heads
    attention, mlp = layer.attention, layer.mlp
    shifts = [_shift(attention.dense), _shift(mlp.dense_4h_to_h)]
    if config.use_parallel_residual:
        given = [each for each in shifts if each is not None]
        shifts = [None, torch.stack(given).sum(0) if given else None]
    return Block(
        attention=Attention(
            inputs=[build.projection(attention.query_key_value)],
            output=build.projection(attention.dense, bias=False),
            num_heads=config.num_attention_heads,
            num_key_heads=config.num_attention_heads,
            head_size=size,
            scale=size**-0.5,
            dtypes=build.dtypes,
        ),
        mlp=Mlp(
            inputs=[build.projection(mlp.dense_h_to_4h)],
            output=build.projection(mlp.dense_4h_to_h, bias=False),
            activation=_ACTIVATIONS[_activation_of(config)],
        ),
        norms=(build.norm(layer.input_layernorm), build.norm(layer.post_attention_layernorm)),
        shifts=(shifts[0], shifts[1]),
        parallel=config.use_parallel_residual,
    )


def _gated_block(layer: Any, config: Any, build: _Builder) -> Block:
    attention, mlp = layer.self_attn, layer.mlp
    before, after = _norms_around(layer, build)
    own = after is not None  # a bias is then part of what is normalised, and no shift of the stream
    heads = hasattr(attention, "q_norm")
    return Block(
        attention=Attention(
            inputs=[build.projection(each) for each in (attention.q_proj, attention.k_proj, attention.v_proj)],
            output=build.projection(attention.o_proj, bias=own),
            num_heads=config.num_attention_heads,
            num_key_heads=config.num_key_value_heads,
            head_size=attention.head_dim,
            scale=attention.scaling,
            dtypes=build.dtypes,
            window=_window(attention, config),
            head_norms=(build.norm(attention.q_norm), build.norm(attention.k_norm)) if heads else None,
            rotary=_table(attention, build),
        ),
        mlp=Mlp(
            inputs=[build.projection(mlp.gate_proj), build.projection(mlp.up_proj)],
            output=build.projection(mlp.down_proj, bias=own),
            activation=_ACTIVATIONS[_activation_of(config)],
        ),
        norms=before,
        shifts=(None, None) if own else (_shift(attention.o_proj), _shift(mlp.down_proj)),
        parallel=False,
        after=after,
    )


def _norms_around(layer: Any, build: _Builder) -> tuple[tuple[Norm | None, Norm | None], tuple[Norm, Norm] | None]:
    """Before attention and MLP, and after them. Llama's ``post_attention_layernorm`` is the one before the MLP."""
    norm = build.norm
    if build.model_type == "gemma3_text":
        before = norm(layer.input_layernorm), norm(layer.pre_feedforward_layernorm)
        return before, (norm(layer.post_attention_layernorm), norm(layer.post_feedforward_layernorm))
    if build.model_type == "exaone4":
        return (None, None), (norm(layer.post_attention_layernorm), norm(layer.post_feedforward_layernorm))
    return (norm(layer.input_layernorm), norm(layer.post_attention_layernorm)), None


def _window(attention: Any, config: Any) -> int | None:
    """Mistral's layers all have the configuration's window; elsewhere a layer says whether it has one."""
    if not getattr(attention, "is_sliding", True):
        return None
    window: int | None = getattr(attention if hasattr(attention, "sliding_window") else config, "sliding_window", None)
    return window


def _table(attention: Any, build: _Builder) -> int | None:
    if build.model_type == "exaone4" and attention.sliding_window is not None and not attention.is_sliding:
        return None  # its layers that see everything have no positions, where others have a window
    return build.tables[getattr(attention, "layer_type", None) if len(build.tables) > 1 else next(iter(build.tables))]


def _activation_of(config: Any) -> str:
    return str(getattr(config, "hidden_activation", None) or config.hidden_act)


def _rotary_kinds(parameters: dict[str, Any]) -> list[str]:
    """The kind of rotary positions, or those of each kind of layer."""
    tables = [parameters] if "rope_type" in parameters else [each for each in parameters.values() if each]
    return [each["rope_type"] for each in tables]


def _base_of(module: Any) -> Any:
    """The frozen layer within what PEFT may have put around it."""
    return module.get_base_layer() if hasattr(module, "get_base_layer") else module


def _weight(base: Any) -> Any:
    state = getattr(base.weight, "quant_state", None)
    if state is None:
        if not isinstance(base, nn.Linear) or not base.weight.is_floating_point():
            raise UnsupportedError("kernels.quantization")
        return base.weight.detach()
    if state.quant_type != "nf4" or not is_supported(state):
        raise UnsupportedError("kernels.quantization")
    return base.weight


def _shift(module: Any) -> torch.Tensor | None:
    base = _base_of(module)
    return None if base.bias is None else base.bias.detach().float()


def _rotary_tables(
    inner: Any, num_positions: int, device: torch.device
) -> dict[str | None, tuple[torch.Tensor, torch.Tensor]]:
    """Cosines and sines as transformers makes them, fp32 [positions, half the turned dimensions], by kind of layer."""
    module = inner.rotary_emb
    kinds = [None] if hasattr(module, "inv_freq") else list(module.rope_type)
    tables: dict[str | None, tuple[torch.Tensor, torch.Tensor]] = {}
    for kind in kinds:
        prefix = "" if kind is None else f"{kind}_"
        half = getattr(module, f"{prefix}inv_freq").to(device, torch.float32)
        if half.numel() & (half.numel() - 1):
            raise UnsupportedError("kernels.rotary", name=f"{2 * half.numel()} dimensions")
        angles = torch.arange(num_positions, device=device, dtype=torch.float32)[:, None] * half
        scale = getattr(module, f"{prefix}attention_scaling")
        tables[kind] = angles.cos() * scale, angles.sin() * scale
    return tables


def _require_frozen(base: Any) -> None:
    """Only LoRA matrices of linear layers train; the head and the embeddings do not."""
    for name, weight in base.named_parameters():
        if weight.requires_grad and ".lora_A." not in name and ".lora_B." not in name:
            raise UnsupportedError("kernels.trainable", name=name)
