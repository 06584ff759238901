"""What is judged: runs of the corpus, excerpts pasted from them, and the labelled real logs."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.diagnosis.scenario import HEALTHY

Group = Literal["trainer", "jinmaek", "excerpt", "real", "real-excerpt"]
GROUPS: dict[Group, str] = {
    "trainer": "full runs of transformers.Trainer",
    "jinmaek": "full runs of jinmaek",
    "excerpt": "8-12 lines pasted from Trainer's console",
    "real": "real logs of 10 records or more",
    "real-excerpt": "real logs of fewer records",
}
UNDETERMINED = "undetermined"
FULL = 10
SAME_IN_A_LOG: dict[str, tuple[str, ...]] = {
    # What the kernel did is not in a log; that its NaN went into the weights is.
    "attn-kernel-nan": ("nan-poisoned-weights", "masked-nan-undecided"),
    # One optimizer's fault among the others that make a loss climb.
    "optim-8bit-map-bug": ("lr-too-high-divergence",),
    "lr-too-high-divergence": ("divergence-plateau",),
    "divergence-plateau": ("lr-too-high-divergence",),
    "loss-scaled-by-accumulation": ("pad-not-masked",),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One log with its label. ``window``: steps of a log record, 0 for each step; ``None``: onset not judged."""

    group: Group
    name: str
    path: Path
    pathology: str
    also: tuple[str, ...] = ()
    onset: int | None = None
    onset_until: int | None = None
    window: int | None = None

    @property
    def faulty(self) -> bool:
        """Whether something is wrong with the run."""
        return self.pathology not in (HEALTHY, UNDETERMINED)

    @property
    def right(self) -> frozenset[str]:
        """Ids that name the fault rightly."""
        return frozenset({self.pathology, *self.also, *SAME_IN_A_LOG.get(self.pathology, ())})

    def in_window(self, step: int) -> bool:
        """Whether ``step``'s log record is the one that holds the beginning, or next to it; exact for each step."""
        if not self.window:
            return self.onset_error(step) == 0
        first = self.onset or 1
        last = max(first, self.onset_until or first)
        record, earliest, latest = (math.ceil(at / self.window) for at in (step, first, last))
        return earliest - 1 <= record <= latest + 1

    def onset_error(self, step: int) -> int:
        """Steps between ``step`` and the nearest step that would do as the beginning."""
        first = self.onset or 1
        last = max(first, self.onset_until or first)
        return max(first - step, step - last, 0)


def corpus_cases(corpus: Path) -> Iterator[Case]:
    """Each run of the corpus."""
    for path in sorted(corpus.glob("*/*/label.json")):
        label = json.loads(path.read_text("utf-8"))
        folder, name = path.parent, f"{path.parent.parent.name}/{path.parent.name}"
        trainer = folder.name.startswith("trainer")
        yield Case(
            "trainer" if trainer else "jinmaek",
            name,
            folder / "trainer_state.json" if trainer else folder,
            label["pathology"],
            tuple(label["also"]),
            label["onset"],
            label["onset_until"],
            label["logging_steps"] if trainer else 0,
        )


_RECORD = re.compile(r"(?i)loss['\"]?\s*[:=|]?\s*['\"]?(-?\d|nan|inf)|^\s*\d+\s*\|\s*(\d|nan|inf)", re.MULTILINE)


def real_cases(logs: Path) -> Iterator[Case]:
    """The labelled real logs."""
    with (logs / "INDEX.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            path = logs / f"{row['id']}.txt"
            text = path.read_text("utf-8", errors="replace")
            num_records = sum(1 for line in text.splitlines() if _RECORD.search(line))
            group: Group = "real" if num_records >= FULL else "real-excerpt"
            yield Case(group, row["id"], path, row["verdict"])
