"""The founding recipe at polyglot-ko's shape with random weights: jinmaek beside transformers.Trainer.

Random weights give honest speed and memory, and losses that can be compared with each other, not quality.

    python bench/founding.py make-model DIR --tokenizer TOKENIZER.json [--layers 40]
    python bench/founding.py make-data ROWS.jsonl OUT.jsonl
    python bench/founding.py jinmaek DIR DATA.jsonl --steps 200
    python bench/founding.py trainer DIR DATA.jsonl --steps 200
    python bench/founding.py repeat DIR DATA.jsonl --steps 20

Each prints one JSON line. ``--plain-memory`` is for a shared GPU on which managed memory is unwelcome.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from founding_inputs import make_data, make_model, plain_memory

from jinmaek import StepRecord, load_recipe, read_steps, train
from jinmaek.config.recipe import Recipe
from jinmaek.pulse.listener import RunListener
from jinmaek.training.determinism import repeatable
from jinmaek.training.model import choose_device
from jinmaek.training.session import Session, load_session_data, make_session
from jinmaek.training.step import run_step

WARMUP_STEPS = 20


def recipe_for(model: str, data: str, steps: int, *settings: str) -> Recipe:
    """The founding recipe, only the model, the data and the number of steps changed."""
    given = [f"model.name={model}", f"data.source={data}", f"train.max_steps={steps}", *settings]
    return load_recipe("koalpaca-polyglot-12.8b", given)


class _Clock(RunListener):
    """When the first step was about to start, and when each ended."""

    def on_ready(self, session: Session, path: Path) -> None:
        self.ready = time.perf_counter()
        self.ends: list[float] = []

    def on_step(self, record: StepRecord) -> None:
        self.ends.append(time.perf_counter())


def run_jinmaek(model: str, data: str, steps: int) -> dict[str, Any]:
    """`jinmaek train` on the founding recipe."""
    clock, started = _Clock(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        result = train(recipe_for(model, data, steps), run_dir=Path(folder) / "run", listener=clock)
        records = read_steps(result.path / "steps.jsonl")
    losses = [record.loss for record in records]
    # Step end to step end, as for the Trainer: with everything that happens between steps.
    seconds = [after - before for before, after in itertools.pairwise(clock.ends)][WARMUP_STEPS - 1 :]
    tokens = [record.num_tokens for record in records[WARMUP_STEPS:]]
    return {
        "stage": "jinmaek",
        "end": result.end,
        "updates": result.num_updates,
        "load_s": round(clock.ready - started, 1),
        **_figures(losses, seconds, tokens),
        "loss_scales": sorted({record.loss_scale for record in records}),
        "update_ratio_last": records[-1].update_ratio,
    }


def run_trainer(model: str, data: str, steps: int) -> dict[str, Any]:
    """The founding script on today's transformers, given the same examples in the same order."""
    import transformers
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    started = time.perf_counter()
    tokenizer, _, plan, _ = load_session_data(recipe_for(model, data, steps))
    examples = [example for step in range(1, steps + 1) for micro in plan.microbatches(step) for example in micro]
    quantisation = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    base = AutoModelForCausalLM.from_pretrained(
        model, quantization_config=quantisation, device_map={"": choose_device()}
    )
    base.gradient_checkpointing_enable()
    base = prepare_model_for_kbit_training(base)
    torch.manual_seed(42)
    tuned = get_peft_model(
        base,
        LoraConfig(r=8, lora_alpha=32, target_modules=["query_key_value"], lora_dropout=0.05, task_type="CAUSAL_LM"),
    )
    tuned.config.use_cache = False
    load_seconds = time.perf_counter() - started

    class Clock(transformers.TrainerCallback):
        """Times of the steps' ends, as the Trainer's own callback sees them."""

        ends: list[float] = []  # noqa: RUF012

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            self.ends.append(time.perf_counter())

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        width = max(len(row["ids"]) for row in rows)
        ids = torch.tensor([row["ids"] + [tokenizer.pad_token_id] * (width - len(row["ids"])) for row in rows])
        mask = torch.tensor([[1] * len(row["ids"]) + [0] * (width - len(row["ids"])) for row in rows])
        return {"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)}

    trainer = transformers.Trainer(
        model=tuned,
        train_dataset=[{"ids": example.input_ids.tolist()} for example in examples],
        data_collator=collate,
        callbacks=[Clock()],
        args=_trainer_arguments(steps),
    )
    trainer.train()
    _wait()
    seconds = [after - before for before, after in itertools.pairwise(Clock.ends)][WARMUP_STEPS - 1 :]
    lengths = [sum(len(ex.input_ids) for ex in examples[at : at + 2]) for at in range(0, len(examples), 2)]
    windows = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    figures = _figures([], seconds, lengths[WARMUP_STEPS:])
    return {
        "stage": "trainer",
        "load_s": round(load_seconds, 1),
        **figures,
        "windows": [round(w, 4) for w in windows],
    }


def _trainer_arguments(steps: int) -> Any:
    """The founding script's arguments; the order is the data set's, so that both trainers see the same batches."""
    import transformers

    return transformers.TrainingArguments(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=2,
        gradient_accumulation_steps=1,
        max_steps=steps,
        learning_rate=1e-4,
        fp16=True,
        logging_steps=10,
        optim="paged_adamw_8bit",
        report_to="none",
        save_strategy="no",
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        disable_tqdm=True,
    )


def _figures(losses: list[Any], seconds: list[Any], tokens: list[Any]) -> dict[str, Any]:
    windows = [statistics.fmean(losses[at : at + 10]) for at in range(0, len(losses), 10)]
    memory = torch.cuda.max_memory_allocated() / 2**30 if torch.cuda.is_available() else None
    return {
        "s_per_step_median": round(statistics.median(seconds), 4),
        "s_per_step_mean": round(statistics.fmean(seconds), 4),
        "tokens_per_s": round(sum(tokens) / sum(seconds)),
        "peak_gib": memory and round(memory, 2),
        "windows": [round(window, 4) for window in windows],
    }


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def run_repeat(model: str, data: str, steps: int) -> dict[str, Any]:
    """The same run twice: are all digests the same, padded and packed?"""
    packed = ("data.packing=true", "data.max_length=1024", "train.batch_size=", "train.batch_tokens=2048")
    found: dict[str, Any] = {"stage": "repeat", "steps": steps}
    for name, settings in (("padded", ()), ("packed", packed)):
        recipe = recipe_for(model, data, steps, *settings)
        runs = [_digests(recipe, steps) for _ in range(2)]
        found[name] = {"identical": runs[0] == runs[1], "last": runs[0][-1]}
    return found


def _digests(recipe: Recipe, steps: int) -> list[str | None]:
    with repeatable(True, choose_device()):
        session = make_session(recipe, load_session_data(recipe))
        session.training.model.train()
        numbers = range(1, steps + 1)
        return [run_step(session.training, step, session.plan.batches(step)).record().digest for step in numbers]


def main() -> None:
    """Run one stage and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage")
    parser.add_argument("first")
    parser.add_argument("second", nargs="?")
    parser.add_argument("--tokenizer", default="")
    parser.add_argument("--layers", type=int, default=40)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--plain-memory", action="store_true")
    args = parser.parse_args()
    stages = {
        "jinmaek": run_jinmaek,
        "trainer": run_trainer,
        "repeat": run_repeat,
    }
    if args.stage == "make-model":
        found = make_model(args.first, args.tokenizer, args.layers)
    elif args.stage == "make-data":
        found = make_data(args.first, args.second)
    else:
        if args.plain_memory:
            plain_memory()
        found = stages[args.stage](args.first, args.second, args.steps)
        found["gpu"] = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
