"""What trainers print: steps, losses and remarks out of text as it is pasted."""

import math
from functools import partial

import pytest

from log_files import column, hf, read_text


@pytest.fixture
def read(tmp_path):
    """Reads a text as a log: its source, records, evaluations and remarks."""
    return partial(read_text, tmp_path / "log.txt")


def bar(step, total):
    return f"{100 * step // total:3d}%|███▌      | {step}/{total} [01:43<15:04, 10.05s/it]"


def test_a_trainer_without_bars_has_no_steps(read):
    source, records, _, _ = read("\n".join([hf(2.5), hf("nan"), hf(0.0, epoch=0.3)]) + "\n")
    assert column(records, "step") == [1, 2, 3]
    assert column(records, "num_steps") == [1, 1, 1]
    assert source.facts.steps_known is False
    assert source.facts.filters_loss is True
    assert math.isnan(records[1].loss_reported)
    assert records[2].loss_reported == 0.0
    assert column(records, "loss") == [None] * 3


def test_bars_that_are_drawn_again_after_a_record_tell_its_step(read):
    lines = [f"\r{bar(0, 40)}"]
    for step in range(1, 41):
        lines.append(f"\r{bar(step, 40)}")
        if step % 10 == 0:
            lines.append(f"\r                    \r{hf(3 - step / 20, epoch=step / 40)}\n\r{bar(step, 40)}")
    source, records, _, _ = read("".join(lines))
    assert column(records, "step") == [10, 20, 30, 40]
    assert column(records, "num_steps") == [10] * 4
    assert (source.facts.max_steps, source.facts.steps_known) == (40, True)


def test_a_bar_out_of_date_is_not_believed(read):
    source, records, _, _ = read(f"{bar(1, 249)}{hf(60.5, epoch=0.12)}\n{hf(0.0, epoch=0.24)}\n{bar(21, 249)}\n")
    assert column(records, "step") == [1, 2]
    assert (source.facts.steps_known, source.facts.max_steps) == (False, 249)


def test_bars_of_evaluations_and_of_data_are_not_the_trainings(read):
    text = "Map: 100%|██████████| 500/500 [00:01<00:00, 300.00 examples/s]\n"
    text += "Truncating train dataset: 100%|██████████| 80/80 [00:01<00:00, 300.00 examples/s]\n"
    for step in (5, 10, 15):
        text += f"{bar(step, 15)}\r{hf(2.0, epoch=step / 15)}\n{bar(step, 15)}\r"
        text += f"{bar(1, 3)}\r{bar(3, 3)}\r{{'eval_loss': 1.5, 'eval_runtime': 3.1, 'epoch': {step / 15}}}\n"
    source, records, evaluations, _ = read(text)
    assert column(records, "step") == [5, 10, 15]
    assert column(evaluations, "step") == [5, 10, 15]
    assert source.facts.max_steps == 15


def test_a_dict_may_be_broken_by_a_bar_and_stand_beside_another(read):
    text = f"{{'loss': 1.25, 'learning_rate': \r{bar(3, 9)}\r1e-4, 'epoch': 0.5}} {{'loss': 1.5, 'epoch': 0.6}}\n"
    _, records, _, _ = read(text)
    assert column(records, "loss_reported") == [1.25, 1.5]
    assert records[0].lr == 1e-4


@pytest.mark.parametrize("prefix", ["> ", "15 ", "\x1b[32m", "2024-01-02 03:04:05,678 INFO  ", "[rank0]: ", "\ufeff"])
def test_what_stands_before_a_dict_is_ignored(read, prefix):
    _, records, _, _ = read(f"```\n{prefix}{hf(1.5)}\n{prefix}{hf(1.25)}\n```\n")
    assert column(records, "loss_reported") == [1.5, 1.25]


