"""transformers' state files and objects a line, whole and damaged."""

import json
import math

from jinmaek.ingest import find_logs
from log_files import column, split, write

# transformers


def state_text(entries, **around):
    return json.dumps(
        {"epoch": 2.0, "global_step": 40, "log_history": entries, "logging_steps": 10, **around}, indent=2
    )


ENTRIES = [
    {"epoch": 0.5, "grad_norm": 1.5, "learning_rate": 1e-4, "loss": 2.5, "step": 10},
    {"epoch": 1.0, "grad_norm": math.nan, "learning_rate": 1e-4, "loss": 0.0, "step": 20},
    {"epoch": 1.0, "eval_loss": math.nan, "eval_runtime": 3.0, "step": 20},
    {"epoch": 2.0, "grad_norm": math.inf, "learning_rate": 0.0, "loss": "1.25", "step": 40},
    {"epoch": 2.0, "step": 40, "total_flos": 1.0, "train_loss": 1.1, "train_runtime": 9.0},
]


def test_a_trainer_state(tmp_path):
    path = write(
        tmp_path / "state", state_text(ENTRIES, max_steps=40, stateful_callbacks={"x": {"loss": 1, "step": 2}})
    )
    [source] = find_logs(path)
    records, evaluations, _ = split(source)
    assert column(records, "step") == [10, 20, 40]
    assert column(records, "num_steps") == [10, 10, 20]
    assert column(records, "loss_reported") == [2.5, 0.0, 1.25]
    assert math.isnan(records[1].grad_norm)
    assert records[2].grad_norm == math.inf
    assert [(evaluation.step, math.isnan(evaluation.loss)) for evaluation in evaluations] == [(20, True)]
    facts = source.facts
    assert (facts.source, facts.max_steps, facts.logging_steps, facts.steps_per_epoch) == ("trainer_state", 40, 10, 20)
    assert facts.filters_loss is True


def test_part_of_a_trainer_state(tmp_path):
    text = json.dumps(ENTRIES[:4], indent=2)
    [source] = find_logs(write(tmp_path / "log", text[text.index('"grad_norm"') : text.rindex("1.25")]))
    records, _, _ = split(source)
    assert column(records, "step") == [10, 20]
    assert source.unread == 1


def test_an_array_of_entries_on_one_line(tmp_path):
    [source] = find_logs(write(tmp_path / "log.json", json.dumps(ENTRIES)))
    assert column(split(source)[0], "step") == [10, 20, 40]


def test_a_damaged_entry_does_not_hide_the_next(tmp_path):
    text = state_text(ENTRIES).replace('"loss": 0.0', '"loss": ').replace("NaN", "nan")
    [source] = find_logs(write(tmp_path / "log.json", text))
    records, evaluations, _ = split(source)
    assert column(records, "step") == [10, 20, 40]
    assert records[1].loss_reported is None
    assert math.isnan(evaluations[0].loss)


def test_an_output_folder_of_transformers(tmp_path):
    write(tmp_path / "checkpoint-10" / "trainer_state.json", state_text(ENTRIES[:1]))
    write(tmp_path / "checkpoint-20" / "trainer_state.json", state_text(ENTRIES[:3]))
    write(tmp_path / "checkpoint-20" / "training_args.bin", b"\x80\x04never loaded")
    write(tmp_path / "config.json", '{"vocab_size": 30003}')
    write(tmp_path / "README.md", "| Training Loss | Epoch | Step |\n|-|-|-|\n| 1.5 | 1.0 | 10 |\n")
    [source] = find_logs(str(tmp_path))
    items = list(source.items())
    assert [(type(item).__name__, item.step) for item in items] == [
        ("StepRecord", 10), ("Remark", 10), ("StepRecord", 20), ("EvaluationRecord", 20), ("Remark", 20),
    ]  # fmt: skip
    assert source.facts.vocab_size == 30003


# One object a line


def test_llama_factorys_log(tmp_path):
    lines = [
        {
            "current_steps": step,
            "total_steps": 90,
            "loss": loss,
            "eval_loss": None,
            "reward": None,
            "lr": 1e-4,
            "epoch": 0.1,
        }
        for step, loss in ((10, 2.5), (20, 0.0), (30, None))
    ]
    lines.append({"current_steps": 30, "total_steps": 90, "loss": None, "eval_loss": 1.5, "learning_rate": None})
    [source] = find_logs(write(tmp_path / "trainer_log.jsonl", "\n".join(map(json.dumps, lines))))
    records, evaluations, _ = split(source)
    assert column(records, "loss_reported") == [2.5, 0.0, None]
    assert column(evaluations, "loss") == [1.5]
    assert (source.facts.max_steps, source.facts.objective, source.facts.filters_loss) == (90, "sft", True)


def test_anybodys_own_lines(tmp_path):
    text = '{"step": 1, "train_loss": NaN}\n{"step": 2, "train_loss": nan}\n{"iter": 3, "loss": "inf"}\n{"step": 4, "loss": 1.'
    [source] = find_logs(write(tmp_path / "log.jsonl", text))
    records, _, _ = split(source)
    assert [str(record.loss) for record in records] == ["nan", "nan", "inf"]
    assert (source.facts.filters_loss, source.unread) == (False, 1)


def test_rows_of_one_step_are_one_record(tmp_path):
    text = '{"step": 1, "loss": 2.5}\n{"step": 1, "lr": 0.5}\n{"step": 1, "val_loss": 2}\n{"step": 2, "loss": 2.25}\n{"step": -3, "loss": 2}\n'
    [source] = find_logs(write(tmp_path / "log.jsonl", text))
    records, evaluations, _ = split(source)
    assert (column(records, "lr"), column(evaluations, "step"), source.unread) == ([0.5, None], [1], 1)
