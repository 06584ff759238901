"""Is the installed optimizer the one that the recipe names? Its updates on known gradients against exact AdamW.

bitsandbytes 0.36.0 to 0.41.0 quantised Adam's second moment with a map whose largest code was 0.093 instead of 1:
the second moment of the largest gradients shrank at every step, updates grew without bound, and the loss looked
healthy for hundreds of steps (the founding run). A wrong optimizer shows in no loss curve before it is too late,
so it is looked for before the first step, by what it does and by its version.
"""

from __future__ import annotations

import importlib.metadata
import math
from dataclasses import dataclass

import torch
from packaging.version import InvalidVersion, Version
from torch import nn

from jinmaek.config.recipe import OptimSection
from jinmaek.core.errors import ModelError
from jinmaek.training.optim import make_optimizer

# 32 of bitsandbytes' blocks of 256 (4 of the 2048 of old versions): it quantises no tensor under 4096, and pages
# none under 100 000, so the paged ones are checked by their kernels and not by their memory.
_NUM_WEIGHTS = 8192
# The last of them get no gradient, as LoRA's A gets none in its first step: whole blocks of zeros.
_NUM_IDLE = 2048
_NUM_STEPS = 100
# By how much the gradients shrink: a second moment that forgets nothing, or all, shows soonest.
_FADE = math.exp(-3.0)
_SEED = 20231208

# Measured on the CPU (bitsandbytes 0.50.2, torch 2.13; lr 1e-6 to 1, betas 0.9 to 0.99 and 0.9 to 0.999, weight decay
# 0 to 0.1). Error: sound 32-bit ones under 3e-6, sound 8-bit ones 0.03 to 0.09 (0.10 with the blocks of 2048 of old
# versions), the broken map 1.2 to 9. Ratio of second moments: sound ones within 0.004 of 1, the broken map under 0.02,
# one that never decays over 1.08 (which is an error of only 0.013: hence the ratio, and the tight limit of 32 bits).
_ERROR_LIMITS = {"adamw": 0.005, "paged_adamw_32bit": 0.005, "adamw_8bit": 0.25, "paged_adamw_8bit": 0.25}
_SECOND_MOMENT_LIMITS = (0.95, 1.05)
# What rounding to fp32 may add to a weight of 1 in one step; measured: half of it.
_ROUNDING = 2.0**-23

_EIGHT_BIT = ("adamw_8bit", "paged_adamw_8bit")
_FIRST_BAD, _LAST_BAD = Version("0.36.0"), Version("0.41.0")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizerCheck:
    """How far an optimizer was from exact AdamW.

    ``error``: the distance of its weights from the exact ones over the way these had gone, at the worst step.
    ``largest_update``: the largest |Δw| / lr of any weight in any step, and the exact one. ``second_moment_ratio``:
    its second moment over the exact one, the median of the coordinates with the largest; ``None``: not readable.
    """

    optimizer: str
    num_steps: int
    error: float
    largest_update: float
    exact_largest_update: float
    second_moment_ratio: float | None
    limit: float

    @property
    def sound(self) -> bool:
        """Whether error and second moment are within their limits; NaN is not."""
        low, high = _SECOND_MOMENT_LIMITS
        ratio = self.second_moment_ratio
        return self.error <= self.limit and (ratio is None or low <= ratio <= high)


def require_sound(section: OptimSection, device: torch.device) -> OptimizerCheck:
    """Check the optimizer of ``section`` by version and by behaviour; no model and no generator is touched.

    Raises:
        ModelError: it is one of the broken versions, or it does not what AdamW does.
    """
    library = "torch" if section.name == "adamw" else "bitsandbytes"
    version = _installed(library)
    if known_bad_version(section.name, version):
        raise ModelError("optimizer.known_bad", name=section.name, version=version)
    check = check_optimizer(section, device)
    if not check.sound:
        ratio = check.second_moment_ratio
        raise ModelError(
            "optimizer.unsound",
            name=section.name,
            library=f"{library} {version}",
            error=check.error,
            limit=check.limit,
            largest=check.largest_update,
            exact=check.exact_largest_update,
            ratio="-" if ratio is None else f"{ratio:.3g}",
            instead="paged_adamw_32bit" if section.name == "adamw" else "adamw",
        )
    return check


def known_bad_version(name: str, version: str | None) -> bool:
    """Whether optimizer ``name`` is broken in bitsandbytes ``version``: the 8-bit ones of 0.36.0 to 0.41.0.

    Builds (``0.41.0+cu118``, ``0.36.0.post2``) count as the release they are made from; a version that cannot be
    read is left to :func:`check_optimizer`.
    """
    if name not in _EIGHT_BIT or version is None:
        return False
    try:
        release = Version(Version(version).base_version)
    except InvalidVersion:
        return False
    return _FIRST_BAD <= release <= _LAST_BAD


