"""A snapshot on disk: one safetensors file, ``docs/captures.md`` tells what is in it.

Written by hand, in the format's own terms, because the library copies every tensor under the interpreter's lock,
which the training beside needs; read by the library.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open

from jinmaek.core.errors import RunError
from jinmaek.training.state import State, StateCopy, unpacked

FORMAT = "jinmaek-capture-1"
ENDING = ".safetensors"
_DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


def write_capture(path: Path, snapshot: StateCopy) -> None:
    """Write ``snapshot`` to ``path``, whole or not at all.

    Raises:
        OSError: the disk does not take it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    try:
        with draft.open("wb") as file:
            _write(file, snapshot.packed())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _write(file: BinaryIO, packed: Mapping[str, Any]) -> None:
    # Large items first: each row then begins at a multiple of its item's size.
    rows = sorted(packed["rows"].items(), key=lambda pair: -pair[1].element_size())
    header: dict[str, Any] = {"__metadata__": {"format": FORMAT, "layout": packed["layout"]}}
    end = 0
    for name, row in rows:
        begin, end = end, end + row.numel() * row.element_size()
        header[name] = {"dtype": _DTYPES[row.dtype], "shape": [row.numel()], "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)
    for _, row in rows:
        file.write(memoryview(row.view(torch.uint8).numpy()))


def read_capture(path: Path) -> State:
    """The state in ``path``, on the host.

    Raises:
        RunError: it cannot be read, or another version of jinmaek wrote it.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            rows = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError) as error:
        raise RunError("run.capture_unreadable", path=path, error=error) from error
    if metadata.get("format") != FORMAT:
        raise RunError("run.capture_format", path=path, found=metadata.get("format"), known=FORMAT)
    return unpacked({"rows": rows, "layout": metadata["layout"]})


def list_captures(folder: Path) -> list[Path]:
    """Whole snapshots in ``folder``, oldest first."""
    return sorted(folder.glob(f"step-*{ENDING}"))


def step_of(path: Path) -> int:
    """The step after which a snapshot was taken."""
    return int(path.stem.removeprefix("step-"))
