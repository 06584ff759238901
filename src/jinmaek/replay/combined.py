"""Several changes at once, where no single one healed: as few of them as together do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

import torch

from jinmaek.core.record import StepRecord
from jinmaek.core.verdict import Trial
from jinmaek.replay.arms import frozen_numbers
from jinmaek.replay.arms_data import minimal_failing
from jinmaek.replay.case import Case
from jinmaek.replay.changes import (
    attention_by,
    computed_in,
    reference_dequantisation,
    with_weights,
    without_dropout,
    without_non_finite,
)

_FRESH = "fresh_adapter"


def combined(case: Case) -> None:
    """Try all changes that failed alone together; if that heals, find the fewest that do (delta debugging)."""
    changes = [name for name in _makers(case) if case.outcome(name) == "fails"]
    if len(changes) < 2 or _try_together(case, changes).outcome != "heals":
        return
    # A part "fails" to be left out where it heals: the smallest such part is what it takes.
    fewest = minimal_failing(changes, lambda part: _try_together(case, part).outcome == "heals")
    case.facts["combined"] = sorted(fewest)


def _makers(case: Case) -> dict[str, Callable[[], AbstractContextManager[None]]]:
    training, attention = case.scene.training, case.scene.session.recipe.model.attention
    return {
        "fp32": lambda: computed_in(training, torch.float32),
        "other_attention": lambda: attention_by(training, "sdpa" if attention == "eager" else "eager"),
        "reference_dequantisation": lambda: reference_dequantisation(training),
        "mended_weight": lambda: _all_mended(case),
        "no_dropout": lambda: without_dropout(training),
        _FRESH: nullcontext,  # the state is another one; nothing of the training changes
    }


@contextmanager
def _all_mended(case: Case) -> Iterator[None]:
    with ExitStack() as stack:
        for _, weight in frozen_numbers(case.scene.training.model):
            stack.enter_context(without_non_finite(weight))
        yield


def _try_together(case: Case, changes: Sequence[str]) -> Trial:
    makers = _makers(case)
    state = with_weights(case.before, case.scene.fresh["weights"]) if _FRESH in changes else case.before

    def run() -> StepRecord:
        with ExitStack() as stack:
            for name in changes:
                stack.enter_context(makers[name]())
            return case.measure(state)

    return case.try_arm("combined", "combined", run, {"changes": list(changes)})
