"""Real logs of many trainers, kept outside the repository: each was looked at by eye."""

import math
from pathlib import Path

import pytest

from jinmaek.core.record import EvaluationRecord, Remark, StepRecord
from jinmaek.ingest import find_logs

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason="the collected logs are not here")

# Training records of each log (evaluations and remarks where there are any).
COUNTS = {
    "003": 20, "005": 6, "008": 2, "011": 2, "014": 12, "015": 8, "016": 4, "018": 4, "020": 14, "022": 5, "023": 8,
    "024": 11, "025": 13, "026": 7, "028": 10, "029": 26, "030": 15, "035": (0, 0, 1), "036": 3, "040": 7,
    "042": (2, 0, 1), "046": 3, "047": 3, "048": 7, "049": 13, "050": 1, "051": (4, 0, 3), "052": 2, "053": 6, "054": 6,
    "057": 3, "061": 2, "064": 5, "066": 1, "067": 37, "069": 14, "072": 2, "073": 3, "074": 5, "077": 1, "078": 1,
    "079": 1, "081": 4, "083": 4, "084": 2, "085": 2, "086": 1, "090": (5, 0, 1), "092": 3, "094": 2, "096": 4, "098": 4,
    "099": 5, "102": 3, "103": 278, "105": 18, "109": 25, "111": 12, "112": 300, "114": (6, 6, 0), "115": (60, 0, 1),
    "117": (60, 0, 1), "120": (60, 0, 1), "121": (60, 0, 1), "122": (60, 0, 1), "124": (60, 0, 1), "125": (60, 0, 1),
    "128": (60, 0, 1), "129": (60, 0, 1), "131": (60, 20, 1),
}  # fmt: skip
# Steps as far as the log says them (first and last), objective, longest run, and the last record's numbers.
VALUES = {
    "005": ((200, 250), "sft", None, {"loss": 2.4566, "grad_norm": math.nan, "lr": 1.9797e-4, "num_steps": 10}),
    "008": ((1, 2), "sft", 160, {"loss_reported": 0.0, "lr": 8e-05}),
    "011": (None, "rl", None, {"loss_reported": 0.0, "grad_norm": 0.4910426002806111}),
    "016": (None, "sft", None, {"loss_reported": 0.0, "lr": 4.9979e-2, "grad_norm": None, "epoch": 0.04}),
    "020": ((0, 13), "sft", 144, {"loss": 1.1681, "epoch": 2.0}),
    "030": (None, "sft", None, {"loss_reported": 1.154, "epoch": 0.7326}),
    "036": ((20, 40), "sft", None, {"loss": math.nan, "loss_scale": 0.0, "lr": 0.001}),
    "042": (None, "sft", 249, {"loss_reported": 0.0, "grad_norm": math.nan}),
    "046": (None, "preference", None, {"loss_reported": 0.6932}),
    "051": ((10, 40), "sft", 100, {"loss_reported": 50.7927, "num_steps": 10}),
    "052": ((4440, 4450), "sft", 9750, {"loss_reported": 0.0, "lr": 2.966079263041303e-05, "num_steps": 10}),
    "053": ((37, 42), "sft", None, {"loss": None, "loss_reported": None, "grad_norm": math.nan}),
    "054": ((113, 118), "sft", None, {"loss": None, "grad_norm": 1.4142135623730951}),
    "061": (None, "sft", None, {"loss_reported": 0.0, "grad_norm": math.nan, "token_accuracy": 0.0, "num_tokens": 256}),
    "067": ((0, 1480), "sft", None, {"loss": 3.1875, "lr": 1.86e-4, "num_steps": 10}),
    "079": ((1, 1), "sft", None, {"loss": 1.344}),
    "083": ((1, 4), "sft", 294, {"loss_reported": 0.0, "grad_norm": 1.414, "token_accuracy": 4.23e-06}),
    "084": ((1, 5), "sft", 17144, {"loss_reported": 12.89, "num_steps": 4}),
    "086": (None, "rl", None, {"loss_reported": 0.0, "grad_norm": math.nan, "lr": 0.0}),
    "090": ((10, 50), "sft", None, {"loss": 1.1788, "grad_norm": 2.361, "lr": 2.45e-06}),
    "092": (None, "sft", None, {"loss_reported": math.nan, "lr": 0.00027248908296943227}),
    "094": ((3383, 3384), "sft", 8000, {"loss": 0.7072597, "loss_scale": 1.0, "grad_norm": 0.741, "seconds": 7.8455}),
    "098": ((3720, 3780), "sft", None, {"loss_reported": 5.222879028320312, "num_steps": 20}),
    "102": (None, "preference", None, {"num_tokens": 537573 - 53461, "token_accuracy": 0.24331121984869242}),
    "103": ((10, 2780), "sft", None, {"loss_reported": 0.0, "grad_norm": None, "num_steps": 10}),
    "131": ((5, 300), "sft", None, {"loss_reported": 0.02920013964176178, "epoch": 37.5}),
}  # fmt: skip


def read(path):
    [source] = find_logs(str(path))
    return source, list(source.items())


def of_kind(items, kind):
    return [item for item in items if isinstance(item, kind)]


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_every_record_of_a_real_log_is_found(name):
    source, items = read(SHARED / "logs" / f"{name}.txt")
    counts = COUNTS[name] if isinstance(COUNTS[name], tuple) else (COUNTS[name], 0, 0)
    assert tuple(len(of_kind(items, kind)) for kind in (StepRecord, EvaluationRecord, Remark)) == counts
    assert source.unread == 0
    steps = [item.step for item in of_kind(items, StepRecord)]
    assert steps == sorted(set(steps))


def test_no_collected_log_is_left_out():
    assert {path.stem for path in (SHARED / "logs").glob("*.txt")} == set(COUNTS)


@pytest.mark.parametrize("name", sorted(VALUES))
def test_the_numbers_of_a_real_log_are_read_as_printed(name):
    source, items = read(SHARED / "logs" / f"{name}.txt")
    steps, objective, max_steps, last = VALUES[name]
    records = of_kind(items, StepRecord)
    assert source.facts.steps_known is (steps is not None)
    assert steps in (None, (records[0].step, records[-1].step))
    assert (source.facts.objective, source.facts.max_steps) == (objective, max_steps)
    for field, value in last.items():
        found = getattr(records[-1], field)
        assert found == value or (math.isnan(value) and math.isnan(found)), field
    assert source.facts.filters_loss is any(record.loss_reported is not None for record in records)


def test_the_founding_runs_lose_their_learning_rate_with_their_loss():
    for name, count in (("run_max_steps_1000", 10), ("run_max_steps_5000", 22)):
        _, items = read(SHARED / "founding" / f"{name}.txt")
        assert len(items) == count
        assert items[-1].loss_reported == 0.0
        assert items[-1].lr == items[-2].lr


def test_a_skipped_step_of_deepspeed_is_a_remark_without_a_record():
    source, [remark] = read(SHARED / "logs" / "035.txt")
    assert (remark.kind, remark.step, source.facts.max_steps) == ("skipped", None, 275)
    assert "4294967296" in remark.text
