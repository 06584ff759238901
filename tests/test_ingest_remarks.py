"""What stands beside the numbers of a printed log, what is counted there, and what is no record."""

from functools import partial

import pytest

from jinmaek.ingest import LogError
from log_files import column, hf, read_text


@pytest.fixture
def read(tmp_path):
    """Reads a text as a log: its source, records, evaluations and remarks."""
    return partial(read_text, tmp_path / "log.txt")


REMARKS = {
    "[INFO] [loss_scaler.py:183] [deepspeed] OVERFLOW! Rank 0 Skipping step. Attempted loss scale: 65536, reducing to 32768": "skipped",
    "Iter 40: SKIPPED non-finite batch (loss 1.23, norm nan) -- weights untouched": "skipped",
    "Exception: Current loss scale already at minimum - cannot decrease scale anymore. Exiting run.": "scale_floor",
    "UserWarning: None of the inputs have requires_grad=True. Gradients will be None": "no_grad_inputs",
    "UserWarning: cuDNN SDPA backward got grad_output.strides() != output.strides(), attempting": "attention_kernel",
    "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB": "out_of_memory",
    "Saving model checkpoint to out/checkpoint-500": "checkpoint",
    "Resuming training from out/checkpoint-500": "resumed",
}  # fmt: skip


@pytest.mark.parametrize("text", REMARKS)
def test_what_is_said_beside_the_numbers(read, text):
    _, records, _, [remark] = read(f"iter 8: loss 1.5, time 2.0ms\n{text}\niter 9: loss 1.25, time 2.0ms\n")
    assert (remark.kind, remark.step, len(records)) == (REMARKS[text], 8, 2)
    if remark.kind in ("checkpoint", "resumed"):
        assert remark.text == "out/checkpoint-500"


def test_megatrons_skipped_iteration_and_its_validation(read):
    text = (
        " iteration      100/    8000 | learning rate: 6.6E-06 | loss scale: 4096.0 | number of skipped iterations:   1 |\n"
        " iteration      101/    8000 | lm loss: 7.3E-01 | loss scale: 2048.0 | number of skipped iterations:   0 |\n"
        " validation loss at iteration 101 | lm loss value: 2.5E+00 | lm loss PPL: 1.2E+01 |\n"
    )
    source, records, [evaluation], [remark] = read(text)
    assert column(records, "loss") == [None, 0.73]
    assert column(records, "optimizer_stepped") == [False, None]
    assert (remark.kind, remark.step, evaluation.loss, source.facts.max_steps) == ("skipped", 100, 2.5, 8000)


@pytest.mark.parametrize(
    "titles", ["| Step | Training Loss | Validation Loss |", "| Training Loss | Step | Validation Loss |"]
)
def test_markdown_with_titles(read, titles):
    first, second = (
        ("| 10 | 1.5 |", "| 20 | No log |") if "| Step | T" in titles else ("| 1.5 | 10 |", "| No log | 20 |")
    )
    source, records, evaluations, _ = read(f"{titles}\n|---|:---:|---|\n{first} 2.5 |\n{second} 2.25 |\n")
    assert (column(records, "loss_reported"), column(evaluations, "loss"), source.unread) == ([1.5], [2.5, 2.25], 0)


def test_deepspeeds_new_loss_scale_is_the_next_records(read):
    text = "OVERFLOW! Rank 0 Skipping step. Attempted loss scale: 65536, reducing to 32768"
    _, records, _, _ = read(f"{hf(1.5)}\n{text}\n{hf(1.25)}\n{hf(1.0)}\n")
    assert column(records, "loss_scale") == [None, 32768.0, None]


def test_tokens_are_counted_from_record_to_record(read):
    lines = [hf(1.5, num_tokens=tokens) for tokens in (1000.0, 1500.0, 2250.0)]
    _, records, _, _ = read("\n".join(lines))
    assert column(records, "num_tokens") == [None, 500, 750]


@pytest.mark.parametrize(
    ("more", "objective"),
    [
        ({}, "sft"),
        ({"rewards/chosen": 0.1, "kl": 0.2}, "preference"),
        ({"reward": 0.1}, "rl"),
        ({"reward": None}, "sft"),
    ],
)
def test_columns_tell_the_objective(read, more, objective):
    source, _, _, _ = read(hf(1.5, **more) + "\n")
    assert source.facts.objective == objective


def test_a_log_that_begins_again_says_so(read):
    steps = [*range(1, 10), 5, 6]
    _, records, _, [remark] = read("".join(f"iter {step}: loss 1.5, time 2.0ms\n" for step in steps))
    assert column(records, "step") == steps
    assert (remark.kind, remark.step) == ("resumed", 4)
    assert records[9].num_steps == 1


@pytest.mark.parametrize(
    "text",
    [
        "TrainingArguments(learning_rate=2e-4, max_steps=100, logging_steps=10, loss_type='x')\n",
        "{'learning_rate': 0.0002, 'epoch': 3, 'optimizer': 'adamw'}\n",
        "The loss was low in step 3 of the plan.\n",
        "lr: 0.1\nepoch: 3\nbatch_size: 4\n",
        "<html><body>404</body></html>\n",
    ],
)
def test_settings_and_prose_are_no_records(read, text):
    with pytest.raises(LogError, match="holds no training records"):
        read(text)


def test_a_torn_dict_is_not_believed(read):
    source, records, _, _ = read(f"{hf(1.5)}\n{{'loss': 1.2345, 'learning_rate': 0.00")
    assert column(records, "loss_reported") == [1.5]
    assert source.unread == 1
