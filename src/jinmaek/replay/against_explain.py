"""Which difference explains the parting: the run is built up again with the other's value of it, and run.

It is taken for explained only if every replayed step then is the other run's, up to the one at which they part.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from jinmaek.config import Recipe, recipe_from_dict
from jinmaek.core.errors import JinmaekError, RecipeError
from jinmaek.core.manifest import Manifest, differing_settings, is_inert
from jinmaek.core.parting import Explanation, ExplanationReason, PlaceKind
from jinmaek.core.record import StepRecord
from jinmaek.core.verdict import Difference
from jinmaek.replay.against_runs import MOST_STEPS, is_recorded, release_memory, said_by
from jinmaek.replay.against_settings import in_order, mixed_values, other_content
from jinmaek.replay.scene import Scene
from jinmaek.store import RunDirectory
from jinmaek.training.determinism import repeatable
from jinmaek.training.model import choose_device
from jinmaek.training.session import load_session_data, make_session
from jinmaek.training.state import State, StateCopy, state_of

MOST_REBUILDS = 12
_FOR_GROUPS = 4  # rebuilds that single settings leave for all of them together, while none explains

Tell = Callable[[Explanation], None]


@dataclass(slots=True)
class Trials:
    """The run with settings of the other, tried against the other's ``records`` up to ``step``."""

    path: Path
    manifest: Manifest
    against: Manifest
    records: Mapping[int, StepRecord]
    step: int
    tell: Tell
    num_rebuilds: int = 0
    _known: dict[frozenset[str], Explanation] = field(default_factory=dict)

    def explain(self, kind: PlaceKind) -> list[Explanation]:
        """Each setting by itself; if none explains, the fewest found that do together."""
        names = in_order(differing_settings(self.manifest, self.against), kind)
        first = [name for name in names if not is_inert(name)] or names
        found: list[Explanation] = []
        for name in first:
            spare = _FOR_GROUPS if len(names) > 1 and not _explained(found) else 0
            found.append(self._told(self.try_with([name], spare)))
        if not _explained(found) and len(names) > 1:
            found.append(self._told(self._together(names)))
        tried = {part for each in found for part in (each.name, *each.parts)}
        found += [_not_tested(name, "no_part_of_a_step") for name in names if name not in tried]
        return found

    def try_with(self, names: Sequence[str], spare: int = 0) -> Explanation:
        """The run with the other's values of ``names``; ``spare`` rebuilds are left for later."""
        chosen = frozenset(names)
        if chosen not in self._known:
            found = self._tried(names, spare)
            if found.reason == "budget":
                return found
            self._known[chosen] = found
        return self._known[chosen]

    def _told(self, found: Explanation) -> Explanation:
        self.tell(found)
        return found

    def _together(self, names: Sequence[str]) -> Explanation:
        whole = self.try_with(names)
        if whole.outcome != "explains":
            return whole
        return self.try_with(self._fewest(names))

    def _fewest(self, names: Sequence[str]) -> list[str]:
        """``names`` explain it together: those that can be left out are, many at a time and the last ones first.

        Not :func:`jinmaek.replay.arms_data.minimal_failing`: that asks first what every part does by itself, which
        the single settings have answered, and each question costs a rebuild here.
        """
        kept, size = list(names), len(names) // 2
        while size:
            for end in range(len(kept), 0, -size):
                rest = kept[: max(end - size, 0)] + kept[end:]
                if rest and self.try_with(rest).outcome == "explains":
                    kept = rest
            size //= 2
        return kept

    def _tried(self, names: Sequence[str], spare: int) -> Explanation:
        values = mixed_values(self.manifest, self.against, names)
        if values == mixed_values(self.manifest, self.against, ()):
            return _result(names, "does_not", reason="no_effect")
        try:
            recipe = recipe_from_dict(values)
        except RecipeError as error:
            return _result(names, "not_tested", reason="recipe", said=said_by(error))
        if self.num_rebuilds >= MOST_REBUILDS - spare:
            return _result(names, "not_tested", reason="budget")
        self.num_rebuilds += 1
        try:
            return self._rebuilt(recipe, names)
        except JinmaekError as error:
            return _result(names, "not_tested", reason="cannot_load", said=said_by(error))
        except torch.OutOfMemoryError:
            return _result(names, "not_tested", reason="out_of_memory")
        finally:
            release_memory()

    def _rebuilt(self, recipe: Recipe, names: Sequence[str]) -> Explanation:
        with repeatable(recipe.train.deterministic, choose_device()):
            session = make_session(recipe, load_session_data(recipe))
            scene = Scene(
                directory=RunDirectory.open(self.path),
                manifest=self.manifest,
                session=session,
                records=self.records,
                resumed=(),
                fresh=StateCopy(state_of(session.training, 0)).wait(),
                differences=(),
            )
            return self._compared(scene, names)

    def _compared(self, scene: Scene, names: Sequence[str]) -> Explanation:
        state = scene.fresh
        if self.step > MOST_STEPS:
            start = scene.starts(self.step - 1)[-1]
            if self.step - start.step > MOST_STEPS:
                return _result(names, "not_tested", reason="too_far")
            carried = _carried(scene, scene.state(start))
            if carried is None:
                return _result(names, "not_tested", reason="state_does_not_fit")
            state = carried
        readings = scene.replay(state, self.step)
        parted = next((reading.step for reading in readings if not is_recorded(scene, reading)), None)
        if parted is None:
            return _result(names, "explains", start_step=int(state["step"]))
        return _result(names, "does_not", reason="parts", step=parted, start_step=int(state["step"]))


def not_swappable(differences: Sequence[Difference], settings: Sequence[str]) -> list[Explanation]:
    """The differences that no recipe can change; fingerprints only where they do not follow from settings."""
    found = []
    differing = [each.name for each in differences]
    for name in differing:
        if name in settings:
            continue
        if name not in ("data", "base", "initial_adapter", "order"):
            found.append(_not_tested(name, "not_here"))
        elif other_content(name, differing):
            found.append(_not_tested(name, "content"))
    return found


def untried(manifest: Manifest, against: Manifest, reason: ExplanationReason) -> list[Explanation]:
    """Every differing setting, where the runs themselves could not be replayed."""
    return [_not_tested(name, reason) for name in differing_settings(manifest, against)]


def _carried(scene: Scene, state: State) -> State | None:
    """A state of the run, to be gone on from with other settings: what they say goes before what it kept.

    ``None`` where its weights are not those of the changed run.
    """
    params = scene.training.params
    kept = state["weights"]
    if set(kept) != set(params) or any(kept[name].shape != weight.shape for name, weight in params.items()):
        return None
    schedule: Any = scene.training.schedule
    updates, fresh = state["schedule"]["last_epoch"], scene.fresh
    rates = [base * rate(updates) for base, rate in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)]
    groups = [{**group, "lr": rate} for group, rate in zip(fresh["optimizer"]["param_groups"], rates, strict=True)]
    moved = {**state["schedule"], "base_lrs": fresh["schedule"]["base_lrs"], "_last_lr": rates}
    return {**state, "optimizer": {**state["optimizer"], "param_groups": groups}, "schedule": moved}


def _explained(found: Sequence[Explanation]) -> bool:
    return any(each.outcome == "explains" for each in found)


def _not_tested(name: str, reason: ExplanationReason) -> Explanation:
    return Explanation(name=name, outcome="not_tested", reason=reason)


def _result(names: Sequence[str], outcome: Any, **facts: Any) -> Explanation:
    parts = tuple(names) if len(names) > 1 else ()
    return Explanation(name=" + ".join(names), outcome=outcome, parts=parts, **facts)
