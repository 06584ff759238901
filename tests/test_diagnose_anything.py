"""From bytes to words: nothing that is fed to `jinmaek diagnose` makes it fall over, or be sure of what is not so."""

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jinmaek
from jinmaek.explain import explain
from jinmaek.report import as_json, as_markdown

UNHURRIED = settings(deadline=None, max_examples=150, derandomize=True)
NANS = ["nan", "NaN", "-nan", '"nan"', "NAN", "inf", "Infinity", "-inf", "1e999", "null", "None", "1.#QNAN"]


def healthy_lines(count=40, seed=0):
    """What a sane run of 400 steps prints in a console, lr in full."""
    rng = random.Random(seed)
    return [
        str(
            {
                "loss": round(1.4 + 1.2 / (1 + line) + rng.gauss(0, 0.05), 4),
                "grad_norm": 1.0 + rng.random(),
                "learning_rate": 2e-4 * (1 - line / (count + 1)),
                "epoch": round(line / count, 2),
            }
        )
        for line in range(1, count + 1)
    ]


def told(path):
    """Every diagnosis of ``path``, told in both languages and as JSON on the way."""
    done = jinmaek.diagnose(path)
    for diagnosis in done:
        for lang in ("en", "ko"):
            assert as_markdown(explain(diagnosis, lang))
            json.dumps(as_json(diagnosis, lang), allow_nan=False)
    return done


def sure_of_a_fault(done):
    return [cause.id for each in done for cause in each.causes if cause.confidence == "established"]


@UNHURRIED
@given(data=st.binary(max_size=2000))
def test_any_bytes_are_told_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("any") / "log"
    path.write_bytes(data)
    try:
        done = told(path)
    except jinmaek.LogError as error:
        done = []
        said = error.render("ko")
    else:
        said = "read"
    assert said
    assert not sure_of_a_fault(done)


@st.composite
def damaged(draw):
    """A healthy log that somebody cut, doubled, and pasted noise into."""
    lines = healthy_lines(draw(st.integers(3, 40)), draw(st.integers(0, 5)))
    start = draw(st.integers(0, len(lines) - 1))
    lines = lines[start : draw(st.integers(start + 1, len(lines)))]
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(lines)))
        noise = draw(
            st.sampled_from(["", "> ", "```", "  5%|▌  | 20/400 [00:01<", "Saving model checkpoint to out", "\x1b[31m"])
        )
        lines.insert(place, noise)
    if draw(st.booleans()):
        lines[-1] = lines[-1][: draw(st.integers(0, len(lines[-1])))]
    text = draw(st.sampled_from(["\n", "\r\n", "\n\n"])).join(lines)
    return text.encode(draw(st.sampled_from(["utf-8", "utf-16", "utf-8-sig"])))


@UNHURRIED
@given(data=damaged())
def test_a_damaged_healthy_log_is_never_called_faulty_for_sure(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("cut") / "log.txt"
    path.write_bytes(data)
    try:
        done = told(path)
    except jinmaek.LogError:
        return
    assert not [cause for each in done for cause in each.causes if cause.severity == "error"]


@pytest.mark.parametrize("spelling", NANS)
def test_a_nan_is_a_nan_however_it_is_spelt_and_none_is_none(tmp_path, spelling):
    lines = [f"{{'loss': {1.5 - 0.01 * step}, 'learning_rate': 0.0002, 'epoch': {step / 100}}}" for step in range(20)]
    lines += [f"{{'loss': {spelling}, 'learning_rate': 0.0002, 'epoch': 0.21}}"] * 3
    path = tmp_path / "log.txt"
    path.write_text("\n".join(lines))
    (diagnosis,) = told(path)
    assert (diagnosis.verdict == "faulty") is (spelling not in ("null", "None"))


@pytest.mark.parametrize("lines", [[], [0], list(range(1000))])
def test_a_run_of_nothing_of_one_step_and_of_nan_alone(tmp_path, lines):
    path = tmp_path / "steps.jsonl"
    path.write_text("".join(json.dumps({"step": step + 1, "loss": float("nan"), "lr": 1e-4}) + "\n" for step in lines))
    if not lines:
        with pytest.raises(jinmaek.LogError):
            told(path)
        return
    (diagnosis,) = told(path)
    assert diagnosis.verdict == "faulty"
    assert diagnosis.num_records == len(lines)
    assert diagnosis.weights != "intact"


def test_a_line_of_many_megabytes_is_survived(tmp_path):
    path = tmp_path / "log.txt"
    path.write_text("x" * 20_000_000 + "\n" + "\n".join(healthy_lines()))
    (diagnosis,) = told(path)
    assert diagnosis.verdict == "healthy"
    assert diagnosis.num_records == 40
