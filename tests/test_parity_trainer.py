"""Same model, data, order and settings: the losses of transformers.Trainer, step by step."""

import statistics

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model

from jinmaek.training.step import run_step

STEPS = 50


def trainer_losses(model_dir, examples, tmp_path, pad_id, batch_size, accumulation):
    model = transformers.AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    torch.manual_seed(42)
    lora = LoraConfig(r=4, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, lora)

    def collate(rows):
        width = max(len(row["ids"]) for row in rows)

        def column(name, fill):
            return torch.tensor([row[name] + [fill] * (width - len(row[name])) for row in rows])

        return {
            "input_ids": column("ids", pad_id),
            "labels": column("labels", -100),
            "attention_mask": column("mask", 0),
        }

    rows = [
        {
            "ids": example.input_ids.tolist(),
            "labels": [
                token if learn else -100
                for token, learn in zip(example.input_ids.tolist(), example.learn.tolist(), strict=True)
            ],
            "mask": [1] * example.num_tokens,
        }
        for example in examples
    ]
    trainer = transformers.Trainer(
        model=model,
        train_dataset=rows,
        data_collator=collate,
        args=transformers.TrainingArguments(
            output_dir=str(tmp_path),
            use_cpu=True,
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=accumulation,
            max_steps=STEPS,
            learning_rate=1e-3,
            lr_scheduler_type="cosine",
            warmup_steps=5,
            max_grad_norm=1.0,
            weight_decay=0.01,
            logging_steps=1,
            train_sampling_strategy="sequential",
            remove_unused_columns=False,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            seed=42,
        ),
    )
    trainer.train()
    logs = [entry for entry in trainer.state.log_history if "loss" in entry]
    return [entry["loss"] for entry in logs], [entry["grad_norm"] for entry in logs]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
@pytest.mark.parametrize(("batch_size", "accumulation"), [(4, 1), (2, 2)])
def test_losses_are_those_of_transformers_trainer(make_session, model_dir, tmp_path, batch_size, accumulation):
    session = make_session(
        data={"held_out": 0.0},
        train={"max_steps": STEPS, "batch_size": batch_size, "accumulation": accumulation},
        optim={"schedule": "cosine", "warmup_steps": 5, "weight_decay": 0.01},
    )
    examples = [
        example for step in range(1, STEPS + 1) for micro in session.plan.microbatches(step) for example in micro
    ]
    records = [run_step(session.training, step, session.plan.batches(step)).record() for step in range(1, STEPS + 1)]
    losses, norms = trainer_losses(model_dir, examples, tmp_path, session.pad_id, batch_size, accumulation)
    assert len(losses) == STEPS
    differences = [record.loss - loss for record, loss in zip(records, losses, strict=True)]
    assert max(map(abs, differences)) <= 1e-5
    assert abs(statistics.fmean(differences)) <= 2e-6
    assert [record.grad_norm for record in records] == pytest.approx(norms, rel=1e-3)
    assert losses[-1] < losses[0] - 0.3
