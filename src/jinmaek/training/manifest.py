"""``run.json``: what a run is, so that it can be understood, compared and run again."""

from __future__ import annotations

import platform
import subprocess
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from jinmaek.core.errors import Problem, RunError
from jinmaek.core.version import VERSION
from jinmaek.training.fingerprint import of_base, of_examples, of_tensors
from jinmaek.training.session import Session

_PACKAGES = (
    "torch", "transformers", "peft", "bitsandbytes", "accelerate", "tokenizers", "safetensors",
    "datasets", "numpy", "triton",
)  # fmt: skip


def make_manifest(session: Session, determinism: str) -> dict[str, Any]:
    """The manifest of a run that is about to start."""
    return {
        "name": session.recipe.name,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "recipe": session.recipe.model_dump(mode="json", exclude_unset=True),
        "settings": settings(session),
        "max_steps": session.max_steps,
        "schedule_steps": session.recipe.optim.schedule_steps or session.max_steps,
        "steps_per_epoch": session.plan.steps_per_epoch,
        "vocab_size": session.training.model.config.vocab_size,
        "seed": session.recipe.train.seed,
        "determinism": determinism,
        "kernels": session.kernels.render("en"),
        "versions": versions(),
        "git": git_state(),
        "device": device_facts(session.training.device),
        "data": asdict(session.data.report),
        "trainable": {
            "num_tensors": len(session.training.params),
            "num_weights": session.num_weights,
            "groups": session.groups,
        },
        "fingerprints": fingerprints(session),
    }


def fingerprints(session: Session) -> dict[str, str]:
    """Names of what the run depends on: data, its order, the fresh adapter, the base."""
    return {
        "data": of_examples([*session.data.train, *session.data.held_out]),
        "order": session.plan.fingerprint(session.max_steps),
        "initial_adapter": of_tensors(session.training.params),
        "base": of_base(session.training.model),
    }


def settings(session: Session) -> dict[str, Any]:
    """Every setting, stated or default."""
    return session.recipe.model_dump(mode="json")


def check_same(recorded: dict[str, Any], session: Session) -> None:
    """Refuse to go on with a run whose settings (a default moved), data, order, adapter or base changed.

    Raises:
        RunError: naming each that differs.
    """
    now = fingerprints(session)
    changed = [name for name, value in recorded["fingerprints"].items() if now[name] != value]
    changed += ["settings"] if recorded["settings"] != settings(session) else []
    if changed:
        raise RunError.of([Problem(f"run.changed_{name}") for name in changed])


def versions() -> dict[str, str | None]:
    """Versions of everything that can change a number; ``None`` where a package is absent."""
    found: dict[str, str | None] = {"jinmaek": VERSION, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = None
    found["cuda"] = torch.version.cuda
    return found


def device_facts(device: torch.device) -> dict[str, Any]:
    """What computes."""
    facts: dict[str, Any] = {
        "type": device.type,
        "machine": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "num_threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        facts |= {
            "gpu": properties.name,
            "memory_bytes": properties.total_memory,
            "capability": f"{properties.major}.{properties.minor}",
            "driver": _said("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        }
    return facts


def git_state() -> dict[str, Any] | None:
    """Commit of the working directory and whether it has uncommitted changes; ``None`` outside a repository."""
    commit = _said("git", "rev-parse", "HEAD")
    return None if commit is None else {"commit": commit, "dirty": bool(_said("git", "status", "--porcelain"))}


def _said(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
