"""Any bytes at all: a log or a clear LogError, never a traceback, never a number that is not in the text."""

import math
import re
import time
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jinmaek.core.record import EvaluationRecord, StepRecord
from jinmaek.ingest import LogError, find_logs

UNHURRIED = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
STATE = (
    '{\n  "global_step": 20,\n  "log_history": [\n    {\n      "epoch": 0.5,\n      "loss": 2.5,\n      "learning_rate": 0.0001,\n'
    '      "step": 10\n    },\n    {\n      "epoch": 1.0,\n      "eval_loss": NaN,\n      "step": 10\n    }\n  ],\n  "max_steps": 20\n}\n'
)
LOGS = [
    "{'loss': 2.5, 'grad_norm': nan, 'learning_rate': 0.0001, 'epoch': 0.5}\n" * 3,
    "\r 10%|█         | 10/100 [01:43<15:04, 10.05s/it]{'loss': '0', 'grad_norm': '1.4', 'epoch': '0.02'}\n\r 20%|██        | 20/100 [",
    '{"current_steps": 10, "total_steps": 90, "loss": 2.5, "learning_rate": 1e-4}\n{"current_steps": 20, "loss": NaN}\n',
    "step,loss,lr\n1,2.5,0.1\n2,nan,0.1\n",
    "Step\tTraining Loss\tValidation Loss\n10\t2.5\tNo log\n20\t1.5\t2.5\n",
    "iter 10: loss 2.5, time 102.50ms\nstep 20: train loss 2.5, val loss 1.5\nOVERFLOW! Skipping step. reducing to 32768\n",
    '{"step":1,"loss":1.5,"clip_ratio":1.0,"optimizer_stepped":true,"digest":null,"lr":0.1}\n' * 2,
    "Loss nan   LearningRate 0.001\nEpoch: 0   Global Step: 20   Fp16 Grad Scale:  0\n",
    "| 37 | 1.6166185140609741 |\n| 38 | NaN |\n",
    STATE,
]
NUMBERS = re.compile(r"\d+\.?\d*(?:[eE][-+]?\d+)?|\.\d+(?:[eE][-+]?\d+)?")


def read_all(path):
    """All items of all runs; what is no log gives none."""
    try:
        return [item for source in find_logs(str(path)) for item in source.items()]
    except LogError as error:
        return [] if str(error) and error.render("ko") else None


def said(text):
    """Every number that stands anywhere in the text, also within another."""
    texts = {
        part[start:end]
        for part in NUMBERS.findall(text)
        for start in range(len(part))
        for end in range(start + 1, len(part) + 1)
    }
    found = set()
    for part in texts:
        try:
            found.add(float(part))
        except ValueError:
            continue
    return found


def losses(items):
    for item in items:
        if isinstance(item, StepRecord):
            yield from (item.loss, item.loss_reported, item.grad_norm, item.lr)
        elif isinstance(item, EvaluationRecord):
            yield item.loss


@UNHURRIED
@given(content=st.binary(max_size=400) | st.text(max_size=300).map(lambda text: text.encode("utf-8", "replace")))
def test_any_bytes(tmp_path, content):
    path = tmp_path / "log"
    path.write_bytes(content)
    assert read_all(path) is not None


@st.composite
def mutated(draw):
    """A log with bytes cut out, doubled, swapped for others or for pieces of another log."""
    data = bytearray(
        draw(st.sampled_from(LOGS)).encode(draw(st.sampled_from(["utf-8", "utf-8", "utf-16", "cp949"])), "replace")
    )
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 30)))
        piece = draw(
            st.sampled_from(
                [b"", b"\n", b"\r", b"\0", b"{", b"}", b"'", b'"', b"nan", b"%|", b"null", b"1e999", b"[" * 50]
            )
        )
        other = draw(st.sampled_from(LOGS)).encode()
        data[start:end] = draw(
            st.sampled_from([piece, data[start:end] * 2, other[start : start + 40], draw(st.binary(max_size=3))])
        )
    return bytes(data)


@UNHURRIED
@given(content=mutated())
def test_damaged_logs_give_only_numbers_that_they_hold(tmp_path, content):
    path = tmp_path / "log"
    path.write_bytes(content)
    text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8", "replace").replace(
        "\0", ""
    )
    # A dict may go on after a line's end and a bar.
    known = said(text) | said(re.sub(r"[\r\n]+", "", text)) | {0.0}
    for number in losses(read_all(path)):
        assert number is None or not math.isfinite(number) or abs(number) in known


@pytest.mark.parametrize("log", LOGS)
def test_every_beginning_of_a_log(tmp_path, log):
    path = tmp_path / "log"
    whole = log.encode()
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        for number in losses(read_all(path)):
            assert number is None or not math.isfinite(number) or number in said(log)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp949", "cp949+utf-8"])
@pytest.mark.parametrize("log", LOGS[:1] + LOGS[2:4])
def test_every_encoding(tmp_path, encoding, log):
    path = tmp_path / "log"
    words = "학습을 시작합니다\n" if log.startswith("{'") else ""
    head, _, tail = encoding.partition("+")
    path.write_bytes((words + log).encode(head) + (words + log).encode(tail or head)[: 0 if not tail else None])
    assert [number for number in losses(read_all(path)) if number == 2.5]


LONG = {
    "letters": b"x" * 30_000_000,
    "braces": b"{" * 30_000_000,
    "quotes": b"{'loss" * 4_000_000,
    "brackets": b'[{"loss":' + b"[" * 20_000_000,
    "spaces": b"loss" + b" " * 20_000_000,
    "bars": b"10%|" * 5_000_000,
    "pairs": b"'loss': " * 3_000_000,
    "digits": b'{"loss": ' + b"1" * 20_000_000,
    "words": b"saving checkpoint from resuming skip loss step " * 400_000,
    "returns": b"\r" * 3_000_000,
}


@pytest.mark.parametrize("kind", LONG)
def test_a_huge_line_takes_bounded_memory_and_time(tmp_path, kind):
    path = tmp_path / "log"
    path.write_bytes(b"{'loss': 2.5, 'epoch': 0.5}\n" * (kind != "brackets") + LONG[kind])
    begun = time.monotonic()
    tracemalloc.start()
    items = read_all(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 60e6
    assert time.monotonic() - begun < 60
    assert sum(isinstance(item, StepRecord) for item in items) == (kind != "brackets")


def test_a_huge_line_of_records_is_read_in_pieces(tmp_path):
    path = tmp_path / "log"
    entry = b"{'loss': 2.5, 'grad_norm': 0.5, 'learning_rate': 0.0001, 'epoch': 0.5} "
    path.write_bytes(entry * 50_000)
    assert len(read_all(path)) == 50_000


def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    path = tmp_path / "log"
    path.write_text(LOGS[0])
    monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(LogError, match="Permission denied"):
        find_logs(str(path))
    monkeypatch.setattr("pathlib.Path.iterdir", refuse)
    with pytest.raises(LogError, match="Permission denied"):
        find_logs(str(tmp_path))


def test_a_long_log_is_read_as_it_streams(tmp_path):
    path = tmp_path / "steps.jsonl"
    with path.open("w") as file:
        file.writelines(f'{{"step":{step},"loss":1.5,"lr":0.1}}\n' for step in range(1, 60_000))
    tracemalloc.start()
    count = sum(1 for source in find_logs(str(path)) for _ in source.items())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (count, peak < 3e6) == (59_999, True)
