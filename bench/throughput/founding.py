"""The founding script on today's transformers: batch 2, fp16, paged 8-bit AdamW, activation checkpointing.

    python -m bench.throughput.founding MODEL DATA.jsonl

It is ``run_trainer`` of ``bench/founding.py`` as it stands, with a clock in its Trainer. The paged optimizer's state
lies in ordinary memory, since managed memory is unwelcome on a shared GPU.
"""

from __future__ import annotations

import argparse
from typing import Any
from unittest.mock import patch

from bench.throughput.sft import batch_tokens, step_callback
from bench.throughput.timing import Clock, parser_of, report


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Run it with a Trainer that is watched."""
    import founding
    import transformers
    from founding_inputs import plain_memory

    clock = Clock()
    lengths: list[int] = []

    class Watched(transformers.Trainer):
        """Notes the rows it is given, in the order it takes them, and tells the clock."""

        def __init__(self, **given: Any) -> None:
            lengths.extend(len(row["ids"]) for row in given["train_dataset"])
            super().__init__(**given | {"callbacks": [*given["callbacks"], step_callback(clock)]})

    plain_memory()
    # By name: `import transformers` may give the module that its lazy one has replaced by then.
    with patch("transformers.Trainer", Watched), patch.object(founding, "WARMUP_STEPS", args.warmup):
        founding.run_trainer(args.model, args.data, args.warmup + args.steps)
    return clock.figures(batch_tokens(lengths, 2), args.warmup)


def main() -> None:
    """Measure and print a line."""
    args = parser_of(__doc__).parse_args()
    report("founding", args, lambda: measure(args))


if __name__ == "__main__":
    main()
