"""Wrap a model in LoRA adapters, with peft or without it."""

from typing import Any, Final

import torch
from torch import nn

try:
    import peft
except ImportError:  # the GPU box has none
    peft = None

RANK: Final = 16
ALPHA: Final = 32
TARGETS: Final = ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h")


class LoraLinear(nn.Module):
    """A frozen linear layer plus a trained product of two thin matrices."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, RANK, bias=False)
        self.up = nn.Linear(RANK, base.out_features, bias=False)
        # Zero, so that the wrapped model starts out as the model it wraps.
        nn.init.zeros_(self.up.weight)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the base layer's output with the adapter's added."""
        added: torch.Tensor = self.up(self.down(inputs)) * (ALPHA / RANK)
        return self.base(inputs) + added  # type: ignore[no-any-return]


def with_adapters(model: Any) -> Any:
    """Freeze the model and return it with trainable adapters."""
    if peft is None:
        return _wrap(model)
    config = peft.LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(TARGETS), task_type="CAUSAL_LM")
    return peft.get_peft_model(model, config)


def backend() -> str:
    """Name what `with_adapters` uses."""
    return "plain PyTorch" if peft is None else f"peft {peft.__version__}"


def _wrap(model: nn.Module) -> nn.Module:
    model.requires_grad_(False)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if name in TARGETS and isinstance(child, nn.Linear):
                setattr(parent, name, LoraLinear(child))
    return model