@pytest.mark.parametrize(
    ("text", "loss"),
    [("nan", math.nan), ("'nan'", math.nan), ("-nan(ind)", math.nan), ("1.#QNAN", math.nan), ("tensor(nan)", math.nan),
     ("inf", math.inf), ("-inf", -math.inf), ("1e400", math.inf), ("Infinity", math.inf), ("'1.5'", 1.5),
     ("np.float64(1.5)", 1.5), ("tensor(1.5, device='cuda:0')", 1.5), ("0", 0.0), ("null", None), ("None", None)],
)  # fmt: skip
def test_numbers_in_every_spelling(read, text, loss):
    _, records, _, _ = read(f"{{'loss': {text}, 'grad_norm': 0.5, 'epoch': 0.1}}\n")
    assert str(records[0].loss_reported) == str(loss)


def test_a_record_printed_by_logger_and_trainer_counts_once(read):
    text = "".join(
        f"03/12/2024 11:24:33 - INFO - llmtuner.extras.callbacks - "
        f"{{'loss': {loss:.4f}, 'learning_rate': {lr:.4e}, 'epoch': {epoch:.2f}}}\n"
        f"{{'loss': {loss}, 'grad_norm': nan, 'learning_rate': {lr}, 'epoch': {epoch}}}\n"
        for loss, lr, epoch in (
            (1.25, 0.04999871292419044, 0.01),
            (0.0, 0.04999485182928687, 0.02),
            (0.0, 0.0499, 0.03),
        )
    )
    _, records, _, _ = read(text)
    assert column(records, "lr") == [0.04999871292419044, 0.04999485182928687, 0.0499]


def test_equal_lines_of_a_frozen_run_are_records_of_their_own(read):
    _, records, _, _ = read((hf(0.0) + "\n") * 5)
    assert len(records) == 5


def test_the_summary_is_no_step(read):
    _, records, _, remarks = read(f"{hf(1.5)}\n{{'train_runtime': 12.5, 'train_loss': 0.75, 'epoch': 1.0}}\n")
    assert column(records, "loss_reported") == [1.5]
    assert column(remarks, "kind") == ["end"]


def test_newest_first_is_turned_round(read):
    lines = [
        f"{{'loss': '{9 - step}', 'grad_norm': '1.4', 'global_step/max_steps': '{step}/94'}}" for step in (4, 3, 2, 1)
    ]
    source, records, _, _ = read("\n".join(lines))
    assert column(records, "step") == [1, 2, 3, 4]
    assert column(records, "loss_reported") == [8, 7, 6, 5]
    assert source.facts.max_steps == 94


def test_the_notebooks_table(read):
    text = "Step\tTraining Loss\tValidation Loss\n10\t1.523400\tNo log\n20\t1.250000\t1.400000\n30\tNo log\tnan\n"
    source, records, evaluations, _ = read("some words before\n\n" + text)
    assert column(records, "step") == [10, 20]
    assert column(records, "loss_reported") == [1.5234, 1.25]
    assert column(evaluations, "step") == [20, 30]
    assert math.isnan(evaluations[1].loss)
    assert source.facts.filters_loss is True


@pytest.mark.parametrize("gap", ["    ", " | ", " "])
def test_the_notebooks_table_as_it_is_pasted(read, gap):
    rows = [("Step", "Training Loss"), ("10", "1.5234"), ("20", "1.25")]
    _, records, _, _ = read("Hello\n" + "\n".join(gap.join(row) for row in rows) + "\n")
    assert column(records, "loss_reported") == [1.5234, 1.25]


def test_a_table_without_titles_is_of_norms_if_told_to_the_last_digit(read):
    _, norms, _, _ = read("| 37 | 1.6166185140609741 |\n| 38 | NaN |\n| 39 | 1.4 |\n")
    assert column(norms, "step") == [37, 38, 39]
    assert math.isnan(norms[1].grad_norm)
    assert column(norms, "loss") == [None] * 3
    _, losses, _, _ = read("| 37 | 1.6166 |\n| 38 | 1.5 |\n")
    assert column(losses, "loss") == [1.6166, 1.5]


