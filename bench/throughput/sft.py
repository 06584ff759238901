"""What the peers on transformers' Trainer share: the rows, the arguments of TRL's SFTTrainer, and the clock."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.throughput.timing import Clock, parser_of


def sft_parser(doc: str | None) -> argparse.ArgumentParser:
    """The arguments of a peer that packs with SFTTrainer."""
    parser = parser_of(doc)
    parser.add_argument("--tokens", type=int, default=4096, help="tokens of a pack, one pack a step")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--alpha", type=int, default=32)
    parser.add_argument(
        "--targets", nargs="+", default=["query_key_value"], help="names of the modules that get an adapter"
    )
    return parser


def text_rows(path: str) -> Any:
    """The text-only file as a data set."""
    from datasets import Dataset

    return Dataset.from_dict({"text": [json.loads(row)["text"] for row in Path(path).read_text("utf-8").splitlines()]})


def sft_arguments(args: argparse.Namespace, **more: Any) -> Any:
    """A pack a step in bf16, nothing saved; everything that is not named stays TRL's default."""
    import torch
    from trl import SFTConfig

    return SFTConfig(
        output_dir=tempfile.mkdtemp(),
        packing=True,
        max_length=args.tokens,
        per_device_train_batch_size=1,
        gradient_accumulation_steps=1,
        max_steps=args.warmup + args.steps,
        learning_rate=1e-4,
        bf16=True,
        logging_steps=10,
        optim="adamw_torch_fused",
        report_to="none",
        save_strategy="no",
        dataset_text_field="text",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),  # without it the Trainer takes no bf16 there
        **more,
    )


def train_timed(trainer: Any, clock: Clock, args: argparse.Namespace) -> dict[str, Any]:
    """Train and give the figures; a step's tokens are the packs' mean, since the Trainer shuffles them (no padding)."""
    packs = [len(row) for row in trainer.train_dataset["input_ids"]]
    trainer.add_callback(step_callback(clock))
    trainer.train()
    figures = clock.figures([round(sum(packs) / len(packs))] * len(clock.ends), args.warmup)
    return figures | {"packs": len(packs), "attention": getattr(trainer.model.config, "_attn_implementation", None)}


def step_callback(clock: Clock) -> Any:
    """A Trainer's callback that tells ``clock`` of the first step's begin and every step's end."""
    from transformers import TrainerCallback

    class Ticks(TrainerCallback):
        """Passes on what the Trainer tells."""

        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            clock.loaded()

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            clock.step_over()

    return Ticks()


def batch_tokens(lengths: Sequence[int], size: int) -> list[int]:
    """Tokens of each batch of ``size`` rows in order."""
    return [sum(lengths[at : at + size]) for at in range(0, len(lengths), size)]
