"""From a row to a text whose parts are told apart: what is given, and what is to be learnt."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from jinja2 import TemplateError

from jinmaek.config.recipe import DataSection
from jinmaek.core.errors import DataError
from jinmaek.training.sources import Row

KOALPACA = "### 질문: {question}\n\n### 답변: {answer}"
KOALPACA_CONTEXT = "### 질문: {question}\n\n### 맥락: {context}\n\n### 답변: {answer}"

Kind = Literal["pairs", "text", "messages"]
Message = Mapping[str, str]

# Tried in this order; the first whose required columns are all there is taken (names without case).
_PAIR_COLUMNS = (
    ("instruction", "output", "input"),
    ("question", "answer", "context"),
    ("q", "a", None),
    ("prompt", "completion", None),
    ("prompt", "response", None),
)
_NAMES_OF: Mapping[Kind, tuple[str, ...]] = {
    "messages": ("messages",),
    "pairs": ("question", "answer", "context"),
    "text": ("text",),
}
_MESSAGE_COLUMNS = ("messages", "conversations")
_SHAREGPT_ROLES = {"human": "user", "gpt": "assistant"}


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of text; ``learn`` says whether it is an answer."""

    text: str
    learn: bool


@dataclass(frozen=True, slots=True)
class Document:
    """One example as text. ``complete`` texts (a chat template's) bring their own special tokens."""

    id: str
    segments: tuple[Segment, ...]
    complete: bool = False

    @property
    def text(self) -> str:
        """All of it."""
        return "".join(segment.text for segment in self.segments)

    @property
    def has_answer(self) -> bool:
        """Whether there is more than white space to learn."""
        return any(segment.learn and segment.text.strip() for segment in self.segments)


@dataclass(frozen=True, slots=True)
class Columns:
    """Which columns hold what."""

    kind: Kind
    question: str | None = None
    answer: str | None = None
    context: str | None = None
    text: str | None = None
    messages: str | None = None


def find_columns(row: Row, section: DataSection) -> Columns:
    """The columns that ``section`` names, or that the first row's names give away.

    Raises:
        DataError: a named column is not there, or no known set of columns is.
    """
    named = {key: getattr(section, f"{key}_column") for key in ("question", "answer", "context", "text", "messages")}
    for key, column in named.items():
        if column is not None and column not in row:
            raise DataError("data.no_column", key=f"data.{key}_column", column=column, columns=", ".join(row))
    kinds: tuple[Kind, ...] = ("messages", "pairs", "text") if section.format == "auto" else (section.format,)
    # What is named must not be passed over for what is guessed.
    kinds = tuple(sorted(kinds, key=lambda kind: not any(named[key] for key in _NAMES_OF[kind])))
    for kind in kinds:
        columns = _FINDERS[kind](row, named)
        if columns is not None:
            return columns
    raise DataError("data.columns_unknown", columns=", ".join(row), format=section.format)


def _find_pairs(row: Row, named: Mapping[str, str | None]) -> Columns | None:
    lower = {name.lower(): name for name in row}
    question, answer, context = named["question"], named["answer"], named["context"]
    for known_question, known_answer, known_context in _PAIR_COLUMNS:
        if known_question in lower and known_answer in lower and not (question and answer):
            question, answer = question or lower[known_question], answer or lower[known_answer]
            context = context or lower.get(known_context or "")
    return Columns("pairs", question=question, answer=answer, context=context) if question and answer else None


def _find_text(row: Row, named: Mapping[str, str | None]) -> Columns | None:
    text = named["text"] or ("text" if "text" in row else None)
    return Columns("text", text=text) if text else None


def _find_messages(row: Row, named: Mapping[str, str | None]) -> Columns | None:
    column = named["messages"] or next((name for name in _MESSAGE_COLUMNS if name in row), None)
    return Columns("messages", messages=column) if column else None


_FINDERS: Mapping[Kind, Callable[[Row, Mapping[str, str | None]], Columns | None]] = {
    "pairs": _find_pairs,
    "text": _find_text,
    "messages": _find_messages,
}


def prompt_segments(template: str, question: str, context: str = "") -> tuple[str, str, str]:
    """The template filled with a question: what comes before the answer, the gap, and what comes after it.

    The gap is the white space between prompt and answer. It belongs to the answer: most tokenizers join a
    space with the word behind it, so a prompt that ends in a space is no prefix of the learnt text.
    """
    if template == "koalpaca":
        template = KOALPACA_CONTEXT if context else KOALPACA
    before, _, after = template.partition("{answer}")
    values = {"{question}": question, "{context}": context}
    filled = re.sub(r"\{question\}|\{context\}", lambda found: values[found[0]], before)
    prompt = filled.rstrip(" ")
    return prompt, filled[len(prompt) :], after


