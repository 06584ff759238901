"""What can go wrong and is not our own mistake.

JinmaekError
├── RecipeError      the recipe or an override is wrong (all problems at once)
├── DataError        the data cannot be read, or nothing is left to learn from
├── ModelError       the model, its tokenizer or the adapter does not fit
├── RunError         a run directory cannot be made, read or continued
├── LogError         a log cannot be read, or holds no training records
└── StorageError     the disk is full or not writable

Each carries one or more problems: a key of the message catalogue and the values that fill it. ``str()`` is the
English text; :meth:`JinmaekError.render` speaks either language.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from jinmaek.core.text import Lang, say


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: what, where, the value, how to mend it."""

    key: str
    params: dict[str, Any] = field(default_factory=dict)

    def render(self, lang: Lang) -> str:
        """The problem in ``lang``."""
        return say(self.key, lang, **self.params)


class JinmaekError(Exception):
    """Base of all errors that a user can cause and mend."""

    def __init__(self, key: str, /, **params: Any) -> None:
        self.problems: tuple[Problem, ...] = (Problem(key, params),)
        super().__init__(key)

    @classmethod
    def of(cls, problems: Sequence[Problem]) -> Self:
        """One error that tells all of ``problems``."""
        error = cls(problems[0].key, **problems[0].params)
        error.problems = tuple(problems)
        return error

    def render(self, lang: Lang) -> str:
        """The whole message in ``lang``: one line for one problem, a numbered list for several."""
        lines = [problem.render(lang) for problem in self.problems]
        if len(lines) == 1:
            return lines[0]
        head = say("errors.several", lang, count=len(lines))
        return "\n".join([head, *(f"  {number}. {line}" for number, line in enumerate(lines, 1))])

    def __str__(self) -> str:
        return self.render("en")


class RecipeError(JinmaekError):
    """The recipe or an override is wrong."""


class DataError(JinmaekError):
    """The data cannot be read, or nothing is left to learn from."""


class ModelError(JinmaekError):
    """The model, its tokenizer or the adapter does not fit the recipe."""


class RunError(JinmaekError):
    """A run directory cannot be made, read or continued."""


class LogError(JinmaekError):
    """A log cannot be read, or holds no training records."""


class StorageError(JinmaekError):
    """The disk is full or not writable."""
