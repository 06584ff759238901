"""Every number of a run, packed to travel inside a page.

The columns lie behind one another in one block of bytes: float32 where that keeps what is seen (float64 where a
value would become 0 or an infinity), indices as uint32, rising steps as first and stride where they are even. The
bytes of each column are transposed (all first bytes, then all second bytes …), which lets gzip take off a third
more, and the block is gzipped and written in base64. ``numbers.js`` reads it back.
"""

from __future__ import annotations

import base64
import gzip
import json
from bisect import bisect_left
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from jinmaek.report.page.columns import Columns, Series

_LEVEL = 6
_ESCAPED = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


class Packer:
    """Collects columns; ``layout`` entries name their place in the block."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, column: NDArray[Any]) -> dict[str, Any]:
        """Append a column; its type, first byte and length, for the reader."""
        little = np.ascontiguousarray(column, dtype=column.dtype.newbyteorder("<"))
        planes = little.view(np.uint8).reshape(-1, little.itemsize).T.tobytes()
        place = {"type": little.dtype.str[1:], "at": self._size, "length": len(little)}
        self._parts.append(planes)
        self._size += len(planes)
        return place

    def text(self) -> str:
        """The block: gzipped, in base64."""
        return squeezed(b"".join(self._parts))


def squeezed(block: bytes) -> str:
    """``block`` gzipped, in base64."""
    # The time of day stays out: the same run gives the same page.
    return base64.b64encode(gzip.compress(block, _LEVEL, mtime=0)).decode()


def pack(columns: Columns, first: int = 0) -> tuple[dict[str, Any], str]:
    """``columns`` from record ``first`` on as a layout (JSON-ready) and a block (base64 text)."""
    packer = Packer()
    num_records = len(columns.steps)
    steps = np.array(columns.steps[first:], dtype=np.float64)
    skipped = np.array(columns.skipped[bisect_left(columns.skipped, first) :], dtype=np.uint32) - np.uint32(first)
    layout = {
        "first": first,
        "num_records": num_records - first,
        "steps": _progression(steps) or packer.add(steps),
        "series": {
            name: packed
            for name, series in columns.series.items()
            if (packed := _pack_series(series, first, num_records, packer)) is not None
        },
        "skipped": packer.add(skipped),
        "judged": columns.num_judged > 0,
        "eval_steps": packer.add(np.array([step for step, _ in columns.evaluations], dtype=np.float64)),
        "eval_losses": packer.add(np.array([loss for _, loss in columns.evaluations], dtype=np.float64)),
        "resumed": columns.resumed,
        "first_window": columns.first_window,
    }
    return layout, packer.text()


def _pack_series(series: Series, first: int, num_records: int, packer: Packer) -> dict[str, Any] | None:
    values, places = series.numbers(first), series.places(num_records, first)
    if not len(values):
        return None
    packed = {"values": packer.add(narrow(values))}
    return packed if places is None else {**packed, "index": packer.add(places)}


def _progression(steps: NDArray[np.float64]) -> dict[str, float] | None:
    """First and stride of evenly rising steps."""
    if not len(steps):
        return {"start": 0, "stride": 1}
    stride = float(steps[1] - steps[0]) if len(steps) > 1 else 1.0
    if np.array_equal(steps, steps[0] + stride * np.arange(len(steps))):
        return {"start": float(steps[0]), "stride": stride}
    return None


def narrow(values: NDArray[np.float64]) -> NDArray[np.float32] | NDArray[np.float64]:
    """float32 unless a finite value would turn into 0, lose digits below the normal range, or become infinite."""
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    limits = np.finfo(np.float32)
    with np.errstate(over="ignore"):
        short = values.astype(np.float32)
    kept = not len(sizes) or (sizes.max() <= limits.max and sizes.min() >= limits.tiny)
    return short if kept or np.array_equal(short.astype(np.float64), values, equal_nan=True) else values


def script_json(value: Mapping[str, Any]) -> str:
    """``value`` as JSON that cannot end the script element it stands in, whatever text is in it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign, escaped in _ESCAPED.items():
        text = text.replace(sign, escaped)
    return text