def check_optimizer(section: OptimSection, device: torch.device) -> OptimizerCheck:
    """Let a fresh optimizer of ``section`` take known gradients on weights of its own; compare with exact AdamW."""
    grads = _gradients(section.eps)
    start = torch.zeros(_NUM_WEIGHTS)  # where fp32 rounds the least, whatever lr is
    start[-_NUM_IDLE:] = 1.0  # weight decay alone moves these
    exact, exact_second = _exact_adamw(start, grads, section)
    actual, second = _installed_adamw(start, grads, section, device)
    top = exact_second.topk(_NUM_WEIGHTS // 100).indices
    return OptimizerCheck(
        optimizer=section.name,
        num_steps=_NUM_STEPS,
        error=_distance(actual, exact),
        largest_update=float(actual.diff(dim=0).abs().max()) / section.lr,
        exact_largest_update=float(exact.diff(dim=0).abs().max()) / section.lr,
        second_moment_ratio=None if second is None else float((second[top] / exact_second[top]).median()),
        limit=_ERROR_LIMITS[section.name],
    )


def _gradients(eps: float) -> torch.Tensor:
    """fp32 [steps, weights]: a fixed direction and as much noise, of sizes as unequal as in a real tensor.

    Scales are log-normal (σ = 0.7, as in the simulation of the founding case), far above ``eps``, which would hide
    the second moment. The generator is our own: a run's random numbers are the same with and without a check.
    """
    generator = torch.Generator().manual_seed(_SEED)
    scale = torch.exp(0.7 * torch.randn(_NUM_WEIGHTS, generator=generator)) * max(1e-3, 1e5 * eps)
    scale[-_NUM_IDLE:] = 0.0
    direction = torch.randn(_NUM_WEIGHTS, generator=generator).sign()
    noise = torch.randn(_NUM_STEPS, _NUM_WEIGHTS, generator=generator)
    fade = _FADE ** (torch.arange(_NUM_STEPS) / _NUM_STEPS)
    return (direction + noise) * scale * fade[:, None]


def _exact_adamw(start: torch.Tensor, grads: torch.Tensor, section: OptimSection) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights before and after each step, fp64 [steps + 1, weights], and the last second moment, fp64 [weights].

    Algorithm 2 of Loshchilov and Hutter, Decoupled Weight Decay Regularization (2019), in torch's order.
    """
    beta1, beta2, lr = section.beta1, section.beta2, section.lr
    weights = [start.double()]
    first, second = torch.zeros_like(weights[0]), torch.zeros_like(weights[0])
    for step, grad in enumerate(grads.double(), 1):
        first.mul_(beta1).add_(grad, alpha=1 - beta1)
        second.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
        denominator = (second / (1 - beta2**step)).sqrt_().add_(section.eps)
        decayed = weights[-1] * (1 - lr * section.weight_decay)
        weights.append(decayed.addcdiv_(first, denominator, value=-lr / (1 - beta1**step)))
    return torch.stack(weights), second


def _installed_adamw(
    start: torch.Tensor, grads: torch.Tensor, section: OptimSection, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The same of the installed optimizer on ``device``, brought to the host once: fp64 on the CPU."""
    weight = nn.Parameter(start.to(device, copy=True))
    optimizer = make_optimizer([weight], section)
    weights = [weight.detach().clone()]
    for grad in grads.to(device, copy=True):
        weight.grad = grad
        optimizer.step()
        weights.append(weight.detach().clone())
    return torch.stack(weights).cpu().double(), _second_moment(optimizer, weight)


@torch.no_grad()
def _second_moment(optimizer: torch.optim.Optimizer, weight: nn.Parameter) -> torch.Tensor | None:
    """fp64 [weights] on the CPU, out of torch's state or bitsandbytes' (8-bit: codes of a map, a scale a block)."""
    state = optimizer.state[weight]
    second = state.get("exp_avg_sq", state.get("state2"))
    if not isinstance(second, torch.Tensor) or second.numel() != weight.numel():
        return None
    values = second.cpu()
    if values.dtype == torch.uint8:
        if "qmap2" not in state or "absmax2" not in state:
            return None
        scales = state["absmax2"].cpu()
        values = state["qmap2"].cpu()[values.long()] * scales.repeat_interleave(len(values) // len(scales))
    return values.double()


def _distance(actual: torch.Tensor, exact: torch.Tensor) -> float:
    """How far apart the two ways are, each fp64 [steps + 1, weights]: the worse of the moved and the idle weights.

    Of whole ways and at their worst step, not of single steps: the errors of rounding to 8 bits cancel out over the
    steps, those of a wrong rule add up, and what is wrong only at first (bias correction) is not averaged away.
    """
    off, way = (actual - exact)[1:], (exact - exact[0])[1:]
    moved = off[:, :-_NUM_IDLE].norm(dim=1) / way[:, :-_NUM_IDLE].norm(dim=1)
    rounding = _NUM_STEPS * _ROUNDING
    last_off, last_way = off[-1, -_NUM_IDLE:].abs(), way[-1, -_NUM_IDLE:].abs()
    idle = (last_off - rounding).clamp(min=0.0) / (last_way + rounding)
    return float(torch.cat([moved, idle]).max())  # max hands NaN on


def _installed(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None
