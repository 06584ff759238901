"""Rows of a data set, from the hub or from a file, as plain mappings."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files
from itertools import islice
from pathlib import Path
from typing import Any

from jinmaek.config.recipe import BUILTIN_PREFIX, DataSection
from jinmaek.config.relevance import is_local
from jinmaek.core.errors import DataError

Row = Mapping[str, Any]


def read_rows(source: str, section: DataSection) -> list[Row]:
    """All rows of ``source`` (at most ``section.limit``), in their order.

    Raises:
        DataError: the source is missing, broken (with the line), of an unknown kind, or empty.
    """
    rows = _read_local(builtin_path(source)) if is_local(source) else _read_hub(source, section)
    kept = list(islice(rows, section.limit))
    if not kept:
        raise DataError("data.empty", source=source)
    return kept


def builtin_path(name: str) -> Path:
    """The path that ``name`` means; ``builtin:…`` is a file or folder shipped with jinmaek."""
    if not name.startswith(BUILTIN_PREFIX):
        return Path(name).expanduser()
    path = Path(str(files("jinmaek").joinpath("assets"))) / name.removeprefix(BUILTIN_PREFIX)
    if not path.exists():
        raise DataError("data.no_builtin", name=name)
    return path


def _read_local(path: Path) -> Iterator[Row]:
    if not path.is_file():
        raise DataError("data.file_missing", path=path, resolved=path.absolute())
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise DataError("data.unknown_kind", path=path, known=", ".join(sorted(_READERS)))
    try:
        yield from reader(path)
    except UnicodeDecodeError as error:
        raise DataError("data.not_utf8", path=path, error=error) from error
    except OSError as error:
        raise DataError("data.unreadable", path=path, error=error) from error


def _read_json(path: Path) -> Iterator[Row]:
    """A JSON array of objects; a file that starts otherwise is read as JSON lines, whatever its name."""
    text = path.read_text("utf-8-sig")
    if not text.lstrip().startswith("["):
        yield from _read_json_lines(path)
        return
    try:
        rows = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError("data.broken_line", path=path, line=error.lineno, error=error.msg, text="") from error
    for number, row in enumerate(rows, 1):
        yield _object(row, path, number, "data.not_object_item")


def _read_json_lines(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError(
                    "data.broken_line", path=path, line=number, error=error.msg, text=line.strip()[:80]
                ) from error
            yield _object(row, path, number, "data.not_object_line")


def _object(row: Any, path: Path, number: int, key: str) -> Row:
    if not isinstance(row, Mapping):
        raise DataError(key, path=path, number=number, value=repr(row)[:80])
    return row


def _read_separated(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        csv.field_size_limit(sys.maxsize)  # Python's own limit is 128 KiB
        reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        for row in reader:
            if None in row or None in row.values():
                raise DataError(
                    "data.ragged_row", path=path, line=reader.line_num, columns=len(reader.fieldnames or ())
                )
            yield row


def _read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        yield from pyarrow.parquet.read_table(path).to_pylist()
    except pyarrow.ArrowException as error:
        raise DataError("data.unreadable", path=path, error=error) from error


_READERS: Mapping[str, Callable[[Path], Iterator[Row]]] = {
    ".json": _read_json,
    ".jsonl": _read_json_lines,
    ".csv": _read_separated,
    ".tsv": _read_separated,
    ".parquet": _read_parquet,
}


def _read_hub(name: str, section: DataSection) -> Iterator[Row]:
    import datasets

    try:
        loaded = datasets.load_dataset(name, section.subset, split=section.split)
    # The hub's client raises many unrelated kinds (network, authentication, missing, bad split); all mean
    # that this name could not be loaded, and its own words say why.
    except Exception as error:
        raise DataError("data.hub_failed", name=name, error=str(error).strip() or type(error).__name__) from error
    yield from loaded
