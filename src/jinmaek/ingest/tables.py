"""Tables in text: the notebook's ``Step  Training Loss``, markdown, and two nameless columns."""

from __future__ import annotations

import re

from jinmaek.ingest.names import Row, our_name
from jinmaek.ingest.numbers import parse_number

_TITLES = re.compile(
    r"(?:training|validation|train|val|eval)[ _]loss|loss|step|epoch|iteration|grad[ _]norm"
    r"|learning[ _]rate|lr|runtime|samples per second|steps per second|accuracy",
    re.IGNORECASE,
)
_CELLS = re.compile(r"\s*(?:\t|\||\s{2,})\s*")
_FULL_PRECISION = 10  # decimals; a loss is printed with four to six
_MOST_COLUMNS = 64


class Table:
    """The table a log may be in the middle of: knows its columns once it has seen their titles."""

    def __init__(self) -> None:
        self._columns: list[str] = []
        self._nameless: list[tuple[int, str]] = []  # rows of a table without titles, until there are two

    def read(self, text: str) -> list[Row] | None:
        """The rows that ``text`` completes (none for titles and rulers), or ``None`` if it is no part of a table."""
        line = text.strip().removeprefix(">").strip()
        if not line or not (self._columns or line[0] == "|" or "oss" in line):
            return None
        if self._columns and not line.strip("|-:+= "):
            return []
        if line[0].isalpha() and not line.lower().startswith(("step", "epoch", "iter", "train", "loss")):
            self._columns = []
            return None
        return self._data(line) or self._titles(line) or self._nameless_row(line)

    def _titles(self, line: str) -> list[Row] | None:
        if len(line) > 400 or "loss" not in line.lower() or any(sign in line for sign in "{}=,;["):
            return None
        cells = [cell for cell in _CELLS.split(line.strip("| ")) if cell]
        if len(cells) == 1:
            cells = _TITLES.findall(line)
            if re.sub(r"\s+", "", line.lower()) != re.sub(r"\s+", "", "".join(cells).lower()):
                return None
        names = [our_name(cell) for cell in cells]
        if len(cells) < 2 or names[0] not in ("step", "epoch", "weak_step", "loss") or any(map(parse_number, cells)):
            return None
        # The notebook's table is transformers' own, whose filter hides non-finite losses.
        self._columns = ["loss_reported" if name == "loss" else name for name in names]
        return []

    def _data(self, line: str) -> list[Row] | None:
        if not self._columns:
            return None
        cells = _CELLS.split(line.strip("| "))
        if len(cells) == 1:
            cells = line.replace("No log", "-").split()
        if len(cells) != len(self._columns) or len(cells) > _MOST_COLUMNS:
            self._columns = self._columns if line.startswith(("|", "<", "[")) else []
            return None
        row: Row = {}
        for name, cell in zip(self._columns, cells, strict=True):
            number = parse_number(cell.replace(",", ""))
            if name and number is not None:
                row.setdefault(name, number)
        if "weak_step" in row:
            row.setdefault("step", row.pop("weak_step"))
        return [row] if row.keys() & {"step", "epoch"} else None

    def _nameless_row(self, line: str) -> list[Row] | None:
        """``| 37 | 1.6166185140609741 |``: a step, and a gradient norm if it is told to the last digit, else a loss."""
        if not (line.startswith("|") and line.endswith("|")):
            return None
        cells = _CELLS.split(line.strip("| "))
        if len(cells) != 2 or not (cells[0].isascii() and cells[0].isdigit()) or parse_number(cells[1]) is None:
            return None
        step = int(cells[0][:18])
        if self._nameless and step <= self._nameless[-1][0]:
            self._nameless = []
        self._nameless.append((step, cells[1]))
        if len(self._nameless) == 1:
            return []
        fresh = self._nameless if len(self._nameless) == 2 else self._nameless[-1:]
        self._nameless = self._nameless if len(self._nameless) == 2 else [self._nameless[0], self._nameless[-1]]
        return [self._named(*pair) for pair in fresh]

    def _named(self, step: int, text: str) -> Row:
        digits = max(len(cell.partition(".")[2]) for _, cell in self._nameless)
        return {"step": float(step), "grad_norm" if digits >= _FULL_PRECISION else "loss": parse_number(text) or 0.0}
