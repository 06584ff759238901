"""Turn documents into the blocks of token ids that pre-training reads."""

import json
from collections.abc import Iterator, Sequence
from random import Random
from typing import Final, NamedTuple
from zlib import crc32

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from tiny_ko.tokenizer import CONTEXT, END_ID

Ids = NDArray[np.int32]

# Encodings are heavy objects, so they are dropped chunk by chunk.
_CHUNK: Final = 4096
_HELD_BACK_ONE_IN: Final = 100
_THINNED_ONE_IN: Final = 3
_THINNED_SHARE: Final = 0.3
# A merge that makes more bytes than a space and one syllable makes a word.
_SYLLABLE_BYTES: Final = 4


class Documents(NamedTuple):
    """Encoded documents: those to train on and those held back."""

    training: list[Ids]
    validation: list[Ids]


def encode(tokenizer: Tokenizer, texts: Sequence[str], seed: int) -> Documents:
    """Encode the texts and hold one distinct text in a hundred back.

    The text itself decides, so that a paragraph which every pass repeats is
    never on both sides. Some chunks are encoded with fewer merges, because the
    whole vocabulary cuts a word that the templates always inflect alike into a
    single token, and the question that inflects it otherwise would then be
    made of tokens that the model has never met.
    """
    random = Random(f"merges/{seed}")
    training = [text for text in texts if not _held_back(text)]
    validation = dict.fromkeys(text for text in texts if _held_back(text))
    encoded: list[Ids] = []
    for number, start in enumerate(range(0, len(training), _CHUNK), 1):
        chunk_tokenizer = tokenizer
        if number % _THINNED_ONE_IN == 0:
            chunk_tokenizer = _thinned(tokenizer, random)
        encoded += _encode(chunk_tokenizer, training[start : start + _CHUNK])
    return Documents(encoded, _encode(tokenizer, list(validation)))


def _encode(tokenizer: Tokenizer, texts: list[str]) -> list[Ids]:
    encodings = tokenizer.encode_batch_fast(texts)
    return [np.array([*found.ids, END_ID], dtype=np.int32) for found in encodings]


def _held_back(text: str) -> bool:
    return crc32(text.encode()) % _HELD_BACK_ONE_IN == 0


def _thinned(tokenizer: Tokenizer, random: Random) -> Tokenizer:
    """Return the tokenizer without some of the merges that make whole words."""
    settings = json.loads(tokenizer.to_str())
    model = settings["model"]
    model["merges"] = [
        merge
        for merge in model["merges"]
        if len("".join(merge)) <= _SYLLABLE_BYTES or random.random() >= _THINNED_SHARE
    ]
    return Tokenizer.from_str(json.dumps(settings))


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
    generator = np.random.default_rng(seed)
    while True:
        order = generator.permutation(len(documents))
        rows = blocks([documents[index] for index in order], device)
        # A round smaller than a batch is yielded whole rather than dropped.
        last = max(1, len(rows) - size + 1)
        for start in range(0, last, size):
            yield rows[start : start + size]
