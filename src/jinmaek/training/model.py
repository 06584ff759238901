"""The frozen base, its tokenizer, and the LoRA adapter on top."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from jinmaek.config.recipe import AdapterSection, Dtype, ModelSection
from jinmaek.core.errors import ModelError
from jinmaek.training.kept_base import KeptBase, kept_base
from jinmaek.training.sources import builtin_path

DTYPES: Mapping[Dtype, torch.dtype] = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


def choose_device() -> torch.device:
    """The first GPU, or the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """Mixed precision in ``dtype``; none at all for ``None``."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def load_tokenizer(section: ModelSection) -> Any:
    """The model's own tokenizer.

    Raises:
        ModelError: it cannot be loaded, or is a slow one (answers are found by character offsets).
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(_location(section), **_hub_options(section))
    except (OSError, ValueError) as error:
        raise ModelError("model.tokenizer_failed", name=section.name, error=_first_line(error)) from error
    if not tokenizer.is_fast:
        raise ModelError("model.slow_tokenizer", name=section.name)
    return tokenizer


def pad_id(tokenizer: Any) -> int:
    """The padding token, or end-of-text where there is none."""
    return int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)


def load_config(section: ModelSection) -> Any:
    """The model's transformers configuration; no weight is read.

    Raises:
        ModelError: it cannot be loaded.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(_location(section), **_hub_options(section))
    except (OSError, ValueError) as error:
        raise ModelError("model.load_failed", name=section.name, error=_first_line(error)) from error


def load_base(
    section: ModelSection,
    precision: Dtype,
    device: torch.device,
    *,
    fused: bool = False,
    kept: KeptBase | None = None,
) -> Any:
    """The base model on ``device``, quantised as asked, frozen, ready to be trained through.

    ``fused``: for our own kernels, which compute norms in fp32 whatever they are stored in; ``kept``: where it lies
    in 4 bits (:func:`base_kept`), or is put for the next time.

    Raises:
        ModelError: it cannot be loaded.
    """
    _quiet_missing_cpu_kernels()
    from peft import prepare_model_for_kbit_training

    model = _from_pretrained(section, precision, device, kept)
    model.config.use_cache = False
    if section.quantization == "none" or fused:
        model.requires_grad_(False)
    else:
        _keep_trainable_on_cpu(model)
        # Norms, embeddings and head in fp32, as the founding recipe had them.
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    if section.activation_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return model


def base_kept(section: ModelSection, device: torch.device) -> KeptBase | None:
    """Where the quantised base is kept on disk; ``None`` where it is not.

    Raises:
        ModelError: the configuration cannot be loaded.
    """
    commit = getattr(load_config(section), "_commit_hash", None)
    return kept_base(section, Path(_location(section)), commit, device)


def _from_pretrained(section: ModelSection, precision: Dtype, device: torch.device, kept: KeptBase | None) -> Any:
    if kept is not None and kept.is_whole:
        try:
            model = _read(str(kept.path), section, precision, device)
        except ModelError:
            kept.remove()
        else:
            # Adapters and manifests name what the user named.
            model.name_or_path = model.config._name_or_path = _location(section)
            return model
    quantisation = {"quantization_config": _quantisation(section), **_hub_options(section)}
    model = _read(_location(section), section, precision, device, **quantisation)
    if kept is not None:
        kept.write_meanwhile(model)
    return model


def _read(location: str, section: ModelSection, precision: Dtype, device: torch.device, **options: Any) -> Any:
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    quantised = section.quantization in ("nf4", "fp4")
    compute = section.compute_dtype if quantised else precision
    try:
        return AutoModelForCausalLM.from_pretrained(
            location,
            dtype=DTYPES[compute],
            device_map={"": device},
            attn_implementation=section.attention,
            **options,
        )
    except (OSError, ValueError, ImportError, SafetensorError) as error:
        raise ModelError("model.load_failed", name=section.name, error=_first_line(error)) from error


def _quantisation(section: ModelSection) -> Any:
    from transformers import BitsAndBytesConfig

    if section.quantization == "none":
        return None
    if section.quantization == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=section.quantization,
        bnb_4bit_use_double_quant=section.double_quant,
        bnb_4bit_compute_dtype=DTYPES[section.compute_dtype],
    )


def add_adapter(model: nn.Module, section: AdapterSection, seed: int) -> Any:
    """The model with a fresh LoRA adapter, a function of ``seed``; adapter weights are fp32.

    Raises:
        ModelError: a target matches no module (the message names those that exist).
    """
    from peft import LoraConfig, get_peft_model

    targets = _targets(model, section)
    torch.manual_seed(seed)
    config = LoraConfig(
        r=section.rank,
        lora_alpha=section.alpha,
        lora_dropout=section.dropout,
        target_modules=targets,
        use_rslora=section.rslora,
        use_dora=section.dora,
        bias="none",
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise ModelError("model.adapter_failed", error=_first_line(error)) from error


def _targets(model: nn.Module, section: AdapterSection) -> Any:
    if section.targets == "all-linear":
        return "all-linear"
    if section.targets == "peft":
        return None
    linear = sorted(linear_names(model))
    for target in section.targets:
        if not any(name == target or name.endswith(f".{target}") for name, _ in model.named_modules()):
            raise ModelError("model.target_missing", target=target, known=", ".join(linear))
    return list(section.targets)


def linear_names(model: nn.Module) -> set[str]:
    """Last parts of the names of all linear layers but the output head."""
    head = getattr(model, "get_output_embeddings", lambda: None)()
    return {
        name.rpartition(".")[2]
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    }


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """What trains, by name, in the model's order."""
    return {name: weight for name, weight in model.named_parameters() if weight.requires_grad}


def group_of(name: str) -> str:
    """The module name that a LoRA weight belongs to: ``….attention.query_key_value.lora_A…`` -> query_key_value."""
    return name.partition(".lora_")[0].rpartition(".")[2]


def _location(section: ModelSection) -> str:
    return str(builtin_path(section.name))


def _hub_options(section: ModelSection) -> dict[str, Any]:
    return {"revision": section.revision or "main", "trust_remote_code": section.trust_remote_code}


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _keep_trainable_on_cpu(model: nn.Module) -> None:
    """Forbid bitsandbytes to repack 4-bit weights on the CPU.

    Where the CPU has AVX512-BF16, a Linear4bit that is evaluated repacks its weight for a forward-only kernel,
    for good: training after an evaluation then fails, or learns nothing below that layer.
    """
    from bitsandbytes.nn import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def _quiet_missing_cpu_kernels() -> None:
    """bitsandbytes warns on every CPU machine that an optional kernel package is absent; nothing depends on it."""
    if not torch.cuda.is_available():
        logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
