"""The arms on data: without each example, each alone, and the batches of other steps on the same weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from jinmaek.core.verdict import Trial
from jinmaek.replay.case import Case
from jinmaek.training.batches import Batch
from jinmaek.training.examples import Example

Item = TypeVar("Item")
_EACH = 8  # up to so many examples, each is left out by itself
_OTHER_STEPS = 3
_HEALING = ("without_example", "heals")


def examples(case: Case) -> None:
    """Which examples the failure needs, and whether they fail alone."""
    all_examples = [example for micro in case.scene.session.plan.microbatches(case.step) for example in micro]
    case.facts["num_examples"] = len(all_examples)
    _other_batches(case)
    if len(all_examples) == 1:
        case.facts["only_example"] = all_examples[0].id
        return
    if len(all_examples) > _EACH:
        _by_halves(case, all_examples)
        return
    for example in all_examples:
        _without(case, [example])
    healing = {trial.facts["example"] for trial in case.trials if (trial.arm, trial.outcome) == _HEALING}
    for example in (each for each in all_examples if each.id in healing):
        _only(case, [example])
    if not healing and "fails" not in {trial.outcome for trial in case.trials if trial.arm == "other_batch"}:
        # Several bad ones hide each other: each alone, then without all that fail alone.
        bad = [example for example in all_examples if _only(case, [example]).outcome == "fails"]
        if 1 < len(bad) < len(all_examples):
            _without(case, bad)


def minimal_failing(items: Sequence[Item], fails: Callable[[Sequence[Item]], bool]) -> list[Item]:
    """A smallest part of ``items`` that still fails: no half or single item of it can be left out.

    Delta debugging (Zeller & Hildebrandt 2002, ``ddmin``); ``fails(items)`` is taken for granted, and no part is
    asked about twice.
    """
    known: dict[tuple[int, ...], bool] = {}

    def still(part: tuple[int, ...]) -> bool:
        if part not in known:
            known[part] = fails([items[number] for number in part])
        return known[part]

    kept, parts = tuple(range(len(items))), 2
    while len(kept) > 1:
        size = -(-len(kept) // parts)
        chunks = [kept[at : at + size] for at in range(0, len(kept), size)]
        smaller = next((chunk for chunk in chunks if len(chunk) < len(kept) and still(chunk)), None)
        if smaller is not None:
            kept, parts = smaller, 2
            continue
        rests = (tuple(number for number in kept if number not in chunk) for chunk in chunks)
        smaller = next((rest for rest in rests if rest and still(rest)), None)
        if smaller is not None:
            kept, parts = smaller, max(parts - 1, 2)
        elif parts >= len(kept):
            break
        else:
            parts = min(len(kept), parts * 2)
    return [items[number] for number in kept]


def _by_halves(case: Case, all_examples: Sequence[Example]) -> None:
    needed = minimal_failing(all_examples, lambda chosen: _only(case, chosen).outcome == "fails")
    if len(needed) < len(all_examples):
        _without(case, needed)


def _other_batches(case: Case) -> None:
    """Do other steps' examples fail on these weights too?"""
    last = case.scene.session.max_steps
    after = [step for step in range(case.step + 1, case.step + 1 + _OTHER_STEPS) if step <= last]
    before = list(range(case.step - 1, 0, -1))
    for step in (after + before)[:_OTHER_STEPS]:
        batches = case.scene.batches(step)
        if any(batch.num_loss_tokens for batch in batches):
            case.try_arm("other_batch", "data", lambda given=batches: case.measure(batches=given), {"other_step": step})  # type: ignore[misc]


def _without(case: Case, left_out: Sequence[Example]) -> Trial | None:
    ids = {example.id for example in left_out}
    batches = _batches(case, lambda example: example.id not in ids)
    if not any(batch.num_loss_tokens for batch in batches):
        return None
    return _tried(case, "without_example", left_out, batches)


def _only(case: Case, chosen: Sequence[Example]) -> Trial:
    ids = {example.id for example in chosen}
    return _tried(case, "only_example", chosen, _batches(case, lambda example: example.id in ids))


def _tried(case: Case, arm: str, chosen: Sequence[Example], batches: list[Batch]) -> Trial:
    one = len(chosen) == 1
    facts = {"example": chosen[0].id} if one else {"examples": [example.id for example in chosen]}
    return case.try_arm(arm if one else f"{arm}s", "data", lambda: case.measure(batches=batches), facts)


def _batches(case: Case, wanted: Callable[[Example], bool]) -> list[Batch]:
    plan = case.scene.session.plan
    micros = ([example for example in micro if wanted(example)] for micro in plan.microbatches(case.step))
    return [plan.tensors(micro) for micro in micros if micro]
