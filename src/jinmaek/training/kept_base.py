"""The base in 4 bits, kept on disk: the next start reads a quarter of the checkpoint and quantises nothing.

It lies in ``$JINMAEK_CACHE``, else ``$XDG_CACHE_HOME/jinmaek``, else ``~/.cache/jinmaek``, as an ordinary transformers
checkpoint under a name that changes with everything it depends on. What is read has the bits of what was written.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from jinmaek.config.recipe import ModelSection

SMALLEST = 1 << 30  # bytes in 4 bits; what is smaller is loaded soon enough
_ROOM = 2  # times its size must be free on the disk
_SHARD = "200MB"  # written with the interpreter's lock held: longer ones would be felt in the steps
_WEIGHTS = ("*.safetensors", "*.bin")


@dataclass(slots=True)
class KeptBase:
    """Where a quantised base is kept, or will be; ``writing``: it was not there and is on its way."""

    path: Path
    writing: bool = False

    @property
    def is_whole(self) -> bool:
        """Whether it can be read: the folder gets its name when all of it is written."""
        return self.path.is_dir()

    def remove(self) -> None:
        """Forget one that cannot be read."""
        shutil.rmtree(self.path, ignore_errors=True)

    def write_meanwhile(self, model: Any) -> None:
        """Write the model in a thread of its own; the process ends when that has ended. A full disk leaves nothing."""
        state = model.state_dict()  # now: an adapter will rename the modules
        size = sum(weight.numel() * weight.element_size() for weight in state.values())
        if size >= SMALLEST and shutil.disk_usage(_existing(self.path)).free >= _ROOM * size:
            pool = ThreadPoolExecutor(1, thread_name_prefix="jinmaek-kept-base")
            pool.submit(self.write, model, state)
            pool.shutdown(wait=False)
            self.writing = True

    def write(self, model: Any, state: dict[str, torch.Tensor]) -> None:
        """Write ``state`` as ``model``'s checkpoint, under another name until it is whole."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix="draft-", dir=self.path.parent))
        try:
            model.save_pretrained(draft, state_dict=state, max_shard_size=_SHARD, save_original_format=False)
            draft.rename(self.path)
        except OSError:  # a full disk, or another process was faster
            shutil.rmtree(draft, ignore_errors=True)


def kept_base(section: ModelSection, location: Path, commit: str | None, device: torch.device) -> KeptBase | None:
    """Where the base of ``section`` is kept; ``None`` where it is not.

    Args:
        section: the recipe's ``[model]``.
        location: its folder, if it is a local one.
        commit: what the hub resolved its revision to.
        device: bases are kept for GPUs only.
    """
    wanted = section.keep_quantized and section.quantization in ("nf4", "fp4") and not section.trust_remote_code
    if not wanted or device.type != "cuda":
        return None
    source = _files(location) if location.is_dir() else commit
    if source is None:
        return None
    settings = section.model_dump(include={"name", "quantization", "double_quant", "compute_dtype"})
    libraries = [version(name) for name in ("transformers", "bitsandbytes", "torch")]
    key = hashlib.sha256(repr([source, sorted(settings.items()), libraries]).encode()).hexdigest()[:24]
    name = section.name.rstrip("/").rpartition("/")[2]
    return KeptBase(cache_folder() / "bases" / f"{name}-{section.quantization}-{key}")


def cache_folder() -> Path:
    """Where jinmaek keeps what it can make again."""
    own, shared = os.environ.get("JINMAEK_CACHE"), os.environ.get("XDG_CACHE_HOME")
    return Path(own) if own else (Path(shared) if shared else Path.home() / ".cache") / "jinmaek"


def _files(folder: Path) -> list[tuple[str, int, int]]:
    """Name, size and time of the checkpoint's files: another file is another base."""
    paths = [folder / "config.json", *(path for pattern in _WEIGHTS for path in folder.glob(pattern))]
    facts = [(path.name, path.stat()) for path in sorted(paths) if path.exists()]
    return [(name, fact.st_size, fact.st_mtime_ns) for name, fact in facts]


def _existing(path: Path) -> Path:
    return next(parent for parent in path.absolute().parents if parent.exists())
