"""The largest batch that fits: asked of the memory planner where there is one, found by trying where there is none.

Every try is a process of its own that loads the model, runs a few steps on the longest examples and evaluates as a
training would, so that nothing is concluded from arithmetic alone and running out of memory hurts nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from jinmaek.config import Recipe
from jinmaek.core.text import Lang

SIZE, TOKENS = "train.batch_size", "train.batch_tokens"
SLOWEST_TRY_SECONDS = 120.0  # a try that is expected to take longer is not made
_SHARE = 16  # the answer is within 1/16
_TOKEN_STEP = 64
_ASKED = 4  # times that the planner is asked

Why = Literal["memory", "plan", "data", "slow", "failed", "too_small"]
"""What bounds the answer: a larger one does not fit; the planner would move a larger one's activations to the host, so
it was not tried; there are no more examples; a larger one was not tried because it would take too long; a larger one
failed for another reason; not even the smallest fits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """What one size came to. ``planned``: the largest size that the memory planner expects to fit, if there is one."""

    size: int
    fits: bool
    out_of_memory: bool = False
    peak_bytes: int | None = None
    seconds_per_step: float | None = None
    tokens_per_second: float | None = None
    seconds: float = 0.0
    on_gpu: bool = False
    num_examples: int | None = None
    planned: int | None = None
    error: Mapping[Lang, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LargestBatch:
    """``largest``: the largest size that was seen to fit; ``smallest_failed``: the smallest that was seen not to."""

    largest: int | None
    smallest_failed: int | None
    why: Why
    tries: tuple[Try, ...]


def size_key(recipe: Recipe) -> str:
    """Which setting is the batch's size."""
    return TOKENS if recipe.data.packing else SIZE


def search(recipe: Recipe, attempt: Callable[[int], Try]) -> LargestBatch:
    """Find the largest size that fits, within a sixteenth.

    Args:
        recipe: whose batch is sought; its own size is tried first.
        attempt: tries a size.
    """
    return _Search(recipe, attempt).run()


class _Search:
    def __init__(self, recipe: Recipe, attempt: Callable[[int], Try]) -> None:
        packing = recipe.data.packing
        self._attempt = attempt
        self._tries: list[Try] = []
        self._grain = _TOKEN_STEP if packing else 1
        self._floor = recipe.data.max_length if packing else 1  # a pack holds at least one example
        self._start = recipe.train.batch_tokens if packing else recipe.train.batch_size
        self._per_example = None if not packing else recipe.data.max_length

    def run(self) -> LargestBatch:
        first = self._made(self._start)
        if not first.fits:
            return self._between(self._floor - self._grain, self._start, first)
        cap = None if self._per_example is not None else first.num_examples
        if cap is not None and self._start >= cap:
            return self._told(self._start, None, "data")
        return self._grown(first, cap) if first.planned is None else self._planned(first, cap)

    def _planned(self, last: Try, cap: int | None) -> LargestBatch:
        """Try what the planner says; at another size it may plan otherwise, so it is asked again there."""
        for _ in range(_ASKED):
            size = last.size if last.planned is None else min(last.planned, cap or last.planned)
            if size <= last.size:
                break
            tried = self._made(size)
            if not tried.fits:
                return self._between(last.size, size, tried)
            last = tried
        return self._told(last.size, None, "data" if last.size == cap else "plan")

    def _grown(self, last: Try, cap: int | None) -> LargestBatch:
        """Double until it fails, then close in."""
        while True:
            size = 2 * last.size if cap is None else min(2 * last.size, cap)
            if last.seconds * size / last.size > SLOWEST_TRY_SECONDS:
                return self._told(last.size, None, "slow")
            tried = self._made(size)
            if not tried.fits:
                return self._between(last.size, size, tried)
            if size == cap:
                return self._told(size, None, "data")
            last = tried

    def _between(self, good: int, bad: int, failed: Try) -> LargestBatch:
        """Close in on the largest between one that fits (or is too small to be one) and one that does not."""
        while bad - good > max(self._grain, good // _SHARE) and failed.out_of_memory:
            size = max(self._floor, (good + bad) // 2 // self._grain * self._grain)
            if not good < size < bad:
                break
            tried = self._made(size)
            if tried.fits:
                good = size
            else:
                bad, failed = size, tried
        why: Why = "memory" if failed.out_of_memory else "failed"
        return self._told(good if good >= self._floor else None, bad, why if good >= self._floor else "too_small")

    def _made(self, size: int) -> Try:
        tried = self._attempt(size)
        self._tries.append(tried)
        return tried

    def _told(self, largest: int | None, failed: int | None, why: Why) -> LargestBatch:
        if largest is None and not self._tries[-1].out_of_memory:
            why = "failed"
        return LargestBatch(largest=largest, smallest_failed=failed, why=why, tries=tuple(self._tries))


def encode_try(tried: Try) -> dict[str, Any]:
    """As JSON."""
    return {field.name: getattr(tried, field.name) for field in fields(tried)}


def decode_try(row: Mapping[str, Any]) -> Try:
    """What :func:`encode_try` wrote.

    Raises:
        TypeError: it is something else.
    """
    return Try(**row)