LINES = {
    "torchtune": ("1|10|Loss: 1.25:  10%|█         | 10/100 [00:01<00:09,  1.0it/s]", {"step": 10, "loss": 1.25, "epoch": 1}),
    "torchtune file": ("Step 1 | loss:1.25 lr:2e-05 tokens_per_second_per_gpu:800.1 ", {"step": 1, "loss": 1.25, "lr": 2e-5}),
    "litgpt": ("Epoch 1 | iter 7 step 2 | loss train: 1.344, val: n/a | iter time: 103.3 ms (step)", {"step": 2, "loss": 1.344}),
    "megatron": (
        " iteration     3383/    8000 | consumed samples:       216512 | elapsed time per iteration (ms): 7613.1 | "
        "learning rate: 6.680E-06 | global batch size:    64 | lm loss: 7.334521E-01 | loss scale: 1.0 | grad norm: 0.752 | "
        "number of skipped iterations:   0 | number of nan iterations:   0 |",
        {"step": 3383, "loss": 0.7334521, "lr": 6.68e-6, "loss_scale": 1.0, "grad_norm": 0.752, "seconds": 7.6131},
    ),
    "mlx-lm": (
        "Iter 10: Train loss 2.125, Learning Rate 1.000e-05, It/sec 0.5, Tokens/sec 99.1, Trained Tokens 1234, Peak mem 5.1 GB",
        {"step": 10, "loss": 2.125, "lr": 1e-5},
    ),
    "mmengine": (
        "10/30 22:18:02 - mmengine - INFO - Epoch(train) [2][ 10/735]  lr: 1.9870e-04  eta: 2:46:39  time: 2.8906  "
        "data_time: 0.0042  memory: 10762  loss: 2.7522  grad_norm: nan",
        {"step": 745, "loss": 2.7522, "lr": 1.987e-4, "seconds": 2.8906},
    ),
    "mmengine iterations": (
        "mmengine - INFO - Iter(train) [  10/1000]  lr: 1.0e-04  eta: 0:46:39  time: 1.5000  data_time: 0.0042  loss: 2.75",
        {"step": 10, "loss": 2.75, "seconds": 1.5},
    ),
    "insightface": (
        "Training: 2023-03-14 09:08:47,984-Speed 2183.37 samples/sec   Loss nan   LearningRate 0.001000   Epoch: 0   "
        "Global Step: 30   Fp16 Grad Scale:  0   Required: 144 hours",
        {"step": 30, "lr": 0.001, "loss_scale": 0.0},
    ),
    "nanoGPT": ("iter 10: loss 1.25, time 102.50ms, mfu 12.3%", {"step": 10, "loss": 1.25, "seconds": 0.1025}),
    "own": ("10 | loss 9.375 | lr 3.0e-04 | 13597.70ms", {"step": 10, "loss": 9.375, "lr": 3e-4}),
    "build-nanogpt": ("step    12 | loss: 6.5 | lr 6.0e-04 | norm: 1.5 | dt: 250.00ms", {"step": 12, "grad_norm": 1.5, "seconds": 0.25}),
}  # fmt: skip


@pytest.mark.parametrize("trainer", LINES)
def test_a_line_of_each_trainer(read, trainer):
    line, values = LINES[trainer]
    source, [record], _, _ = read(f"Starting training\n{line}\n")
    assert {name: getattr(record, name) for name in values} == values
    assert record.loss_reported is None
    assert (source.facts.filters_loss, source.facts.steps_known, source.unread) == (False, True, 0)


def test_a_record_broken_after_its_learning_rate(read):
    _, [record], _, _ = read(
        "Speed 21.4 samples/sec   Loss nan   LearningRate 0.001   \nEpoch: 0   Global Step: 20   Fp16 Grad Scale:  0\n"
    )
    assert (record.step, record.loss_scale) == (20, 0.0)


def test_losses_of_an_evaluation_are_no_steps(read):
    text = "step 0: train loss 10.9, val loss 10.8\niter 0: loss 10.95, time 99.00ms\nIter 1: Val loss 2.5, Val took 3.1s\n"
    _, records, evaluations, _ = read(text)
    assert column(records, "loss") == [10.95]
    assert column(evaluations, "loss") == [10.8, 2.5]


def test_steps_that_begin_anew_with_each_epoch_count_on(read):
    text = "".join(f"Epoch {epoch}, Step {step}, Loss: {step + 1.5}\n" for epoch in (1, 2, 3) for step in range(4))
    _, records, _, remarks = read(text)
    assert column(records, "step") == list(range(12))
    assert remarks == []
