"""Pre-train the model from scratch on the rendered documents."""

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch.nn import functional
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

from tiny_ko.blocks import Documents, batches, blocks
from tiny_ko.tokenizer import CONTEXT, END_ID, PADDING_ID, VOCABULARY

ROTARY_SHARE: Final = 0.5
ROTARY_BASE: Final = 10000.0

_PEAK_RATE: Final = 2e-3
_LAST_RATE_SHARE: Final = 0.02
_WEIGHT_DECAY: Final = 0.1
_LARGEST_GRADIENT: Final = 1.0
_WARM_UP_STEPS: Final = 200
_WARM_UP_SHARE: Final = 0.05
_REPORT_EVERY: Final = 2.0
_VALIDATION_BLOCKS: Final = 256


@dataclass(frozen=True)
class Plan:
    """How long to train, where and in what steps."""

    tokens: int
    device: str
    seed: int
    batch: int

    @property
    def steps(self) -> int:
        """The number of updates that the token budget pays for."""
        return max(1, self.tokens // (self.batch * CONTEXT))


@dataclass(frozen=True)
class Outcome:
    """What the run measured."""

    parameters: int
    tokens: int
    seconds: float
    training_loss: float
    validation_loss: float


def new_model(seed: int) -> GPTNeoXForCausalLM:
    """Return an untrained model."""
    torch.manual_seed(seed)
    config = GPTNeoXConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=1024,
        max_position_embeddings=CONTEXT,
        hidden_act="gelu",
        attention_dropout=0.0,
        hidden_dropout=0.0,
        use_parallel_residual=True,
        tie_word_embeddings=False,
        bos_token_id=END_ID,
        eos_token_id=END_ID,
        pad_token_id=PADDING_ID,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": ROTARY_BASE,
            "partial_rotary_factor": ROTARY_SHARE,
        },
    )
    model = GPTNeoXForCausalLM(config)
    attention: Any = model.gpt_neox.layers[0].attention
    # transformers has renamed this setting once; a silent 0.25 would load
    # into other programs as a different model.
    if attention.rotary_ndims != int(attention.head_size * ROTARY_SHARE):
        raise RuntimeError(f"rotary dimensions are {attention.rotary_ndims}")
    return model


def pretrain(
    model: GPTNeoXForCausalLM,
    documents: Documents,
    plan: Plan,
    report: Callable[[str], None] = print,
) -> Outcome:
    """Train the model in place; it comes back rounded to what is saved."""
    # Cut before training, so that too little data fails at once.
    held_back = blocks(documents.validation, plan.device)[:_VALIDATION_BLOCKS]
    network: torch.nn.Module = model
    network.to(plan.device).train()
    optimizer = _optimizer(network, plan.device)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _rate_shares(plan.steps))
    progress = _Progress(plan, report)
    stream = batches(documents.training, plan.batch, plan.device, plan.seed)
    for step, rows in zip(range(1, plan.steps + 1), stream, strict=False):
        loss = _loss(model, rows, plan.device)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(network.parameters(), _LARGEST_GRADIENT)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        progress.after(step, rows.numel(), loss)
    seconds = progress.seconds()
    network.half().float()
    return Outcome(
        parameters=sum(p.numel() for p in network.parameters()),
        tokens=progress.tokens,
        seconds=seconds,
        training_loss=progress.loss,
        validation_loss=_validation_loss(model, held_back, plan),
    )


def save_model(model: GPTNeoXForCausalLM, folder: Path) -> None:
    """Write the configuration and the weights in half precision.

    Readers from before transformers 5 look for the rotary settings under
    their old names and would fall back to 0.25, so both spellings are there.
    """
    model.half().save_pretrained(folder)
    # safetensors leaves the weights readable by their owner alone.
    (folder / "model.safetensors").chmod(0o644)
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config |= {"rotary_pct": ROTARY_SHARE, "rotary_emb_base": ROTARY_BASE}
    text = json.dumps(config, ensure_ascii=False, indent=2, sort_keys=True)
    path.write_text(text + "\n", encoding="utf-8")


class _Progress:
    """Counts tokens and prints a line every couple of seconds."""

    def __init__(self, plan: Plan, report: Callable[[str], None]) -> None:
        self.tokens = 0
        self.loss = math.nan
        self._plan = plan
        self._report = report
        self._start = self._last = time.monotonic()

    def seconds(self) -> float:
        return time.monotonic() - self._start

    def after(self, step: int, tokens: int, loss: torch.Tensor) -> None:
        self.tokens += tokens
        due = time.monotonic() - self._last >= _REPORT_EVERY
        if not due and step < self._plan.steps:
            return
        # Reading the loss waits for the device, hence only when it is shown.
        self.loss = loss.item()
        self._last = time.monotonic()
        pace = self.tokens / max(self.seconds(), 1e-9)
        left = (self._plan.steps - step) * self._plan.batch * CONTEXT / pace
        self._report(f"step {step}/{self._plan.steps}  loss {self.loss:.3f}  {pace:,.0f} tok/s  {left:.0f} s left")


def _loss(model: GPTNeoXForCausalLM, rows: torch.Tensor, device: str) -> torch.Tensor:
    on_gpu = device.startswith("cuda")
    with torch.autocast("cuda" if on_gpu else "cpu", torch.bfloat16, enabled=on_gpu):
        logits = model(input_ids=rows, use_cache=False).logits[:, :-1]
    return functional.cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten())


@torch.no_grad()
def _validation_loss(model: GPTNeoXForCausalLM, rows: torch.Tensor, plan: Plan) -> float:
    model.eval()
    parts = torch.split(rows, plan.batch)
    losses = [_loss(model, part, plan.device).item() * len(part) for part in parts]
    return sum(losses) / len(rows)


def _optimizer(network: torch.nn.Module, device: str) -> torch.optim.AdamW:
    decayed: list[torch.nn.Parameter] = []
    kept: list[torch.nn.Parameter] = []
    for name, parameter in network.named_parameters():
        # Decay would wear down the embeddings of ids that pre-training never
        # shows, and the instruction format is made of such ids.
        is_matrix = parameter.dim() > 1 and "embed_in" not in name
        (decayed if is_matrix else kept).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": decayed, "weight_decay": _WEIGHT_DECAY},
            {"params": kept, "weight_decay": 0.0},
        ],
        lr=_PEAK_RATE,
        betas=(0.9, 0.95),
        fused=device.startswith("cuda"),
    )


def _rate_shares(steps: int) -> Callable[[int], float]:
    warm_up = max(1, min(_WARM_UP_STEPS, int(steps * _WARM_UP_SHARE)))

    def share(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        done = (step - warm_up) / max(1, steps - warm_up)
        falling = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
        return _LAST_RATE_SHARE + (1 - _LAST_RATE_SHARE) * falling

    return share
