"""The settings that may explain a parting, in the order to try them, and the recipe of one run with the other's."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jinmaek.config.load import defaults
from jinmaek.config.relevance import IGNORED
from jinmaek.core.manifest import Manifest, is_inert, settings_of
from jinmaek.core.parting import PlaceKind

# Where the runs part says which settings to try first.
_SUSPECTS: Mapping[PlaceKind, tuple[str, ...]] = {
    "input": ("data.", "train.seed", "train.batch", "train.accumulation", "model.name"),
    "forward": ("model.", "adapter.", "train.seed", "train.precision"),
    "loss": ("data.", "train.precision"),
    "loss_scale": ("train.loss_scale", "train.precision"),
    "gradient": ("model.", "adapter.", "train."),
    "lr": ("optim.", "train.max_steps", "train.epochs"),
    "update": ("optim.", "train.max_grad_norm"),
}

# Settings that a fingerprint follows from: where none of them differs, the content does.
_MADE_OF: Mapping[str, tuple[str, ...]] = {
    "data": ("data.", "model.name", "model.revision", "train.seed"),
    "base": ("model.", "adapter.", "train.precision"),  # PEFT renames what it wraps
    "initial_adapter": ("adapter.", "model.", "train.seed", "train.precision"),
    "order": ("data.", "model.name", "model.revision", "train."),
}


def in_order(names: Iterable[str], kind: PlaceKind) -> list[str]:
    """``names``, those first that are most likely to make a difference of ``kind``."""
    return sorted(names, key=lambda name: (is_inert(name), not name.startswith(_SUSPECTS[kind])))


def other_content(fingerprint: str, differing: Iterable[str]) -> bool:
    """Whether a fingerprint that is another cannot follow from settings that are."""
    names = set(differing)
    sources = _MADE_OF.get(fingerprint, ())
    follows = any(name.startswith(sources) for name in names) if sources else False
    # The order of other examples is another order.
    return not follows and not (fingerprint == "order" and "data" in names)


def mixed_values(run: Manifest, against: Manifest, names: Iterable[str]) -> dict[str, Any]:
    """The run's recipe with the other's values of ``names``.

    Left out is what the recipe would refuse as having no effect, and what is a default anyway.
    """
    values, other = settings_of(run), settings_of(against)
    for name in names:
        if name in other:
            values[name] = other[name]
        else:
            values.pop(name, None)
    usual = defaults()
    full = usual | values
    ignored = {rule.key for rule in IGNORED if rule.when(full[rule.reader])}
    sections: dict[str, Any] = {"name": run["settings"].get("name", "recipe")}
    for name, value in values.items():
        if name not in ignored and not _is_default(value, usual.get(name)):
            section, _, key = name.partition(".")
            sections.setdefault(section, {})[key] = value
    return sections


def _is_default(value: Any, usual: Any) -> bool:
    return bool(value == (list(usual) if isinstance(usual, tuple) else usual))
