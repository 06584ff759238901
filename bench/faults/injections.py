"""The mechanisms: each is a context within which the fault is there, and after which nothing is left of it."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

import jinmaek.training.session as session_module
from jinmaek.pulse.listener import RunListener
from jinmaek.training.checkpoint import STATE_FILE, list_checkpoints
from jinmaek.training.session import Session


@contextlib.contextmanager
def scaled(base: Any, name: str, factor: float) -> Iterator[None]:
    """Every layer called ``name`` gives ``factor`` times as much."""
    layers = [module for path, module in base.named_modules() if path.endswith(name)]
    numbers = [tensor for layer in layers for tensor in _numbers(layer)]
    before = [tensor.clone() for tensor in numbers]
    try:
        for tensor in numbers:
            tensor.mul_(factor)
        yield
    finally:
        for tensor, kept in zip(numbers, before, strict=True):
            tensor.copy_(kept)


def _numbers(layer: Any) -> list[torch.Tensor]:
    state = getattr(layer.weight, "quant_state", None)
    bias = [] if getattr(layer, "bias", None) is None else [layer.bias.data]
    if state is None:
        return [layer.weight.data, *bias]
    return [state.state2.absmax, state.offset, *bias] if state.nested else [state.absmax, *bias]


@contextlib.contextmanager
def row_replaced(weight: torch.Tensor, row: int, value: torch.Tensor) -> Iterator[None]:
    """One row of an embedding is ``value`` [hidden]."""
    before = weight.data[row].clone()
    try:
        weight.data[row] = value
        yield
    finally:
        weight.data[row] = before


@contextlib.contextmanager
def bit_flipped(tensor: torch.Tensor, index: int, bit: int = 30) -> Iterator[None]:
    """One bit of one fp32 number is the other one."""
    flip_bit(tensor, index, bit)
    try:
        yield
    finally:
        flip_bit(tensor, index, bit)


def flip_bit(tensor: torch.Tensor, index: int, bit: int = 30) -> None:
    """Turn bit ``bit`` of flat number ``index`` of an fp32 tensor over (30: the highest of the exponent)."""
    tensor.data.view(-1).view(torch.int32)[index] ^= 1 << bit


class FlipsBit(RunListener):
    """A listener that flips a bit of memory after a step: what a faulty memory cell does."""

    def __init__(self, after: int, where: str, bit: int = 30) -> None:
        self.after, self.where, self.bit = after, where, bit
        self._session: Session | None = None
        self._asked = 0

    def on_ready(self, session: Session, path: Path) -> None:
        self._session = session

    def stop_reason(self) -> None:
        """Asked before each step, when the one before is over and its snapshot taken."""
        self._asked += 1
        if self._asked == self.after + 1 and self._session is not None:
            training = self._session.training
            if self.where == "adapter":
                tensor = next(weight for name, weight in training.params.items() if "lora_B" in name)
            else:
                tensor = training.model.get_output_embeddings().weight
            index = int(tensor.detach().abs().flatten().argmax())
            flip_bit(tensor, index, self.bit)


@contextlib.contextmanager
def lr_spike(update: int, factor: float) -> Iterator[None]:
    """A schedule that multiplies the lr of one update."""
    make = session_module.make_schedule

    def spiking(*args: Any, **kwargs: Any) -> Any:
        schedule = make(*args, **kwargs)
        usual = schedule.lr_lambdas[0]
        schedule.lr_lambdas[0] = lambda number: usual(number) * (factor if number == update else 1.0)
        return schedule

    session_module.make_schedule = spiking
    try:
        yield
    finally:
        session_module.make_schedule = make


@contextlib.contextmanager
def unsound_optimizer_allowed() -> Iterator[None]:
    """jinmaek refuses to start with a broken optimizer; here it must start to be proved."""
    import jinmaek.pulse.run as run_module

    check = run_module.require_sound
    run_module.require_sound = lambda *_: None  # type: ignore[assignment,return-value]
    try:
        yield
    finally:
        run_module.require_sound = check


@contextlib.contextmanager
def garbage_attention(longer_than: int) -> Iterator[None]:
    """torch's own attention kernel, replaced in its dispatcher: right up to so many tokens, then NaN."""
    cuda = torch.cuda.is_available()
    name = "_scaled_dot_product_efficient_attention" if cuda else "_scaled_dot_product_flash_attention_for_cpu"

    def kernel(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
        scale = kwargs.get("scale") or query.shape[-1] ** -0.5
        tokens = query.shape[-2]
        wide = torch.float32
        scores = (query.to(wide) @ key.to(wide).transpose(-1, -2)) * scale
        scores = scores.masked_fill(
            torch.ones(tokens, tokens, device=query.device, dtype=torch.bool).triu(1), -torch.inf
        )
        output = (scores.softmax(-1) @ value.to(wide)).to(query.dtype)
        if tokens > longer_than:
            output = output * torch.nan
        total = scores.logsumexp(-1)
        if not cuda:
            return output, total
        padded = torch.nn.functional.pad(total, (0, -tokens % 32), value=torch.inf)
        seed = torch.zeros((), dtype=torch.int64, device=query.device)
        return output.transpose(1, 2).contiguous().transpose(1, 2), padded, seed, seed.clone()

    library = torch.library.Library("aten", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library.impl(name, kernel, "CUDA" if cuda else "CPU")
    try:
        yield
    finally:
        library._destroy()


@contextlib.contextmanager
def garbage_dequantisation(rows: int) -> Iterator[None]:
    """bitsandbytes' kernel, replaced in torch's dispatcher: NaN in the last block of matrices with so many rows."""
    from bitsandbytes.functional import get_4bit_type

    def kernel(
        packed: torch.Tensor, absmax: torch.Tensor, blocksize: int, kind: str, shape: Any, dtype: torch.dtype
    ) -> torch.Tensor:
        flat = packed.reshape(-1)
        code = get_4bit_type(kind, device=packed.device)
        values = code[torch.stack((flat >> 4, flat & 15), dim=1).reshape(-1).int()]
        matrix = (values.reshape(-1, blocksize) * absmax.float()[:, None]).reshape(shape).to(dtype)
        if shape[0] == rows:
            matrix[-1, -blocksize:] = torch.nan
        return matrix

    library = torch.library.Library("bitsandbytes", "IMPL")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        key = "CUDA" if torch.cuda.is_available() else "CPU"
        library.impl("dequantize_4bit", kernel, key, allow_override=True)
    try:
        yield
    finally:
        library._destroy()


@contextlib.contextmanager
def unrepeatable(base: Any, name: str, size: float) -> Iterator[None]:
    """The layer called ``name`` adds noise that no seed governs."""
    layers = [module for path, module in base.named_modules() if path.endswith(name)][:1]
    generator = torch.Generator().manual_seed(int.from_bytes(os.urandom(7)))

    def noisy(_: Any, __: Any, output: torch.Tensor) -> torch.Tensor:
        noise = torch.randn(output.shape, generator=generator).to(output)
        return output + size * noise

    handles = [layer.register_forward_hook(noisy) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def lose_at_resume(run: Path, part: str) -> None:
    """Take a part of the state out of the last checkpoint, as a trainer does that forgot to save it."""
    path = list_checkpoints(run / "checkpoints")[-1] / STATE_FILE
    state = torch.load(path, weights_only=True)
    if part == "optimizer":
        state["optimizer"]["state"] = {}
    elif part == "loss_scale":
        # What this recipe's fresh scaler begins with.
        state["loss_scale"] = {"scale": torch.tensor(1024.0), "growth_tracker": torch.tensor(0)}
    torch.save(state, path)
