"""CSV and TSV with titles: Keras, Lightning, pandas, and W&B's export with a column for each run."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from itertools import chain

from jinmaek.core.record import Item
from jinmaek.ingest.assemble import Assembler
from jinmaek.ingest.lines import LONGEST_LINE, read_lines
from jinmaek.ingest.names import PLAIN, REPORTED, Row, is_transformers, our_name
from jinmaek.ingest.numbers import parse_number
from jinmaek.ingest.source import LogSource, Opener

_DELIMITERS = ",\t;|"
_SEPARATOR = " - "  # W&B's, between a run's name and its metric


def find_titles(lines: Iterable[str]) -> tuple[str, list[str]] | None:
    """The delimiter and the titles, if the first lines are those of a table with a loss or a gradient norm."""
    rows = [line for line in lines if line.strip() and not line.startswith("#")][:2]
    if len(rows) < 2 or "{" in rows[0] or rows[0].lstrip().startswith("|"):  # markdown is read as printed
        return None
    for delimiter in _DELIMITERS:
        titles = _cells(rows[0], delimiter)
        if len(titles) < 2 or len(_cells(rows[1], delimiter)) != len(titles):
            continue
        names = {our_name(_metric(title)) for title in titles}
        if names & {"loss", "eval_loss", "grad_norm"} and not any(map(parse_number, filter(None, titles))):
            return delimiter, titles
    return None


def runs_of(titles: list[str]) -> list[str]:
    """The runs that have columns of their own; one empty name if the table is of one run."""
    runs = {title.rpartition(_SEPARATOR)[0]: None for title in titles if our_name(_metric(title))}
    named = [run for run in runs if run]
    return named or [""]


def read_csv(open_log: Opener, run: str, log: LogSource) -> Iterator[Item]:
    """The items of one run's columns."""
    assembler = Assembler(log)
    with open_log() as stream:
        lines = (line for line in read_lines(stream) if line.strip() and not line.startswith("#"))
        head = [line for _, line in zip(range(2), lines, strict=False)]
        found = find_titles(head)
        if found is None:
            return
        delimiter, titles = found
        columns = _columns(titles, run)
        for line in chain(head[1:], lines):
            cells = _cells(line, delimiter)
            if len(cells) != len(titles) or len(line) >= LONGEST_LINE:
                log.unread += 1
                continue
            assembler.take(_row(cells, columns, log))
            if assembler.ready:
                yield from assembler.ready
                assembler.ready.clear()
    assembler.finish()
    yield from assembler.ready


def _columns(titles: list[str], run: str) -> list[tuple[int, str]]:
    """Places and names of the run's columns and of those that all runs share."""
    names = REPORTED if is_transformers(_metric(title) for title in titles) else PLAIN
    columns = []
    for place, title in enumerate(titles):
        owner, separator, metric = title.rpartition(_SEPARATOR)
        # W&B adds each metric's least and greatest value.
        if (separator and run and owner != run) or metric.endswith(("__MIN", "__MAX")):
            continue
        columns.append((place, names[metric]))
    return [(place, name) for place, name in columns if name]


def _row(cells: list[str], columns: list[tuple[int, str]], log: LogSource) -> Row:
    row: Row = {}
    for place, name in columns:
        cell = cells[place]
        if cell and name not in row:
            number = parse_number(cell)
            if number is not None:
                row[name] = number
            elif name in ("loss", "loss_reported", "step") and cell.strip().lower() not in (
                "none",
                "null",
                "no log",
                "-",
            ):
                log.unread += 1
                return {}
    if "weak_step" in row:
        row.setdefault("step", row.pop("weak_step"))
    # Keras counts epochs and nothing else.
    return row


def _metric(title: str) -> str:
    return title.rpartition(_SEPARATOR)[2]


def _cells(line: str, delimiter: str) -> list[str]:
    text = line.rstrip("\r\n")
    if '"' not in text:
        return text.split(delimiter)
    try:
        return next(csv.reader([text], delimiter=delimiter), [])
    except csv.Error:
        return []
