"""Finds the logs in a file, a folder or standard input, and tells their formats by what is in them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from jinmaek.core.errors import LogError
from jinmaek.ingest.checkpoints import find_state, read_output
from jinmaek.ingest.csv_table import read_csv, runs_of
from jinmaek.ingest.jinmaek_run import read_run, read_steps_alone, read_steps_once
from jinmaek.ingest.sniff import HEAD, Kind, sniff, sniff_titles
from jinmaek.ingest.source import LogSource, Opener, Reader
from jinmaek.ingest.stream import Replayed, opener
from jinmaek.ingest.tensorboard import is_events, read_tensorboard
from jinmaek.ingest.wandb_file import MAGIC

_DEEPEST = 6
_MOST_FILES = 2000  # files of a folder that are looked into
# What lies beside logs, is large and is none.
_NO_LOGS = re.compile(
    r"\.(?:safetensors|bin|pt|pth|ckpt|np[yz]|gguf|onnx|h5|msgpack|parquet|arrow|zip|gz|tar|png|jpe?g|svg|gif|pdf|pyc?"
    r"|ipynb|md|html|css|js|toml|ya?ml|lock|model|so|pkl|tfrecord)",
    re.IGNORECASE,
)


def find_logs(path: str) -> list[LogSource]:
    """All runs whose logs lie at ``path``.

    Args:
        path: a file, a folder with one or several runs, or ``-`` for standard input.

    Raises:
        LogError: nothing is there, it cannot be read, or it holds no training records.
    """
    if path == "-":
        return _in_standard_input()
    try:
        where = Path(path)
        if where.is_dir():
            return _in_folder(where)
        if not where.exists():
            raise LogError("ingest.missing", path=path)
        return _in_file(where, path)
    except OSError as error:
        raise LogError("ingest.unreadable", path=path, error=error.strerror or error) from error
    except ValueError as error:  # a path with a NUL byte
        raise LogError("ingest.unreadable", path=ascii(path), error=error) from error


def _in_standard_input() -> list[LogSource]:
    stream = sys.stdin.buffer
    try:
        head = stream.read(HEAD)
    except OSError as error:
        raise LogError("ingest.unreadable", path="-", error=error.strerror or error) from error
    kind = _kind(head, "-")
    sources = _sources("-", kind, lambda: Replayed.of(head, stream), head, once=True)
    return _only_filled(sources[:1], "-")


def _in_file(path: Path, name: str) -> list[LogSource]:
    with path.open("rb") as stream:
        head = stream.read(HEAD)
    kind = _kind(head, name)
    return _only_filled(_sources(name, kind, opener(path), head), name)


def _kind(head: bytes, name: str) -> Kind:
    if not head.strip():
        raise LogError("ingest.empty", path=name)
    kind = sniff(head)
    if kind is None:
        raise LogError("ingest.binary", path=name)
    return kind


def _sources(name: str, kind: Kind, open_log: Opener, head: bytes, *, once: bool = False) -> list[LogSource]:
    """The runs of one file."""
    if kind.source == "csv":
        runs = runs_of(sniff_titles(head))
        return [
            LogSource(run or name, "csv", partial(read_csv, open_log, run), once=once)
            for run in (runs[:1] if once else runs)
        ]
    reader: Reader
    if kind.source == "jinmaek":
        # Two readings are needed to leave out what a resume made void.
        reader = partial(read_steps_once if once else read_steps_alone, open_log)
    else:
        reader = partial(kind.read, open_log)
    return [LogSource(name, kind.source, reader, once=once)]


def _only_filled(sources: list[LogSource], name: str) -> list[LogSource]:
    filled = [source for source in sources if source.probe()]
    if not filled:
        raise LogError("ingest.no_records", path=name)
    return filled


def _in_folder(folder: Path) -> list[LogSource]:
    found = list(_walk(folder, folder, 0, set()))
    if not found:
        raise LogError("ingest.no_logs", path=folder)
    return found


def _walk(folder: Path, root: Path, depth: int, seen: set[Path]) -> Iterator[LogSource]:
    """The runs in a folder and below; a run's own folder is not searched any further."""
    real = folder.resolve()
    if real in seen or depth > _DEEPEST:
        return
    seen.add(real)
    try:
        entries = sorted(folder.iterdir())[:_MOST_FILES]
    except OSError:
        if depth == 0:
            raise
        return
    whole = _whole_run(folder, entries, str(folder) if folder == root else str(folder.relative_to(root)))
    if whole is not None:
        if _holds(whole):
            yield whole
        return
    files = [entry for entry in entries if entry.is_file() and not _NO_LOGS.fullmatch(entry.suffix)]
    yield from _in_files(files, folder, root)
    if any(file.suffix == ".wandb" for file in files):
        return  # output.log beside it tells the same run once more
    # Links last: W&B's latest-run is one of its neighbours.
    for entry in sorted(entries, key=Path.is_symlink):
        if entry.is_dir() and not entry.name.startswith("."):
            yield from _walk(entry, root, depth + 1, seen)


def _whole_run(folder: Path, entries: list[Path], name: str) -> LogSource | None:
    """The one run that the folder as a whole is: jinmaek's, or an output folder of transformers."""
    if (folder / "steps.jsonl").is_file():
        return LogSource(name, "jinmaek", partial(read_run, folder))
    state = find_state(folder, entries)
    if state is not None:
        return LogSource(name, "trainer_state", partial(read_output, folder, state))
    return None


def _in_files(files: list[Path], folder: Path, root: Path) -> Iterator[LogSource]:
    """The runs in the files of one folder; its event files together are one run, W&B's file is the only one."""
    kept = [file for file in files if file.suffix == ".wandb" and _head(file).startswith(MAGIC)]
    events = [] if kept else [file for file in files if "tfevents" in file.name and is_events(_head(file))]
    if events:
        name = str(folder) if folder == root else str(folder.relative_to(root))
        run = LogSource(name, "tensorboard", partial(read_tensorboard, [opener(file) for file in events]))
        if _holds(run):
            yield run
    for file in kept or [file for file in files if file not in events]:
        try:
            sources = _in_file(file, str(file.relative_to(root)))
        except (LogError, OSError):
            continue  # a file beside the logs need not be one
        yield from sources


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            return stream.read(64)
    except OSError:
        return b""


def _holds(source: LogSource) -> bool:
    try:
        return source.probe()
    except LogError:
        return False
