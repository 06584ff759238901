"""Load the fact tables and render their templates.

A fact file is a table of entities and, for each attribute, several families
of templates. Everything is checked while loading, so that a misspelt column
or particle is reported with its file instead of turning up in the corpus.
"""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tiny_ko.josa import PARTICLES, JosaError, attach

DATA_DIR: Final = Path(__file__).parent
"""Where the data files lie unless the caller says otherwise."""

Row = Mapping[str, str]

_PLACEHOLDER: Final = re.compile(r"\{([^{}:]*)(?::([^{}]*))?\}")


class FactError(ValueError):
    """A fact file that does not hold what it should."""


@dataclass(frozen=True)
class Template:
    """A sentence with placeholders, cut into its pieces once."""

    text: str
    pieces: tuple[tuple[str, str, str], ...]
    """(literal, column, particle) in order; an empty column ends the text."""

    @property
    def columns(self) -> set[str]:
        """The columns that the placeholders name."""
        return {column for _, column, _ in self.pieces if column}

    @property
    def literal(self) -> str:
        """The words that stand in every rendering."""
        return "".join(literal for literal, _, _ in self.pieces)

    def render(self, row: Row) -> str:
        """Return the sentence for one entity."""
        parts: list[str] = []
        for literal, column, particle in self.pieces:
            parts.append(literal)
            if column:
                value = row[column]
                parts.append(attach(value, particle) if particle else value)
        return "".join(parts)


@dataclass(frozen=True)
class Attribute:
    """One column and the templates that speak of it."""

    name: str
    statements: tuple[Template, ...]
    dialogue: tuple[tuple[Template, Template], ...]
    questions: tuple[Template, ...]
    answers: tuple[Template, ...]


@dataclass(frozen=True)
class Domain:
    """One fact file: its entities and what is said of them."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    attributes: tuple[Attribute, ...]

    @property
    def key(self) -> str:
        """The column that names the entity."""
        return self.columns[0]


def parse_template(text: str, columns: Sequence[str]) -> Template:
    """Cut a template into pieces; an unknown column or particle is an error."""
    pieces: list[tuple[str, str, str]] = []
    end = 0
    for match in _PLACEHOLDER.finditer(text):
        column, particle = match[1], match[2] or ""
        if column not in columns:
            raise FactError(f"unknown column {column!r} in {text!r}")
        if match[2] is not None and particle not in PARTICLES:
            raise FactError(f"unknown particle {particle!r} in {text!r}")
        pieces.append((text[end : match.start()], column, particle))
        end = match.end()
    pieces.append((text[end:], "", ""))
    if any("{" in literal or "}" in literal for literal, _, _ in pieces):
        raise FactError(f"stray brace in {text!r}")
    return Template(text, tuple(pieces))


def load_domain(path: Path) -> Domain:
    """Read one fact file."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        columns = tuple(raw["columns"])
        domain = Domain(
            name=raw["domain"],
            columns=columns,
            rows=tuple(_row(cells, columns) for cells in raw["rows"]),
            attributes=tuple(_attribute(a, columns) for a in raw["attribute"]),
        )
        _check(domain)
    except KeyError as error:
        raise FactError(f"{path.name}: no {error.args[0]!r}") from error
    except (tomllib.TOMLDecodeError, FactError, JosaError) as error:
        raise FactError(f"{path.name}: {error}") from error
    return domain


def load_domains(data: Path = DATA_DIR) -> tuple[Domain, ...]:
    """Read every fact file under `data`/facts, in the order of their names."""
    paths = sorted((data / "facts").glob("*.toml"))
    if not paths:
        raise FactError(f"no fact files in {data / 'facts'}")
    return tuple(load_domain(path) for path in paths)


def _row(cells: Sequence[object], columns: Sequence[str]) -> Row:
    if len(cells) != len(columns):
        raise FactError(f"{len(columns)} columns, but a row of {list(cells)}")
    values = [str(cell).strip() for cell in cells]
    if not all(values):
        raise FactError(f"empty cell in {values}")
    return dict(zip(columns, values, strict=True))


def _attribute(raw: Mapping[str, Any], columns: Sequence[str]) -> Attribute:
    def family(name: str) -> tuple[Template, ...]:
        if not raw[name]:
            raise FactError(f"no {name} for attribute {raw['name']!r}")
        return tuple(parse_template(text, columns) for text in raw[name])

    if raw["name"] not in columns[1:]:
        raise FactError(f"attribute {raw['name']!r} is no value column")
    return Attribute(
        name=raw["name"],
        statements=family("statements"),
        dialogue=tuple(
            (parse_template(asked, columns), parse_template(told, columns)) for asked, told in raw["dialogue"]
        ),
        questions=family("questions"),
        answers=family("answers"),
    )


def _check(domain: Domain) -> None:
    names = [row[domain.key] for row in domain.rows]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise FactError(f"entities given twice: {', '.join(twice)}")
    for attribute in domain.attributes:
        _check_families(attribute, domain.key)
        every = [*attribute.statements, *attribute.questions, *attribute.answers]
        every += [template for pair in attribute.dialogue for template in pair]
        for template in every:
            for row in domain.rows:
                template.render(row)


def _check_families(attribute: Attribute, key: str) -> None:
    both = {key, attribute.name}
    for template in attribute.statements:
        _require(both <= template.columns, "statement", template)
    for asked, told in attribute.dialogue:
        _require(both <= asked.columns | told.columns, "dialogue", asked)
    for template in attribute.questions:
        # A question that gives its own answer away would measure nothing.
        _require(key in template.columns, "question", template)
        _require(attribute.name not in template.columns, "question", template)
    for template in attribute.answers:
        _require(attribute.name in template.columns, "answer", template)


def _require(holds: bool, family: str, template: Template) -> None:
    if not holds:
        raise FactError(f"wrong placeholders in {family} {template.text!r}")
