"""Look for mistakes in the data files: `python -m tiny_ko.check`.

Loading reports what cannot be rendered at all; this finds what renders but
reads wrongly or spoils the measurement.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tiny_ko.corpus import INSTRUCTION_MARK, prose_documents
from tiny_ko.facts import DATA_DIR, Attribute, Domain, FactError, Template, load_domain
from tiny_ko.instructions import everyday_pairs
from tiny_ko.josa import PARTICLES, attach

# Every spelling of a particle that has more than one, longest first, so that
# a template with the particle typed out can be told from one with a marker.
_SPELLINGS: Final = {form: particle for particle, forms in PARTICLES.items() for form in forms if forms[0] != forms[1]}
_TYPED_PARTICLE: Final = re.compile(rf"^({'|'.join(sorted(_SPELLINGS, key=len, reverse=True))})(?=[\s.,!?'\"]|$)")
_FEWEST_TEMPLATES: Final = 3


def problems(data: Path = DATA_DIR) -> Iterator[str]:
    """Yield what is wrong with the data files."""
    domains: list[Domain] = []
    for path in sorted((data / "facts").glob("*.toml")):
        try:
            domains.append(load_domain(path))
        except FactError as error:
            yield str(error)
    for domain in domains:
        for attribute in domain.attributes:
            where = f"{domain.name}/{attribute.name}"
            for problem in _attribute_problems(domain, attribute):
                yield f"{where}: {problem}"
    yield from _ambiguous(domains)
    yield from _text_problems(data)


def _attribute_problems(domain: Domain, attribute: Attribute) -> Iterator[str]:
    asked = {template.text for template in attribute.questions}
    told = {template.text for template in attribute.answers}
    casual = [template for pair in attribute.dialogue for template in pair]
    polite = [*attribute.questions, *attribute.answers]
    for template in [*attribute.statements, *casual]:
        if template.text in asked | told:
            yield f"the instruction template {template.text!r} is also used in pre-training"
    for template in [*attribute.statements, *casual, *polite]:
        yield from _typed_particles(domain, template)
    for family in (attribute.statements, attribute.dialogue, attribute.questions, attribute.answers):
        if len(family) < _FEWEST_TEMPLATES:
            yield f"only {len(family)} templates in one of its families"
        twice = [str(entry) for entry, count in Counter(family).items() if count > 1]
        if twice:
            yield f"template given twice: {twice[0]}"


def _typed_particles(domain: Domain, template: Template) -> Iterator[str]:
    """Find particles that are typed out and wrong for some entity."""
    for (_, column, marker), (literal, _, _) in zip(template.pieces, template.pieces[1:], strict=False):
        match = _TYPED_PARTICLE.match(literal)
        if marker or not match:
            continue
        typed = match[1]
        for row in domain.rows:
            value = row[column]
            if attach(value, _SPELLINGS[typed]) != value + typed:
                yield f"{template.text!r} reads {value + typed!r}"
                break


def _ambiguous(domains: list[Domain]) -> Iterator[str]:
    """Find entities that two files give different values for one attribute."""
    known: dict[tuple[str, str], tuple[str, str]] = {}
    for domain in domains:
        for row in domain.rows:
            for attribute in domain.attributes:
                name, value = row[domain.key], row[attribute.name]
                other, before = known.setdefault((name, attribute.name), (domain.name, value))
                if before != value:
                    yield f"{name}/{attribute.name} is {before!r} in {other}, {value!r} in {domain.name}"


def _text_problems(data: Path) -> Iterator[str]:
    for document in prose_documents(data):
        if INSTRUCTION_MARK in document:
            yield f"instruction format in the prose: {document[:60]!r}"
    try:
        pairs = everyday_pairs(data)
    except (OSError, ValueError) as error:
        yield str(error)
        return
    counts = Counter(pair["question"] for pair in pairs)
    for question, count in counts.items():
        if count > 1:
            yield f"everyday question asked {count} times: {question!r}"


def main() -> int:
    """Print the problems and return how the process should exit."""
    found = list(problems())
    for problem in found:
        print(problem)
    print(f"{len(found)} problems")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
