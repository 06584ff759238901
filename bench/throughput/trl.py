"""TRL's SFTTrainer on a 4-bit base with packing: at its defaults, or at its best.

    python -m bench.throughput.trl MODEL ROWS.jsonl --tokens 8192 [--checkpointing none]

Its default is gradient checkpointing; the fastest that ran through its first step in two minutes is none, with torch's
attention (``torch_compile`` did not).
"""

from __future__ import annotations

import argparse
import importlib.util
from typing import Any

from bench.throughput.sft import sft_arguments, sft_parser, text_rows, train_timed
from bench.throughput.timing import Clock, report, report_absent


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Train and time it."""
    from peft import LoraConfig
    from transformers import AutoTokenizer
    from trl import SFTTrainer

    adapter = LoraConfig(
        r=args.rank,
        lora_alpha=args.alpha,
        target_modules=args.targets,
        lora_dropout=0.0,
        bias="none",
        task_type="CAUSAL_LM",
    )
    more = {} if args.checkpointing == "default" else {"gradient_checkpointing": False}
    trainer = SFTTrainer(
        model=_base(args),
        processing_class=AutoTokenizer.from_pretrained(args.model),
        train_dataset=text_rows(args.data),
        peft_config=adapter,
        args=sft_arguments(args, **more),
    )
    return train_timed(trainer, Clock(), args) | {"loss_type": trainer.args.loss_type}


def _base(args: argparse.Namespace) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    quantisation = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return AutoModelForCausalLM.from_pretrained(
        args.model,
        quantization_config=quantisation,
        dtype=torch.bfloat16,
        device_map={"": 0 if torch.cuda.is_available() else "cpu"},
        attn_implementation=args.attention,
    )


def main() -> None:
    """Measure and print a line."""
    parser = sft_parser(__doc__)
    parser.add_argument("--checkpointing", choices=["default", "none"], default="default")
    parser.add_argument("--attention", default="sdpa")
    args = parser.parse_args()
    if importlib.util.find_spec("trl") is None:
        report_absent("trl", args)
    else:
        report("trl", args, lambda: measure(args))


if __name__ == "__main__":
    main()
