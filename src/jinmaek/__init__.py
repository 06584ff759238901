"""jinmaek (진맥): QLoRA fine-tuning that cannot fail silently.

Everything the commands do is a function here: :func:`train`, :func:`resume`, :func:`ask`, :func:`diagnose`,
:func:`compare`, :func:`prove`, :func:`prove_against`, :func:`write_report`, :func:`load_recipe`, :func:`read_steps`.
Each is imported when it is first used: reading a log must not wait for torch, nor for pydantic.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from jinmaek.core.comparison import Comparison
from jinmaek.core.errors import DataError, JinmaekError, LogError, ModelError, RecipeError, RunError, StorageError
from jinmaek.core.finding import Diagnosis, Finding
from jinmaek.core.parting import Parting
from jinmaek.core.record import StepRecord
from jinmaek.core.verdict import Verdict
from jinmaek.store import read_steps

if TYPE_CHECKING:
    from jinmaek.comparison import compare_paths as compare
    from jinmaek.config import Recipe, builtin_recipes, load_recipe
    from jinmaek.detect import diagnose_path as diagnose
    from jinmaek.pulse import RunResult, resume, train
    from jinmaek.pulse.listener import RunListener
    from jinmaek.replay import prove, prove_against
    from jinmaek.report.page import write_report
    from jinmaek.talk import ask

_LATER = {
    "Recipe": ("jinmaek.config", "Recipe"),
    "builtin_recipes": ("jinmaek.config", "builtin_recipes"),
    "load_recipe": ("jinmaek.config", "load_recipe"),
    "diagnose": ("jinmaek.detect", "diagnose_path"),
    "compare": ("jinmaek.comparison", "compare_paths"),
    "train": ("jinmaek.pulse", "train"),
    "resume": ("jinmaek.pulse", "resume"),
    "RunResult": ("jinmaek.pulse", "RunResult"),
    "RunListener": ("jinmaek.pulse.listener", "RunListener"),
    "prove": ("jinmaek.replay", "prove"),
    "prove_against": ("jinmaek.replay", "prove_against"),
    "ask": ("jinmaek.talk", "ask"),
    "write_report": ("jinmaek.report.page", "write_report"),
}

__all__ = [
    "Comparison",
    "DataError",
    "Diagnosis",
    "Finding",
    "JinmaekError",
    "LogError",
    "ModelError",
    "Parting",
    "Recipe",
    "RecipeError",
    "RunError",
    "RunListener",
    "RunResult",
    "StepRecord",
    "StorageError",
    "Verdict",
    "ask",
    "builtin_recipes",
    "compare",
    "diagnose",
    "load_recipe",
    "prove",
    "prove_against",
    "read_steps",
    "resume",
    "train",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name in _LATER:
        module, attribute = _LATER[name]
        return getattr(import_module(module), attribute)
    raise AttributeError(f"module 'jinmaek' has no attribute {name!r}")
