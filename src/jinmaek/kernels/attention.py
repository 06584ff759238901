"""Causal attention over documents laid behind one another: FlashAttention-2's algorithm (Dao 2023) in Triton.

Each row of a pack sees the keys of its own document only. Keys, values and queries get their gradients from
kernels of their own, without atomic additions: two runs agree to the bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

_LOG2E = 1.4426950408889634


@dataclass(frozen=True, slots=True)
class Documents:
    """Who sees whom, int32 [tokens] each, neither ever falling.

    ``starts``: the first token that each token sees; ``ends``: the token after the last that sees it;
    ``positions``: the token's number in its document.
    """

    starts: torch.Tensor
    ends: torch.Tensor
    positions: torch.Tensor

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """All three."""
        return self.starts, self.ends, self.positions

    def within(self, window: int) -> Documents:
        """The same where nobody sees further back than ``window`` tokens, itself included."""
        tokens = torch.arange(self.starts.numel(), device=self.starts.device, dtype=torch.int32)
        starts = torch.maximum(self.starts, tokens - (window - 1))
        ends = torch.minimum(self.ends, tokens + window)
        return Documents(starts, ends, self.positions)


@triton.jit
def _rows(ptr, numbers, tokens, token_stride, D: tl.constexpr):
    """[len(numbers), D] of one head, 0 beyond the last token."""
    place = numbers.to(tl.int64)[:, None] * token_stride + tl.arange(0, D)[None, :]
    return tl.load(ptr + place, mask=(numbers < tokens)[:, None], other=0.0)


@triton.jit
def _forward_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, level_ptr, starts_ptr, tokens, scale,
    q_token, q_head, k_token, k_head, v_token, v_head, out_token, out_head,
    GROUP: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    first, head = tl.program_id(0) * ROWS, tl.program_id(1)
    rows = first + tl.arange(0, ROWS)
    q = _rows(q_ptr + head * q_head, rows, tokens, q_token, D)
    start = tl.load(starts_ptr + rows, mask=rows < tokens, other=0)
    k_ptr += (head // GROUP) * k_head
    v_ptr += (head // GROUP) * v_head
    highest = tl.full([ROWS], -float("inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    result = tl.zeros([ROWS, D], tl.float32)
    for at in range(tl.load(starts_ptr + first) // KEYS * KEYS, tl.minimum(first + ROWS, tokens), KEYS):
        keys = at + tl.arange(0, KEYS)
        scores = tl.dot(q, tl.trans(_rows(k_ptr, keys, tokens, k_token, D))) * scale
        seen = (keys[None, :] >= start[:, None]) & (keys[None, :] <= rows[:, None])
        scores = tl.where(seen, scores, -float("inf"))
        higher = tl.maximum(highest, tl.max(scores, 1))
        base = tl.where(higher == -float("inf"), 0.0, higher)  # a row may see nothing of this block
        weights = tl.exp2(scores - base[:, None])
        fade = tl.exp2(highest - base)
        total = total * fade + tl.sum(weights, 1)
        v = _rows(v_ptr, keys, tokens, v_token, D)
        result = result * fade[:, None] + tl.dot(weights.to(v.dtype), v)
        highest = higher
    result = result / total[:, None]
    place = rows.to(tl.int64)[:, None] * out_token + head * out_head + tl.arange(0, D)[None, :]
    tl.store(out_ptr + place, result.to(out_ptr.dtype.element_ty), mask=(rows < tokens)[:, None])
    tl.store(level_ptr + head * tokens + rows, highest + tl.log2(total), mask=rows < tokens)


@triton.jit
def _query_grad_kernel(
    q_ptr, k_ptr, v_ptr, out_ptr, grad_ptr, level_ptr, product_ptr, dq_ptr, starts_ptr, tokens, scale, back,
    q_token, q_head, k_token, k_head, v_token, v_head, out_token, out_head, grad_token, grad_head, dq_token, dq_head,
    GROUP: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    first, head = tl.program_id(0) * ROWS, tl.program_id(1)
    rows = first + tl.arange(0, ROWS)
    here = rows < tokens
    q = _rows(q_ptr + head * q_head, rows, tokens, q_token, D)
    grad = _rows(grad_ptr + head * grad_head, rows, tokens, grad_token, D)
    start = tl.load(starts_ptr + rows, mask=here, other=0)
    level = tl.load(level_ptr + head * tokens + rows, mask=here, other=0.0)
    out = _rows(out_ptr + head * out_head, rows, tokens, out_token, D)
    product = tl.sum(out.to(tl.float32) * grad.to(tl.float32), 1)
    tl.store(product_ptr + head * tokens + rows, product, mask=here)  # the keys' kernel reads it
    k_ptr += (head // GROUP) * k_head
    v_ptr += (head // GROUP) * v_head
    dq = tl.zeros([ROWS, D], tl.float32)
    for at in range(tl.load(starts_ptr + first) // KEYS * KEYS, tl.minimum(first + ROWS, tokens), KEYS):
        keys = at + tl.arange(0, KEYS)
        k = _rows(k_ptr, keys, tokens, k_token, D)
        v = _rows(v_ptr, keys, tokens, v_token, D)
        scores = tl.dot(q, tl.trans(k)) * scale
        seen = (keys[None, :] >= start[:, None]) & (keys[None, :] <= rows[:, None])
        weights = tl.where(seen, tl.exp2(scores - level[:, None]), 0.0)
        dscores = weights * (tl.dot(grad, tl.trans(v)) - product[:, None])
        dq += tl.dot(dscores.to(k.dtype), k)
    place = rows.to(tl.int64)[:, None] * dq_token + head * dq_head + tl.arange(0, D)[None, :]
    tl.store(dq_ptr + place, (dq * back).to(dq_ptr.dtype.element_ty), mask=here[:, None])


@triton.jit
def _key_grad_kernel(
    q_ptr, k_ptr, v_ptr, grad_ptr, level_ptr, product_ptr, dk_ptr, dv_ptr, starts_ptr, ends_ptr, tokens, scale, back,
    q_token, q_head, k_token, k_head, v_token, v_head, grad_token, grad_head, dk_token, dk_head, dv_token, dv_head,
    GROUP: tl.constexpr, D: tl.constexpr, ROWS: tl.constexpr, KEYS: tl.constexpr,
):  # fmt: skip
    first, key_head = tl.program_id(0) * KEYS, tl.program_id(1)
    keys = first + tl.arange(0, KEYS)
    k = _rows(k_ptr + key_head * k_head, keys, tokens, k_token, D)
    v = _rows(v_ptr + key_head * v_head, keys, tokens, v_token, D)
    dk = tl.zeros([KEYS, D], tl.float32)
    dv = tl.zeros([KEYS, D], tl.float32)
    last = tl.load(ends_ptr + tl.minimum(first + KEYS, tokens) - 1)
    for member in range(GROUP):
        head = key_head * GROUP + member
        for at in range(first // ROWS * ROWS, last, ROWS):
            rows = at + tl.arange(0, ROWS)
            here = rows < tokens
            q = _rows(q_ptr + head * q_head, rows, tokens, q_token, D)
            grad = _rows(grad_ptr + head * grad_head, rows, tokens, grad_token, D)
            start = tl.load(starts_ptr + rows, mask=here, other=0)
            level = tl.load(level_ptr + head * tokens + rows, mask=here, other=0.0)
            product = tl.load(product_ptr + head * tokens + rows, mask=here, other=0.0)
            scores = tl.dot(k, tl.trans(q)) * scale
            seen = (keys[:, None] >= start[None, :]) & (keys[:, None] <= rows[None, :]) & here[None, :]
            weights = tl.where(seen, tl.exp2(scores - level[None, :]), 0.0)
            dv += tl.dot(weights.to(grad.dtype), grad)
            dscores = weights * (tl.dot(v, tl.trans(grad)) - product[None, :])
            dk += tl.dot(dscores.to(q.dtype), q)
    columns = tl.arange(0, D)[None, :]
    inside = (keys < tokens)[:, None]
    place = keys.to(tl.int64)[:, None]
    tl.store(
        dk_ptr + place * dk_token + key_head * dk_head + columns, (dk * back).to(dk_ptr.dtype.element_ty), mask=inside
    )
    tl.store(dv_ptr + place * dv_token + key_head * dv_head + columns, dv.to(dv_ptr.dtype.element_ty), mask=inside)


def _launch(head_size: int) -> dict[str, int]:
    """Tiles that fit into the shared memory of consumer cards as well (100 KiB)."""
    if head_size > 128:
        return {"ROWS": 32, "KEYS": 32, "num_warps": 4, "num_stages": 1}
    return {"ROWS": 64, "KEYS": 64, "num_warps": 4, "num_stages": 2}


def _strides(*tensors: torch.Tensor) -> list[int]:
    return [stride for tensor in tensors for stride in tensor.stride()[:2]]


def attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, documents: Documents, scale: float, out: torch.Tensor
) -> torch.Tensor:
    """softmax(q kᵀ · scale) v of each document into ``out``; returns what the backward pass needs of the softmax.

    Args:
        q: [tokens, heads, head size], any strides but the last; the head size is a power of two.
        k: [tokens, key heads, head size], as many heads or a whole fraction of them; ``v`` likewise.
        v: see ``k``.
        documents: who sees whom.
        scale: the scores'.
        out: [tokens, heads, head size], of any dtype.

    Returns:
        log₂ of each row's sum of weights, fp32 [heads, tokens].
    """
    tokens, heads, size = q.shape
    level = torch.empty(heads, tokens, device=q.device, dtype=torch.float32)
    launch = _launch(size)
    _forward_kernel[(triton.cdiv(tokens, launch["ROWS"]), heads)](
        q, k, v, out, level, documents.starts, tokens, scale * _LOG2E, *_strides(q, k, v, out),
        GROUP=heads // k.shape[1], D=size, **launch,
    )  # fmt: skip
    return level


def attend_backward(
    grad: torch.Tensor,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    out: torch.Tensor,
    level: torch.Tensor,
    documents: Documents,
    scale: float,
    results: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    """Gradients of q, k and v into ``results``, from ``grad`` of :func:`attend`'s ``out`` and its ``level``."""
    tokens, heads, size = q.shape
    dq, dk, dv = results
    product = torch.empty_like(level)
    launch = _launch(size)
    group = heads // k.shape[1]
    _query_grad_kernel[(triton.cdiv(tokens, launch["ROWS"]), heads)](
        q, k, v, out, grad, level, product, dq, documents.starts, tokens, scale * _LOG2E, scale,
        *_strides(q, k, v, out, grad, dq), GROUP=group, D=size, **launch,
    )  # fmt: skip
    _key_grad_kernel[(triton.cdiv(tokens, launch["KEYS"]), k.shape[1])](
        q, k, v, grad, level, product, dk, dv, documents.starts, documents.ends, tokens, scale * _LOG2E, scale,
        *_strides(q, k, v, grad, dk, dv), GROUP=group, D=size, **launch,
    )  # fmt: skip
