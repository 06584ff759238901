"""What two manifests (``run.json``) say that is not the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jinmaek.core.verdict import Difference

Manifest = Mapping[str, Any]

FINGERPRINTS = ("data", "order", "initial_adapter", "base")

_HASH = 12  # letters of a fingerprint that are shown

_INERT = (
    "samples.", "capture.", "train.checkpoint_every", "train.keep_checkpoints", "train.eval_every", "train.log_every",
    "train.max_skipped_steps",
)  # fmt: skip


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """``section.key`` -> value for every key that is written down."""
    return {
        f"{section}.{key}": value
        for section, table in values.items()
        if isinstance(table, Mapping)
        for key, value in table.items()
    }


def settings_of(manifest: Manifest) -> dict[str, Any]:
    """``section.key`` -> value of every setting; what only describes the recipe is left out."""
    return {name: value for name, value in flat(manifest["settings"]).items() if not name.startswith("about.")}


def differing_settings(run: Manifest, against: Manifest) -> list[str]:
    """Names of the settings that are not the same."""
    one, other = settings_of(run), settings_of(against)
    absent = object()
    names = dict.fromkeys([*one, *other])
    return [name for name in names if one.get(name, absent) != other.get(name, absent)]


def is_inert(name: str) -> bool:
    """Whether a setting decides only what is kept or shown, or when it ends."""
    return name.startswith(_INERT)


def manifest_differences(run: Manifest, against: Manifest) -> tuple[Difference, ...]:
    """Settings first, then fingerprints, versions, device and determinism."""
    one, other = facts_of(run), facts_of(against)
    return tuple(
        Difference(name=name, recorded=one.get(name, ""), now=other.get(name, ""))
        for name in dict.fromkeys([*one, *other])
        if one.get(name, "") != other.get(name, "")
    )


def facts_of(manifest: Manifest) -> dict[str, str]:
    """Everything that :func:`manifest_differences` compares, by name."""
    facts = {
        **settings_of(manifest),
        **{name: text[:_HASH] for name, text in manifest.get("fingerprints", {}).items()},
        **manifest.get("versions", {}),
        **{f"device.{name}": fact for name, fact in manifest.get("device", {}).items()},
        "determinism": manifest.get("determinism", ""),
    }
    return {name: str(fact) for name, fact in facts.items()}
