"""How a run went, as facts and as a sentence."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from jinmaek.core.codec import plain
from jinmaek.core.finding import Diagnosis
from jinmaek.core.text import Lang, say

_NESTED = ("streak", "samples", "diagnosis")
End = Literal["completed", "interrupted", "skipped_steps", "no_updates"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedStreak:
    """Steps in a row without an update, ending at ``last_step``.

    ``cause`` is what the records show and no more: ``loss`` (the loss itself was not finite), ``gradient``
    (finite loss, non-finite gradient), ``no_loss_tokens``, or ``mixed``.
    """

    first_step: int
    last_step: int
    cause: Literal["loss", "gradient", "no_loss_tokens", "mixed"]
    loss_scale: float | None

    @property
    def count(self) -> int:
        """Length."""
        return self.last_step - self.first_step + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What a run came to.

    ``adapter`` is ``None`` unless the run completed. ``held_out_before`` and ``held_out_after`` are mean
    negative log-likelihoods per token in nats; ``None`` where nothing was held out. ``samples`` are question,
    answer before, answer after. ``diagnosis`` is what the rules made of the run.
    """

    path: Path
    end: End
    adapter: Path | None
    last_checkpoint: Path | None
    num_steps: int
    max_steps: int
    num_updates: int
    held_out_before: float | None
    held_out_after: float | None
    seconds: float
    num_tokens: int
    streak: SkippedStreak | None = None
    samples: tuple[tuple[str, str | None, str | None], ...] = ()
    diagnosis: Diagnosis | None = None

    @property
    def tokens_per_second(self) -> float | None:
        """Non-padding tokens over the time spent in steps of this process."""
        return self.num_tokens / self.seconds if self.seconds > 0 else None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready facts, for ``--json`` and the end event."""
        facts = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in _NESTED}
        for name in ("path", "adapter", "last_checkpoint"):
            facts[name] = None if facts[name] is None else str(facts[name])
        if self.streak is not None:
            facts["streak"] = {name: getattr(self.streak, name) for name in self.streak.__dataclass_fields__}
        facts["tokens_per_second"] = self.tokens_per_second
        facts["samples"] = [dict(zip(("question", "before", "after"), row, strict=True)) for row in self.samples]
        if self.diagnosis is not None:
            facts["health"] = self.diagnosis.verdict
            facts["causes"] = [cause.id for cause in self.diagnosis.causes]
        encoded: dict[str, Any] = plain(facts)
        return encoded

    def sentence(self, lang: Lang) -> str:
        """How it went, in a sentence or a few."""
        parts = [
            say(f"result.{self.end}", lang, step=self.num_steps, max_steps=self.max_steps, path=self.path),
            self._updates(lang),
            self._held_out(lang),
            self._streak(lang),
        ]
        return " ".join(part for part in parts if part)

    def _updates(self, lang: Lang) -> str:
        skipped = self.num_steps - self.num_updates
        key = "result.all_updates" if skipped == 0 else "result.some_updates"
        return say(key, lang, updates=self.num_updates, steps=self.num_steps, skipped=skipped)

    def _held_out(self, lang: Lang) -> str:
        before, after = self.held_out_before, self.held_out_after
        if before is None or after is None:
            return "" if self.end != "completed" else say("result.nothing_held_out", lang)
        if not math.isfinite(after) or not math.isfinite(before):
            return say("result.held_out_not_finite", lang, before=before, after=after)
        key = "result.held_out_fell" if after < before else "result.held_out_rose"
        share = abs(after - before) / before * 100
        return say(key, lang, before=before, after=after, share=share)

    def _streak(self, lang: Lang) -> str:
        if self.streak is None:
            return ""
        streak = self.streak
        known = say(f"streak.{streak.cause}", lang, scale=streak.loss_scale, first=streak.first_step)
        healthy = say("streak.healthy", lang, path=self.last_checkpoint or "-")
        return f"{known} {healthy}"
