"""Unsloth on its own compiled path with packing, dropout 0 and torch's attention: at its defaults, or at its best.

    python -m bench.throughput.unsloth MODEL ROWS.jsonl --tokens 8192 [--checkpointing none|true|unsloth]

Its default is its own checkpointing, which moves activations to the host; its fastest is none. A Llama goes through
``FastLanguageModel`` (its hand-written kernels), anything else through ``FastModel`` (its compiler).
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
from pathlib import Path
from typing import Any

from bench.throughput.sft import sft_arguments, sft_parser, text_rows, train_timed
from bench.throughput.timing import Clock, report, report_absent

CHECKPOINTING: dict[str, bool | str] = {"none": False, "true": True, "unsloth": "unsloth"}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Train and time it."""
    # Read when it is imported. Statistics would ask the network; without logits its fused loss is used.
    os.environ.update(UNSLOTH_DISABLE_STATISTICS="1", UNSLOTH_RETURN_LOGITS="0")
    import unsloth  # before everything that it patches
    from trl import SFTTrainer

    checkpointing = CHECKPOINTING[args.checkpointing]
    model, tokenizer = _tuned(unsloth, args, checkpointing)
    trainer = SFTTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=text_rows(args.data),
        args=sft_arguments(args, gradient_checkpointing=bool(checkpointing)),
    )
    return train_timed(trainer, Clock(), args)


def _tuned(unsloth: Any, args: argparse.Namespace, checkpointing: bool | str) -> tuple[Any, Any]:
    import torch

    is_llama = json.loads((Path(args.model) / "config.json").read_text("utf-8"))["model_type"] == "llama"
    loader = unsloth.FastLanguageModel if is_llama else unsloth.FastModel
    model, tokenizer = loader.from_pretrained(
        args.model, max_seq_length=args.tokens, load_in_4bit=True, dtype=torch.bfloat16, full_finetuning=False
    )
    tuned = loader.get_peft_model(
        model,
        r=args.rank,
        lora_alpha=args.alpha,
        lora_dropout=0,
        bias="none",
        target_modules=args.targets,
        use_gradient_checkpointing=checkpointing,
        **({} if is_llama else {"finetune_vision_layers": False}),
    )
    return tuned, tokenizer


def main() -> None:
    """Measure and print a line."""
    parser = sft_parser(__doc__)
    parser.add_argument("--checkpointing", choices=list(CHECKPOINTING), default="unsloth")
    args = parser.parse_args()
    if importlib.util.find_spec("unsloth") is None:
        report_absent("unsloth", args)
    else:
        report("unsloth", args, lambda: measure(args))


if __name__ == "__main__":
    main()
