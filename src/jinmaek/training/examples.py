"""Examples: token ids, which of them are learnt, and what truncation cost."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import numpy.typing as npt

from jinmaek.config.recipe import DataSection
from jinmaek.core.errors import DataError, ModelError
from jinmaek.training.conversations import (
    Columns,
    Document,
    Segment,
    chat_document,
    find_columns,
    pair_document,
    pair_texts,
    row_messages,
)
from jinmaek.training.sources import Row, read_rows

MAX_HELD_OUT = 500
_DECOMPOSED = re.compile("[\u1100-\u1112][\u1161-\u1175]|[\uac00-\ud7a3][\u11a8-\u11c2]")  # what NFC joins


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One tokenised document.

    ``input_ids``: int64 [tokens]; ``learn``: bool [tokens], true where the token counts in the loss (the
    first token never does: nothing predicts it); ``answer``: the same of what answers, where the document tells it
    from its prompt and all of it is learnt (``None``: what is learnt is the answer, or there is no prompt).
    """

    id: str
    input_ids: npt.NDArray[np.int64]
    learn: npt.NDArray[np.bool_]
    answer: npt.NDArray[np.bool_] | None = None

    @property
    def num_tokens(self) -> int:
        """Length."""
        return len(self.input_ids)

    @property
    def num_loss_tokens(self) -> int:
        """Tokens that count in the loss."""
        return int(self.learn[1:].sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class DataReport:
    """What became of the rows.

    ``num_truncated`` examples lost ``num_truncated_tokens``; ``num_without_answer`` were dropped because
    nothing to learn was left of them; ``num_composed`` came in decomposed Hangul (NFD) and were composed.
    Of the training examples, ``num_without_end`` teach no end (no special token among the last ones learnt) and
    ``num_double_bos`` begin with the same special token twice.
    """

    num_examples: int
    num_held_out: int
    num_tokens: int
    num_loss_tokens: int
    num_truncated: int
    num_truncated_tokens: int
    num_without_answer: int
    num_composed: int
    num_without_end: int
    num_double_bos: int
    loss: str


@dataclass(frozen=True, slots=True)
class DataSet:
    """Training examples, held-out examples, and the report on them."""

    train: tuple[Example, ...]
    held_out: tuple[Example, ...]
    report: DataReport


def load_data(section: DataSection, tokenizer: Any, seed: int) -> DataSet:
    """Read, template, tokenise and split the recipe's data.

    Raises:
        DataError: see :mod:`jinmaek.training.sources`; also when nothing to learn or to train on is left.
        ModelError: the tokenizer has no end-of-text token or no chat template where one is needed.
    """
    train, counts, loss = _tokenised(section.source, section, tokenizer)
    held_out: list[Example] = []
    if section.held_out_source is not None:
        held_out, _, _ = _tokenised(section.held_out_source, section, tokenizer)
    elif section.held_out > 0:
        train, held_out = split(train, section.held_out, seed)
    report = DataReport(
        num_examples=len(train),
        num_held_out=len(held_out),
        num_tokens=sum(example.num_tokens for example in train),
        num_loss_tokens=sum(example.num_loss_tokens for example in train),
        **_special_counts(train, tokenizer),
        loss=loss,
        **counts,
    )
    return DataSet(tuple(train), tuple(held_out), report)


def _special_counts(examples: Sequence[Example], tokenizer: Any) -> dict[str, int]:
    special = np.asarray(sorted({*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}), np.int64)
    without_end = double_bos = 0
    for example in examples:
        learnt = example.input_ids[1:][example.learn[1:]]
        # Chat templates write a line break after the token that ends a turn.
        without_end += not np.isin(learnt[-3:], special).any()
        ids = example.input_ids
        double_bos += len(ids) > 1 and ids[0] == ids[1] and ids[0] in special
    return {"num_without_end": int(without_end), "num_double_bos": int(double_bos)}


def split(examples: Sequence[Example], share: float, seed: int) -> tuple[list[Example], list[Example]]:
    """Training and held-out examples: those whose content has the smallest hash are held out.

    A function of seed and content alone: rows may be added or reordered, and two copies of one text always
    fall on the same side.

    Raises:
        DataError: nothing is left to train on.
    """
    keys = [_content_key(example, seed) for example in examples]
    count = max(1, min(MAX_HELD_OUT, round(share * len(examples))))
    chosen = _chosen(Counter(keys), count)
    held_out = [example for example, key in zip(examples, keys, strict=True) if key in chosen]
    train = [example for example, key in zip(examples, keys, strict=True) if key not in chosen]
    if not train:
        raise DataError("data.too_few", count=len(examples))
    return train, held_out


def _chosen(copies: Mapping[bytes, int], count: int) -> set[bytes]:
    """The smallest keys whose copies together are at most ``count``; one key at least."""
    chosen: set[bytes] = set()
    for key in sorted(copies):
        if copies[key] <= count:
            chosen.add(key)
            count -= copies[key]
    return chosen or {min(copies, key=lambda key: (copies[key], key))}


def _content_key(example: Example, seed: int) -> bytes:
    return hashlib.blake2b(example.input_ids.tobytes(), key=str(seed).encode(), digest_size=16).digest()


def _tokenised(source: str, section: DataSection, tokenizer: Any) -> tuple[list[Example], dict[str, int], str]:
    rows = read_rows(source, section)
    columns = find_columns(rows[0], section)
    loss = _resolved_loss(section, columns)
    documents = list(_documents(rows, columns, section, tokenizer))
    composed = [_composed(document) for document in documents]
    examples, counts = tokenise(composed, tokenizer, section.max_length, learn_all=loss == "all")
    if not examples:
        raise DataError("data.nothing_to_learn", count=len(rows), max_length=section.max_length)
    counts["num_composed"] = sum(
        new is not old and _DECOMPOSED.search(old.text) is not None
        for new, old in zip(composed, documents, strict=True)
    )
    return examples, counts, loss


def _resolved_loss(section: DataSection, columns: Columns) -> str:
    """``answer`` or ``all``; settings that plain text would ignore are refused here, where it is known."""
    if columns.kind != "text":
        return section.loss or "answer"
    if section.loss == "answer":
        raise DataError("data.text_has_no_answer", column=columns.text)
    if "template" in section.model_fields_set:
        raise DataError("data.template_ignored", column=columns.text)
    return "all"


def _documents(rows: Sequence[Row], columns: Columns, section: DataSection, tokenizer: Any) -> Iterator[Document]:
    chat = columns.kind == "messages" or (columns.kind == "pairs" and section.template == "chat")
    if columns.kind == "messages" and section.template != "chat":
        raise DataError("data.messages_need_chat", column=columns.messages)
    if chat and not tokenizer.chat_template:
        raise ModelError("model.no_chat_template")
    render = partial(tokenizer.apply_chat_template, tokenize=False)
    for number, row in enumerate(rows):
        name = str(number)
        if chat:
            messages = row_messages(row, columns, number)
            if section.system and [message["role"] for message in messages[:1]] != ["system"]:
                messages.insert(0, {"role": "system", "content": section.system})
            yield chat_document(name, messages, render, number)
        elif columns.kind == "text":
            text = row.get(columns.text or "")
            if not isinstance(text, str):
                raise DataError("data.not_text", number=number, column=columns.text, value=repr(text)[:80])
            yield Document(name, (Segment(text, True),))
        else:
            yield pair_document(name, section.template, *pair_texts(row, columns, number))


def _composed(document: Document) -> Document:
    """The document in composed Hangul; a decomposed syllable would cost about twelve times the tokens."""
    try:
        document.text.encode()
    except UnicodeEncodeError as error:  # JSON can name half of a surrogate pair
        raise DataError("data.half_character", number=document.id, error=error) from error
    if unicodedata.is_normalized("NFC", document.text):
        return document
    segments = (Segment(unicodedata.normalize("NFC", part.text), part.learn) for part in document.segments)
    return Document(document.id, tuple(segments), document.complete)


def tokenise(
    documents: Sequence[Document], tokenizer: Any, max_length: int, *, learn_all: bool
) -> tuple[list[Example], dict[str, int]]:
    """Token ids and learn flags of ``documents``, end-of-text appended, cut to ``max_length``.

    A token is learnt when it holds a character of a learnt segment. End-of-text is appended by id and always
    learnt, also where padding is the same token; a document that was cut gets none, since it did not end.
    Documents with nothing left to learn are dropped and counted.

    Raises:
        ModelError: the tokenizer has no end-of-text token.
    """
    if tokenizer.eos_token_id is None:
        raise ModelError("model.no_eos")
    counts = {"num_truncated": 0, "num_truncated_tokens": 0, "num_without_answer": 0}
    examples: list[Example] = []
    for document, (ids, offsets) in zip(documents, _encoded(documents, tokenizer), strict=True):
        answer = _learn_flags(document, offsets)
        if not document.complete and (not ids or ids[-1] != tokenizer.eos_token_id):
            ids.append(tokenizer.eos_token_id)
            answer = np.append(answer, True)
        elif not document.complete:
            answer[-1] = True
        learn = np.ones(len(ids), bool) if learn_all else answer
        if len(ids) > max_length:
            counts["num_truncated"] += 1
            counts["num_truncated_tokens"] += len(ids) - max_length
        asks = learn_all and any(not part.learn for part in document.segments)
        told = answer[:max_length] if asks else None
        example = Example(document.id, np.asarray(ids[:max_length], np.int64), learn[:max_length], told)
        if example.num_loss_tokens and (learn_all or document.has_answer):
            examples.append(example)
        else:
            counts["num_without_answer"] += 1
    return examples, counts


def _encoded(documents: Sequence[Document], tokenizer: Any) -> Iterator[tuple[list[int], list[tuple[int, int]]]]:
    for special, group in groupby(documents, lambda document: wants_special(tokenizer, document)):
        texts = [document.text for document in group]
        for start in range(0, len(texts), 1000):
            chunk = texts[start : start + 1000]
            encoded = tokenizer(chunk, add_special_tokens=special, return_offsets_mapping=True)
            yield from zip(encoded["input_ids"], encoded["offset_mapping"], strict=True)


def wants_special(tokenizer: Any, document: Document) -> bool:
    """Whether the tokenizer adds its own special tokens: not to a text that brings its opening token itself."""
    own_start = tokenizer.bos_token and document.text.startswith(tokenizer.bos_token)
    return not (document.complete or own_start)


def prompt_ids(tokenizer: Any, prompt: Document) -> list[int]:
    """Token ids of a prompt, as the beginning of a training example has them: never with an end at its end."""
    ids: list[int] = tokenizer(prompt.text, add_special_tokens=wants_special(tokenizer, prompt))["input_ids"]
    return ids[:-1] if ids[-1] == tokenizer.eos_token_id and not prompt.complete else ids


def _learn_flags(document: Document, offsets: Sequence[tuple[int, int]]) -> npt.NDArray[np.bool_]:
    flags = np.zeros(len(offsets), bool)
    spans = np.asarray(offsets, np.int64).reshape(-1, 2)
    start = 0
    for segment in document.segments:
        end = start + len(segment.text)
        if segment.learn:
            flags |= (spans[:, 0] < end) & (spans[:, 1] > start)
        start = end
    return flags
