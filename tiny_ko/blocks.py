"""Turn documents into the blocks of token ids that pre-training reads."""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tiny_ko.tokenizer import CONTEXT, END_ID

Ids = NDArray[np.int32]

# Encodings are heavy objects, so they are dropped chunk by chunk.
_CHUNK: Final = 8192
_HELD_BACK_ONE_IN: Final = 100


class Documents(NamedTuple):
    """Encoded documents: those to train on and those held back."""

    training: list[Ids]
    validation: list[Ids]


def encode(tokenizer: Tokenizer, texts: Sequence[str]) -> Documents:
    """Encode the texts and hold one distinct text in a hundred back.

    The text itself decides, so that a paragraph which every pass repeats is
    never on both sides.
    """
    documents = Documents([], [])
    seen: set[str] = set()
    for start in range(0, len(texts), _CHUNK):
        chunk = texts[start : start + _CHUNK]
        for text, encoding in zip(chunk, tokenizer.encode_batch_fast(list(chunk)), strict=True):
            ids = np.array([*encoding.ids, END_ID], dtype=np.int32)
            if crc32(text.encode()) % _HELD_BACK_ONE_IN:
                documents.training.append(ids)
            elif text not in seen:
                seen.add(text)
                documents.validation.append(ids)
    return documents


def blocks(documents: Sequence[Ids], device: str) -> torch.Tensor:
    """Run the documents together and cut them into rows of `CONTEXT` ids."""
    if not documents:
        raise ValueError("no documents to cut into blocks")
    stream = np.concatenate(documents)
    count = len(stream) // CONTEXT
    if count == 0:
        raise ValueError(f"{len(stream)} tokens do not fill one block")
    rows = stream[: count * CONTEXT].reshape(count, CONTEXT)
    return torch.from_numpy(rows).to(device=device, dtype=torch.long)


def batches(documents: Sequence[Ids], size: int, device: str, seed: int) -> Iterator[torch.Tensor]:
    """Yield batches for ever, the documents in a new order in each round."""
    random = np.random.default_rng(seed)
    while True:
        order = random.permutation(len(documents))
        rows = blocks([documents[index] for index in order], device)
        # A round smaller than a batch is yielded whole rather than dropped.
        last = max(1, len(rows) - size + 1)
        for start in range(0, last, size):
            yield rows[start : start + size]
