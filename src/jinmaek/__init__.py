"""jinmaek (진맥): QLoRA fine-tuning that cannot fail silently.

Everything the commands do is a function here: :func:`train`, :func:`resume`, :func:`ask`,
:func:`load_recipe`, :func:`read_steps`. The heavy ones are imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from jinmaek.config import Recipe, builtin_recipes, load_recipe
from jinmaek.core.errors import DataError, JinmaekError, ModelError, RecipeError, RunError, StorageError
from jinmaek.core.record import StepRecord
from jinmaek.store import read_steps

if TYPE_CHECKING:
    from jinmaek.pulse import RunResult, resume, train
    from jinmaek.pulse.listener import RunListener
    from jinmaek.talk import ask

_HEAVY = {
    "train": "jinmaek.pulse",
    "resume": "jinmaek.pulse",
    "RunResult": "jinmaek.pulse",
    "RunListener": "jinmaek.pulse.listener",
    "ask": "jinmaek.talk",
}

__all__ = [
    "DataError",
    "JinmaekError",
    "ModelError",
    "Recipe",
    "RecipeError",
    "RunError",
    "RunListener",
    "RunResult",
    "StepRecord",
    "StorageError",
    "ask",
    "builtin_recipes",
    "load_recipe",
    "read_steps",
    "resume",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HEAVY:
        return getattr(import_module(_HEAVY[name]), name)
    raise AttributeError(f"module 'jinmaek' has no attribute {name!r}")
