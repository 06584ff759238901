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
GATED = ("llama", "mistral", "qwen2")
ARCHITECTURES = ("gpt_neox", *GATED)


class UnsupportedError(Exception):
    """The model has something that the fused kernels do not compute. ``code``: the message's; ``facts``: for it."""

    def __init__(self, code: str, **facts: Any) -> None:
        super().__init__(code)
        self.code = code
        self.facts = facts


@dataclass(slots=True)
class _Builder:
    """Makes the parts; ``salts`` numbers the projections, so that each draws dropout masks of its own."""

    dtypes: Dtypes
    weights: Weights
    salts: Iterator[int]

    def projection(self, module: Any, *, bias: bool = True) -> Projection:
        """A linear layer with or without an adapter; without ``bias`` its bias is added elsewhere."""
        base = _base_of(module)
        own = base.bias.detach().to(self.dtypes.compute) if bias and base.bias is not None else None
        return Projection(_weight(base), own, self._adapter(module), self.weights, next(self.salts))

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
    if config.hidden_act not in _ACTIVATIONS or (config.model_type in GATED) != (config.hidden_act != "gelu"):
        raise UnsupportedError("kernels.activation", name=config.hidden_act)
    if config.rope_parameters["rope_type"] not in _FIXED_ROTARY:
        raise UnsupportedError("kernels.rotary", name=config.rope_parameters["rope_type"])
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
    build = _Builder(dtypes, weights, itertools.count(1))
    inner = base.base_model
    neox = base.config.model_type == "gpt_neox"
    make_block, final = (_neox_block, inner.final_layer_norm) if neox else (_gated_block, inner.norm)
    blocks = [make_block(layer, inner.config, build) for layer in inner.layers]
    cos, sin = _rotary(inner.rotary_emb, max_positions, head.weight.device)
    _require_frozen(base)
    return FusedModel(
        embedding=base.get_input_embeddings().weight.detach(),
        blocks=blocks,
        final_norm=_norm(final),
        head=head.weight.detach().to(dtypes.attention),
        cos=cos,
        sin=sin,
        dtypes=dtypes,
        recompute=recompute,
        memory_limit=memory_limit,
        weights=weights,
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
            activation=_ACTIVATIONS[config.hidden_act],
        ),
        norms=(_norm(layer.input_layernorm), _norm(layer.post_attention_layernorm)),
        shifts=(shifts[0], shifts[1]),
        parallel=config.use_parallel_residual,
    )


def _gated_block(layer: Any, config: Any, build: _Builder) -> Block:
    attention, mlp = layer.self_attn, layer.mlp
    # Mistral's layers all have the configuration's window; elsewhere a layer says whether it has one.
    windowed = attention if hasattr(attention, "sliding_window") else config
    return Block(
        attention=Attention(
            inputs=[build.projection(each) for each in (attention.q_proj, attention.k_proj, attention.v_proj)],
            output=build.projection(attention.o_proj, bias=False),
            num_heads=config.num_attention_heads,
            num_key_heads=config.num_key_value_heads,
            head_size=attention.head_dim,
            scale=attention.scaling,
            dtypes=build.dtypes,
            window=getattr(windowed, "sliding_window", None),
        ),
        mlp=Mlp(
            inputs=[build.projection(mlp.gate_proj), build.projection(mlp.up_proj)],
            output=build.projection(mlp.down_proj, bias=False),
            activation=_ACTIVATIONS[config.hidden_act],
        ),
        norms=(_norm(layer.input_layernorm), _norm(layer.post_attention_layernorm)),
        shifts=(_shift(attention.o_proj), _shift(mlp.down_proj)),
        parallel=False,
    )


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


def _norm(module: Any) -> Norm:
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    bias = getattr(module, "bias", None)
    centred = isinstance(module, nn.LayerNorm)
    return Norm(module.weight.detach().float(), None if bias is None else bias.detach().float(), float(eps), centred)  # type: ignore[arg-type]


def _shift(module: Any) -> torch.Tensor | None:
    base = _base_of(module)
    return None if base.bias is None else base.bias.detach().float()


def _rotary(module: Any, num_positions: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Tables as transformers makes them: fp32 [positions, half of the turned dimensions]."""
    half = module.inv_freq.to(device, torch.float32)
    if half.numel() & (half.numel() - 1):
        raise UnsupportedError("kernels.rotary", name=f"{2 * half.numel()} dimensions")
    angles = torch.arange(num_positions, device=device, dtype=torch.float32)[:, None] * half
    return angles.cos() * module.attention_scaling, angles.sin() * module.attention_scaling


def _require_frozen(base: Any) -> None:
    """Only LoRA matrices of linear layers train; the head and the embeddings do not."""
    for name, weight in base.named_parameters():
        if weight.requires_grad and ".lora_A." not in name and ".lora_B." not in name:
            raise UnsupportedError("kernels.trainable", name=name)
