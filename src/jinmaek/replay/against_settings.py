"""What is not the same in two manifests, and the recipe of one with settings of the other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jinmaek.config.load import defaults, flat
from jinmaek.config.relevance import IGNORED
from jinmaek.core.parting import PlaceKind
from jinmaek.core.verdict import Difference

Manifest = Mapping[str, Any]

_INERT = (
    "samples.", "capture.", "train.checkpoint_every", "train.keep_checkpoints", "train.eval_every", "train.log_every",
    "train.max_skipped_steps",
)  # fmt: skip

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
_HASH = 12  # letters of a fingerprint that are shown


def manifest_differences(run: Manifest, against: Manifest) -> tuple[Difference, ...]:
    """Settings first, then fingerprints, versions, device and determinism."""
    one, other = _facts(run), _facts(against)
    return tuple(
        Difference(name=name, recorded=one.get(name, ""), now=other.get(name, ""))
        for name in dict.fromkeys([*one, *other])
        if one.get(name, "") != other.get(name, "")
    )


def _facts(manifest: Manifest) -> dict[str, str]:
    facts = {
        **settings_of(manifest),
        **{name: text[:_HASH] for name, text in manifest.get("fingerprints", {}).items()},
        **manifest.get("versions", {}),
        **{f"device.{name}": fact for name, fact in manifest.get("device", {}).items()},
        "determinism": manifest.get("determinism", ""),
    }
    return {name: str(fact) for name, fact in facts.items()}


def settings_of(manifest: Manifest) -> dict[str, Any]:
    """``section.key`` -> value of every setting; what only describes the recipe is left out."""
    return {name: value for name, value in flat(manifest["settings"]).items() if not name.startswith("about.")}


def differing_settings(run: Manifest, against: Manifest) -> list[str]:
    """Names of the settings that are not the same."""
    one, other = settings_of(run), settings_of(against)
    absent = object()
    names = dict.fromkeys([*one, *other])
    return [name for name in names if one.get(name, absent) != other.get(name, absent)]


def in_order(names: Iterable[str], kind: PlaceKind) -> list[str]:
    """``names``, those first that are most likely to make a difference of ``kind``."""
    return sorted(names, key=lambda name: (is_inert(name), not name.startswith(_SUSPECTS[kind])))


def is_inert(name: str) -> bool:
    """Whether a setting decides only what is kept or shown, or when it ends."""
    return name.startswith(_INERT)


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
