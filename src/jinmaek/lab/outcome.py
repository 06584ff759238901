"""How a trial ended, as its process wrote it down."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from jinmaek.core.codec import number
from jinmaek.core.text import Lang

Status = Literal["completed", "not_finite", "collapsed", "failed", "interrupted"]
"""completed: to its end, with a finite result; not_finite: to its end, the result is NaN or infinite; collapsed: the
run stopped itself or learnt nothing; failed: an error; interrupted: saved, can go on."""
FINAL: tuple[Status, ...] = ("completed", "not_finite", "collapsed")
"""These are results: the same trial would end the same way again."""
_FLOATS = ("held_out_before", "held_out_after", "train_loss", "seconds", "tokens_per_second", "seconds_per_step")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What one trial came to.

    ``held_out_before`` and ``held_out_after``: mean nats a token, over ``held_out_tokens`` tokens; ``None`` where
    nothing was held out. ``train_loss``: mean loss of the last tenth of the steps, at least five. ``seconds``:
    wall-clock time of its processes, all attempts together; ``seconds_per_step``: median. ``causes``: what the rules
    found.
    ``peak_bytes``: most memory that its process held, of the GPU where there is one (``on_gpu``), else of the host.
    ``error``: what went wrong, by language.
    """

    status: Status
    steps: int = 0
    max_steps: int = 0
    skipped_steps: int = 0
    held_out_before: float | None = None
    held_out_after: float | None = None
    held_out_tokens: int | None = None
    train_loss: float | None = None
    seconds: float = 0.0
    tokens_per_second: float | None = None
    seconds_per_step: float | None = None
    peak_bytes: int | None = None
    on_gpu: bool = False
    causes: tuple[str, ...] = ()
    error: Mapping[Lang, str] | None = None

    @property
    def is_final(self) -> bool:
        """Whether there is nothing to gain from running it again."""
        return self.status in FINAL

    @property
    def succeeded(self) -> bool:
        """Whether it ran to its end with a finite result."""
        return self.status == "completed"

    @property
    def loss(self) -> float | None:
        """What arms are compared by: the held-out loss, or the training loss where nothing was held out."""
        loss = self.held_out_after if self.held_out_tokens else self.train_loss
        return loss if loss is not None and math.isfinite(loss) else None


def encode_outcome(outcome: Outcome) -> dict[str, Any]:
    """As JSON."""
    return {field.name: getattr(outcome, field.name) for field in fields(outcome)}


def decode_outcome(row: Mapping[str, Any]) -> Outcome:
    """What :func:`encode_outcome` wrote.

    Raises:
        KeyError, TypeError: it is something else.
    """
    values: dict[str, Any] = {name: number(value) if name in _FLOATS else value for name, value in row.items()}
    return Outcome(**values | {"causes": tuple(row["causes"])})
