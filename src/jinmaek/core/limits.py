"""Why a run does not improve (any faster): the most limiting thing, with its numbers.

Computed by :mod:`jinmaek.detect.limits`, told by :mod:`jinmaek.explain`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Limiting = Literal[
    "broken",  # a fault was found: nothing else is worth asking
    "skipped",  # updates thrown away
    "no_updates",  # applied, and far smaller than the optimizer makes them
    "clipped",  # nearly every gradient cut to a fraction, under an optimizer that minds
    "overfitting",  # held-out rises while training falls
    "low_lr",  # the gradient points the same way step after step, and hardly anything moves
    "gradient_noise",  # most of a step is noise of the batch
    "capacity",  # the gradient averages to nothing: what these weights can express of this data is learnt
    "improving",  # it does improve, beyond its noise
    "settled",  # flat, and the log does not tell why
    "log_too_noisy",  # a real improvement would not have been seen in this log
    "too_short",  # too few records to say anything
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The answer to "why does it not improve?".

    Attributes:
        limiting: the most limiting thing.
        finding: the pathology, where it is a fault.
        facts: the numbers, by name; ``None`` where the log does not hold them.
        missing: what would have to be recorded or measured to know more.
    """

    limiting: Limiting
    finding: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    missing: tuple[str, ...] = ()
