"""``jinmaek.train`` as users get it: recorded, with snapshots.

    python -m bench.throughput.jinmaek MODEL DATA.jsonl [--recipe NAME] [--set section.key=value]...

``--set`` changes the recipe; an empty value takes a key out of it.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.throughput.timing import Clock, parser_of, report


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Train and time it."""
    from founding_inputs import plain_memory

    from jinmaek import load_recipe, read_steps, train

    given = [f"model.name={args.model}", f"data.source={args.data}", f"train.max_steps={args.warmup + args.steps}"]
    recipe = load_recipe(args.recipe, [*given, *args.set])
    plain_memory()
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        result = train(recipe, run_dir=Path(folder) / "run", listener=_listener(clock))
        if result.end != "completed":
            raise RuntimeError(result.sentence("en"))
        records = read_steps(result.path / "steps.jsonl")
        manifest = json.loads((result.path / "run.json").read_text("utf-8"))
    figures = clock.figures([record.num_tokens or 0 for record in records], args.warmup)
    return figures | {"kernels": manifest.get("kernels"), "determinism": manifest.get("determinism")}


def _listener(clock: Clock) -> Any:
    from jinmaek import RunListener

    class Ticks(RunListener):
        """Tells the clock. A record comes while the next step runs, when its numbers are there: no waiting here."""

        asked = 0

        def on_ready(self, *args: Any) -> None:
            clock.loaded()

        def stop_reason(self) -> None:
            """Asked before each step: before the second the first is over, its record is not there yet."""
            self.asked += 1
            if self.asked == 2:
                clock.first_step_over()

        def on_step(self, *args: Any) -> None:
            clock.ends.append(time.perf_counter())

    return Ticks()


def main() -> None:
    """Measure and print a line."""
    parser = parser_of(__doc__)
    parser.add_argument("--recipe", default="koalpaca-polyglot-12.8b")
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value")
    args = parser.parse_args()
    report("jinmaek", args, lambda: measure(args))


if __name__ == "__main__":
    main()
