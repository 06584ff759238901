"""Start the process that tries a batch size, and read its answer."""

from __future__ import annotations

import json
import signal
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from jinmaek.config import Recipe, load_recipe
from jinmaek.core.errors import RunError
from jinmaek.lab.find_batch import Try, decode_try, size_key
from jinmaek.lab.memory import free_host_bytes
from jinmaek.lab.processes import start_module
from jinmaek.lab.sweep_directory import write_json

HOST_SHARE = 0.8  # of the memory that is free on the host; the rest is left to everything else


class BatchTries:
    """Tries sizes of a recipe's batch, each in a process.

    ``limit_bytes``: memory of the host that a try on the CPU may take; ``None`` where the system does not say.
    """

    def __init__(self, name: str, settings: Sequence[str]) -> None:
        """Read the recipe.

        Raises:
            RecipeError: it is wrong.
        """
        self.recipe: Recipe = load_recipe(name, settings)
        self._name, self._settings = name, tuple(settings)
        free = free_host_bytes()
        self.limit_bytes = None if free is None else int(free * HOST_SHARE)

    def attempt(self, size: int) -> Try:
        """Try ``size``; whatever happens to the process is an answer."""
        recipe = load_recipe(self._name, [*self._settings, f"{size_key(self.recipe)}={size}"])
        asked: dict[str, Any] = {
            "recipe": recipe.model_dump(mode="json", exclude_unset=True),
            "size": size,
            "limit_bytes": self.limit_bytes,
        }
        with tempfile.TemporaryDirectory() as folder:
            question, answer, log = (Path(folder) / name for name in ("asked.json", "answer.json", "log"))
            write_json(question, asked)
            process = start_module("jinmaek.lab.batch_trial", [str(question), str(answer)], log, None)
            try:
                code = process.wait()
            finally:
                with suppress(ProcessLookupError):
                    process.kill()
                process.wait()
            if answer.exists():
                return decode_try(json.loads(answer.read_text("utf-8")))
            if code == -signal.SIGKILL:  # how Linux answers where memory runs out after all
                return Try(size=size, fits=False, out_of_memory=True)
            lines = [line for line in log.read_text("utf-8", errors="replace").splitlines() if line.strip()]
        error = RunError("lab.try_died", code=code, said=lines[-1].strip() if lines else "")
        return Try(size=size, fits=False, error={"en": error.render("en"), "ko": error.render("ko")})
