"""Make the question-and-answer rows for fine-tuning and for measuring it."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from random import Random
from typing import Final, NamedTuple, NotRequired, TypedDict

from tiny_ko.facts import DATA_DIR, Attribute, Domain, load_domains

EVERYDAY: Final = "일상"
"""The kind of the rows that ask for no fact."""

HELD_OUT_FACTS: Final = 140
HELD_OUT_EVERYDAY: Final = 20
TRAIN_ROWS: Final = 900

# With little data, holding out the full number would leave nothing to train on.
_LARGEST_SHARE: Final = 0.2
# A one-syllable value turns up inside too many other words to prove anything.
_SHORTEST_EXPECTED: Final = 2


class Pair(TypedDict):
    """A question, its answer and what a right answer has to contain."""

    id: str
    question: str
    answer: str
    kind: str
    expects: NotRequired[str]


class Split(NamedTuple):
    """The rows to train on and the rows to measure with."""

    train: list[Pair]
    held_out: list[Pair]


class _Asked(NamedTuple):
    """A fact pair with the entity that decides which side it falls on."""

    entity: str
    pair: Pair
    proves: bool
    """Whether finding the expected value in an answer shows that it is known."""


def instruction_pairs(seed: int, data: Path = DATA_DIR) -> Split:
    """Return the fine-tuning rows, split so that no entity is on both sides.

    Facts are held out by whole entities, everyday rows by their answers. The
    same seed and data give the same split.
    """
    random = Random(f"instructions/{seed}")
    asked = _fact_pairs(load_domains(data), random)
    everyday = everyday_pairs(data)
    random.shuffle(everyday)
    held_entities = _choose_entities(asked)
    held = [a.pair for a in asked if a.entity in held_entities and a.proves]
    train = [a.pair for a in asked if a.entity not in held_entities]
    chosen, rest = _split_everyday(everyday)
    train = train[: max(0, TRAIN_ROWS - len(rest))] + rest
    random.shuffle(train)
    return Split(train, held[:HELD_OUT_FACTS] + chosen)


def everyday_pairs(data: Path = DATA_DIR) -> list[Pair]:
    """Read the everyday questions and answers."""
    pairs: list[Pair] = []
    path = data / "everyday.jsonl"
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            question, answer = row["question"].strip(), row["answer"].strip()
        except (json.JSONDecodeError, KeyError, AttributeError) as error:
            raise ValueError(f"{path.name}:{number}: {error!r}") from error
        if not question or not answer:
            raise ValueError(f"{path.name}:{number}: empty question or answer")
        identity = f"{EVERYDAY}/{number:04d}"
        pairs.append({"id": identity, "question": question, "answer": answer, "kind": EVERYDAY})
    return pairs


def write_pairs(path: Path, pairs: Iterable[Pair]) -> None:
    """Write the rows as JSON lines."""
    lines = (json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs)
    path.write_text("".join(lines), encoding="utf-8")


def read_pairs(path: Path) -> list[Pair]:
    """Read rows that `write_pairs` wrote."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.strip()]


def _fact_pairs(domains: Sequence[Domain], random: Random) -> list[_Asked]:
    found: list[_Asked] = []
    for domain in domains:
        for row in domain.rows:
            entity = row[domain.key]
            count = min(random.choice((1, 2)), len(domain.attributes))
            for attribute in random.sample(domain.attributes, count):
                pair: Pair = {
                    "id": f"{domain.name}/{entity}/{attribute.name}",
                    "question": random.choice(attribute.questions).render(row),
                    "answer": random.choice(attribute.answers).render(row),
                    "kind": domain.name,
                    "expects": row[attribute.name],
                }
                found.append(_Asked(entity, pair, _proves(pair, attribute)))
    random.shuffle(found)
    return found


def _proves(pair: Pair, attribute: Attribute) -> bool:
    """Refuse values that an answer may contain by chance.

    An answer often repeats its question, and every answer holds the words of
    its template. "guk" is inside the name of the dish "auk-guk", and "bandae"
    is inside every answer on opposites.
    """
    expected = pair.get("expects", "")
    given = [pair["question"], *(template.literal for template in attribute.answers)]
    return len(expected) >= _SHORTEST_EXPECTED and not any(expected in text for text in given)


def _choose_entities(asked: Sequence[_Asked]) -> set[str]:
    """Pick entities until their pairs suffice, evenly over the domains."""
    wanted = min(HELD_OUT_FACTS, int(len(asked) * _LARGEST_SHARE))
    proving = [a for a in asked if a.proves]
    chosen: set[str] = set()
    for kind in sorted({a.pair["kind"] for a in proving}):
        own = [a for a in proving if a.pair["kind"] == kind]
        quota = len(own) * wanted / len(proving)
        # `own` is in random order already, so its entities are too.
        for entity in dict.fromkeys(a.entity for a in own):
            if sum(a.entity in chosen for a in own) >= quota:
                break
            chosen.add(entity)
    return chosen


def _split_everyday(pairs: Sequence[Pair]) -> tuple[list[Pair], list[Pair]]:
    wanted = min(HELD_OUT_EVERYDAY, int(len(pairs) * _LARGEST_SHARE))
    chosen = list(pairs[:wanted])
    answers = {pair["answer"] for pair in chosen}
    return chosen, [p for p in pairs[wanted:] if p["answer"] not in answers]