def pair_document(id: str, template: str, question: str, context: str, answer: str) -> Document:
    """A question and its answer in ``template`` (``koalpaca`` or a text with placeholders)."""
    prompt, gap, after = prompt_segments(template, question, context)
    return Document(id, (Segment(prompt, False), Segment(gap + answer + after, bool(answer.strip()))))


def row_messages(row: Row, columns: Columns, number: int) -> list[Message]:
    """The row's conversation as role/content messages; ShareGPT's from/value is understood.

    Raises:
        DataError: it is no list of messages.
    """
    if columns.kind == "pairs":
        question, context, answer = pair_texts(row, columns, number)
        asked = f"{question}\n\n{context}" if context else question
        return [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
    raw: Any = row.get(columns.messages or "")
    try:
        return [_message(item) for item in raw]
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError("data.bad_messages", number=number, value=repr(raw)[:120]) from error


def _message(item: Mapping[str, str]) -> Message:
    role, content = (item["from"], item["value"]) if "from" in item else (item["role"], item["content"])
    if not isinstance(role, str) or not isinstance(content, str):
        raise TypeError("role and content are text")
    return {"role": _SHAREGPT_ROLES.get(role, role) if "from" in item else role, "content": content}


def pair_texts(row: Row, columns: Columns, number: int) -> tuple[str, str, str]:
    """Question, context (perhaps empty) and answer of a row.

    Raises:
        DataError: question or answer is no text.
    """
    question, answer = row.get(columns.question or ""), row.get(columns.answer or "")
    for column, value in ((columns.question, question), (columns.answer, answer)):
        if not isinstance(value, str):
            raise DataError("data.not_text", number=number, column=column, value=repr(value)[:80])
    context = row.get(columns.context) if columns.context else None
    return str(question), "" if context is None else str(context), str(answer)


Render = Callable[..., Any]


def chat_document(id: str, messages: Sequence[Message], render: Render, number: int) -> Document:
    """A conversation in the tokenizer's chat template, every assistant turn to be learnt.

    ``render(messages, add_generation_prompt=bool) -> str`` is the template. A turn is found by rendering what
    comes before it: the text up to the generation prompt must be a prefix of the whole, and the answer stands
    behind it, followed by the template's end-of-turn mark, which is learnt too.

    Raises:
        DataError: no assistant turn, or a template that rewrites earlier text so that a turn cannot be found.
    """
    render = partial(_rendered, render, number)
    whole = render(messages, add_generation_prompt=False)
    segments: list[Segment] = []
    done = 0
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        start, end = _turn_span(whole, messages, index, render, number)
        segments += [Segment(whole[done:start], False), Segment(whole[start:end], True)]
        done = end
    if not segments:
        raise DataError("data.no_assistant_turn", number=number)
    segments.append(Segment(whole[done:], False))
    return Document(id, tuple(segment for segment in segments if segment.text), complete=True)


def _rendered(render: Render, number: int, messages: Sequence[Message], *, add_generation_prompt: bool) -> str:
    try:
        text: str = render(messages, add_generation_prompt=add_generation_prompt)
    except (TemplateError, ValueError) as error:  # transformers refuses an empty conversation with ValueError
        raise DataError("data.template_failed", number=number, error=error) from error
    return text


def _turn_span(whole: str, messages: Sequence[Message], index: int, render: Render, number: int) -> tuple[int, int]:
    """Where the answer and its end mark stand in ``whole``.

    Rendered as the last turn, the answer may have more before it (Qwen's empty thought) than within a longer
    conversation: what stands in ``whole`` is the turn from its beginning, or from the answer itself on.
    """
    content = messages[index]["content"].strip()
    prefix = render(messages[:index], add_generation_prompt=True)
    if not content:
        return len(prefix), len(prefix)
    alone = render(messages[: index + 1], add_generation_prompt=False)
    turn = alone.removeprefix(prefix).rstrip()
    starts = [0, *(found.start() for found in re.finditer(rf"(?=\s*{re.escape(content)})", turn))]
    if alone.startswith(prefix) and whole.startswith(prefix) and len(starts) > 1:
        for start in starts:
            if whole.startswith(turn[start:], len(prefix)):
                return len(prefix), len(prefix) + len(turn) - start
    raise DataError("data.template_not_prefix", number=number, turn=index + 1)
