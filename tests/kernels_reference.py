"""What the fused kernels are held against: the same mathematics in plain torch, in fp64."""

import numpy as np
import torch

from jinmaek.kernels.attention import Documents
from jinmaek.kernels.row import Row


def relative(one, other):
    """‖one − other‖ / ‖other‖ in fp64; NaN where either is not finite."""
    one, other = one.detach().double(), other.detach().double()
    return float((one - other).norm() / other.norm().clamp(min=1e-300))


def documents_of(lengths):
    """Documents of these lengths behind one another, on the CPU."""
    sizes = np.asarray(lengths)
    ends = np.repeat(np.cumsum(sizes), sizes)
    starts = ends - np.repeat(sizes, sizes)
    return Documents(*(torch.tensor(each, dtype=torch.int32) for each in (starts, ends, np.arange(ends.size) - starts)))


def attention_of(q, k, v, documents, scale, window=None):
    """Causal attention of each document, [tokens, heads, size]; the scores written out."""
    tokens = torch.arange(q.shape[0])
    seen = (tokens[None] <= tokens[:, None]) & (tokens[None] >= documents.starts[:, None])
    if window is not None:
        seen &= tokens[None] > tokens[:, None] - window
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    scores = torch.einsum("thd,shd->hts", q, k) * scale
    return torch.einsum("hts,shd->thd", scores.masked_fill(~seen, -torch.inf).softmax(-1), v)


def row_of_random(lengths, vocabulary, seed=0, skipped=()):
    """A row of random documents; the tokens ``skipped`` and each document's last are not learnt."""
    rng = np.random.default_rng(seed)
    tokens = sum(lengths)
    ids = rng.integers(3, vocabulary, tokens)
    targets = np.roll(ids, -1)
    targets[np.cumsum(lengths) - 1] = -1
    targets[list(skipped)] = -1
    return ids, targets, Row.of(ids, targets, lengths, torch.device("cpu"))
