"""Output head and cross-entropy in chunks over the tokens that are learnt: the logits are never there as a whole."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

_CHUNK = 1024  # tokens
_SIZE = 4096


@triton.jit
def _cross_entropy_kernel(
    logits_ptr, targets_ptr, losses_ptr, weight_ptr, vocabulary, stride, GRAD: tl.constexpr, SIZE: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    logits_ptr += row * stride
    highest = -float("inf")
    total = 0.0
    for at in range(0, vocabulary, SIZE):
        columns = at + tl.arange(0, SIZE)
        x = tl.load(logits_ptr + columns, mask=columns < vocabulary, other=-float("inf")).to(tl.float32)
        higher = tl.maximum(highest, tl.max(x, 0))
        total = total * tl.exp(highest - higher) + tl.sum(tl.exp(x - higher), 0)
        highest = higher
    target = tl.load(targets_ptr + row)
    level = highest + tl.log(total)
    counts = target >= 0
    own = tl.load(logits_ptr + target, mask=counts, other=0.0).to(tl.float32)
    tl.store(losses_ptr + row, tl.where(counts, level - own, 0.0))
    if GRAD:
        weight = tl.where(counts, tl.load(weight_ptr), 0.0)
        for at in range(0, vocabulary, SIZE):
            columns = at + tl.arange(0, SIZE)
            inside = columns < vocabulary
            x = tl.load(logits_ptr + columns, mask=inside, other=-float("inf")).to(tl.float32)
            grad = (tl.exp(x - level) - tl.where(columns == target, 1.0, 0.0)) * weight
            tl.store(logits_ptr + columns, grad.to(logits_ptr.dtype.element_ty), mask=inside)


def cross_entropy_(logits: torch.Tensor, targets: torch.Tensor, weight: torch.Tensor | None) -> torch.Tensor:
    """Negative log-likelihood of each row, fp32 [rows], in nats; with ``weight`` the logits become its gradient.

    Args:
        logits: [rows, vocabulary], rows contiguous.
        targets: int64 [rows]; negative: the row does not count.
        weight: fp32 [1], what every row's loss counts; ``None`` leaves the logits as they are.
    """
    losses = torch.empty(logits.shape[0], device=logits.device, dtype=torch.float32)
    _cross_entropy_kernel[(logits.shape[0],)](
        logits, targets, losses, weight if weight is not None else losses, logits.shape[1], logits.stride(0),
        GRAD=weight is not None, SIZE=min(_SIZE, triton.next_power_of_2(logits.shape[1])), num_warps=8,
    )  # fmt: skip
    return losses


def head_loss(
    hidden: torch.Tensor, head: torch.Tensor, targets: torch.Tensor, learnt: torch.Tensor, weight: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Loss of each token that is learnt, and the gradient of ``hidden``.

    Args:
        hidden: [tokens, hidden size], half precision.
        head: [vocabulary, hidden size], of the same dtype, frozen.
        targets: int64 [tokens]; negative: not learnt.
        learnt: int64 [n], ascending: at least those tokens that are learnt.
        weight: fp32 [1], what each of them counts in the gradient; ``None``: no gradient is wanted.

    Returns:
        Losses, fp32 [n] in the order of ``learnt``, not weighted; gradient like ``hidden``, 0 where nothing is learnt.
    """
    whole = learnt.numel() == hidden.shape[0]
    # Every value is written below, or starts as the 0 of a token that is not learnt.
    grad = None if weight is None else (torch.empty_like if whole else torch.zeros_like)(hidden)
    losses = []
    for at in range(0, learnt.numel(), _CHUNK):
        chosen = learnt[at : at + _CHUNK]
        logits = (hidden[at : at + _CHUNK] if whole else hidden[chosen]) @ head.t()
        losses.append(cross_entropy_(logits, targets[chosen], weight))
        if grad is not None and whole:
            torch.mm(logits, head, out=grad[at : at + _CHUNK])
        elif grad is not None:
            grad[chosen] = logits @ head
    return torch.cat(losses), grad
