"""Render the pre-training documents: plain Korean, no instructions.

One pass says every fact about four times: in a paragraph on its entity, in a
list of one attribute over several entities, in a casual dialogue on the
entity and in one that hops between entities. The polite questions and answers
are left out, because answering in that form is what fine-tuning has to teach.
Some documents are in the polite register all the same, so that its endings are
Korean that the model knows.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Final, NamedTuple, TypeVar

from tiny_ko.facts import DATA_DIR, Attribute, Domain, Row, Template, load_domains
from tiny_ko.polite import polite, polite_template

INSTRUCTION_MARK: Final = "### 질문"
"""Text that no pre-training document may contain."""

Item = TypeVar("Item")

_LIST_SIZES: Final = (3, 4, 5, 6, 8)
_DIALOGUE_SIZES: Final = (1, 1, 2, 3, 4, 5)
_MIXED_LIST_SHARE: Final = 0.3
_POLITE_SHARE: Final = 0.3


class Fact(NamedTuple):
    """One attribute of one entity."""

    attribute: Attribute
    row: Row

    def state(self, random: Random, in_polite: bool) -> str:
        """Say the fact in a sentence of written prose."""
        return random.choice(_statements(self.attribute, in_polite)).render(self.row)

    def discuss(self, random: Random) -> str:
        """Say the fact as a casual question and its reply."""
        asked, told = random.choice(self.attribute.dialogue)
        return f"가: {asked.render(self.row)}\n나: {told.render(self.row)}"


def pretraining_documents(seed: int, passes: int, data: Path = DATA_DIR) -> list[str]:
    """Return the documents of `passes` passes, each rendered afresh."""
    domains = load_domains(data)
    prose = prose_documents(data)
    documents: list[str] = []
    for number in range(passes):
        random = Random(f"{seed}/{number}")
        rendered = [*_fact_documents(domains, random), *_in_registers(prose, random)]
        random.shuffle(rendered)
        documents += rendered
    for document in documents:
        if INSTRUCTION_MARK in document:
            raise ValueError(f"instruction format in {document[:80]!r}")
    return documents


def prose_documents(data: Path = DATA_DIR) -> list[str]:
    """Return the paragraphs and dialogues that were written as running text."""
    found: list[str] = []
    for path in sorted((data / "prose").glob("*.txt")):
        text = path.read_text(encoding="utf-8").replace("\r\n", "\n")
        found += [part.strip() for part in text.split("\n\n") if part.strip()]
    return found


def _fact_documents(domains: Sequence[Domain], random: Random) -> Iterator[str]:
    facts: list[Fact] = []
    for domain in domains:
        for row in domain.rows:
            own = [Fact(attribute, row) for attribute in domain.attributes]
            facts += own
            yield _paragraph(own, random)
            if any(fact.attribute.dialogue for fact in own):
                yield _dialogue(own, random)
        yield from _lists(domain, random)
    random.shuffle(facts)
    spoken = [fact for fact in facts if fact.attribute.dialogue]
    for group in _groups(spoken, _DIALOGUE_SIZES, random):
        yield _dialogue(group, random)


def _paragraph(facts: Sequence[Fact], random: Random) -> str:
    shuffled = random.sample(facts, len(facts))
    in_polite = random.random() < _POLITE_SHARE
    return " ".join(fact.state(random, in_polite) for fact in shuffled)


def _dialogue(facts: Sequence[Fact], random: Random) -> str:
    shuffled = random.sample(facts, len(facts))
    spoken = [fact for fact in shuffled if fact.attribute.dialogue]
    return "\n".join(fact.discuss(random) for fact in spoken)


def _lists(domain: Domain, random: Random) -> Iterator[str]:
    for attribute in domain.attributes:
        rows = random.sample(domain.rows, len(domain.rows))
        for group in _groups(rows, _LIST_SIZES, random):
            templates = _statements(attribute, random.random() < _POLITE_SHARE)
            # Most lists keep to one template, as a list in a book would; the
            # rest vary, so that no template is tied to its place in a list.
            if random.random() >= _MIXED_LIST_SHARE:
                templates = (random.choice(templates),)
            lines = [random.choice(templates).render(row) for row in group]
            yield random.choice((" ", "\n")).join(lines)


@cache
def _statements(attribute: Attribute, in_polite: bool) -> tuple[Template, ...]:
    if not in_polite:
        return attribute.statements
    # Some statements turn into an answer of the fine-tuning rows, word for word.
    answers = {template.text for template in attribute.answers}
    found = map(polite_template, attribute.statements)
    return tuple(t for t in found if t.text not in answers) or attribute.statements


def _in_registers(prose: Sequence[str], random: Random) -> Iterator[str]:
    for text in prose:
        # Dialogues have the register of whoever speaks in them.
        is_dialogue = ": " in text.split("\n", 1)[0]
        change = not is_dialogue and random.random() < _POLITE_SHARE
        yield polite(text) if change else text


def _groups(items: Sequence[Item], sizes: Sequence[int], random: Random) -> Iterator[Sequence[Item]]:
    start = 0
    while start < len(items):
        size = random.choice(sizes)
        yield items[start : start + size]
        start += size
