"""What the quickstart teaches: held-out loss and held-out questions answered rightly, before and after, by seed.

    python -m bench.quickstart [--seeds 0 1 2]

A question counts as right when the answer holds the fact's value (``expects`` in held_out.jsonl). The commonest
value of each kind would answer about a tenth of them. Prints that guess and one
JSON line a seed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from tiny_ko.answers import count_right
from tiny_ko.instructions import read_pairs

from jinmaek import RunListener, load_recipe, train
from jinmaek.training.session import Session
from jinmaek.training.sources import builtin_path


class _Keep(RunListener):
    """Keeps the session, and counts right answers before the first step."""

    def on_ready(self, session: Session, path: Path) -> None:
        self.session = session
        self.before = self.count()

    def count(self) -> tuple[int, int]:
        """Right answers of the model as it is now."""
        model, tokenizer = self.session.training.model, self.session.tokenizer
        pairs = read_pairs(builtin_path("builtin:tiny-ko/held_out.jsonl"))
        right, total = count_right(model, tokenizer, pairs, str(self.session.training.device))
        model.train()
        return right, total


def commonest_right() -> int:
    """Held-out questions that the commonest trained value of their kind and attribute would answer."""
    values: dict[str, Counter[str]] = defaultdict(Counter)
    for pair in read_pairs(builtin_path("builtin:tiny-ko/train.jsonl")):
        if expected := pair.get("expects"):
            values[_attribute(pair["id"])][expected] += 1
    held_out = read_pairs(builtin_path("builtin:tiny-ko/held_out.jsonl"))
    guesses = {attribute: counted.most_common(1)[0][0] for attribute, counted in values.items()}
    return sum(guesses.get(_attribute(pair["id"])) == pair["expects"] for pair in held_out if pair.get("expects"))


def _attribute(name: str) -> str:
    kind, _, rest = name.partition("/")
    return f"{kind}/{rest.rpartition('/')[2]}"


def measure(seed: int) -> dict[str, Any]:
    """One quickstart with this seed."""
    keep = _Keep()
    with tempfile.TemporaryDirectory() as folder:
        recipe = load_recipe("quickstart", [f"train.seed={seed}"])
        result = train(recipe, run_dir=Path(folder) / "run", listener=keep)
    return {
        "seed": seed,
        "held_out_loss": [result.held_out_before, result.held_out_after],
        "right_before": keep.before,
        "right_after": keep.count(),
        "seconds_in_steps": round(result.seconds, 1),
    }


def main() -> None:
    """Measure each seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    print(json.dumps({"commonest_value_right": commonest_right()}), flush=True)
    for seed in parser.parse_args().seeds:
        print(json.dumps(measure(seed)), flush=True)


if __name__ == "__main__":
    main()
