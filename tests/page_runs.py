"""Run directories made by hand, for the tests of the page: odd ones, long ones, hostile ones."""

import json
import math
import random
from pathlib import Path

from jinmaek.core.codec import dump_line
from verdicts import OVERFLOW

HOSTILE = "</script><img src=x onerror=\"document.title='owned'\">{{7*7}}<b>&amp;"


def row(step, **given):
    values = {
        "step": step, "loss": 3.0 / math.sqrt(step), "grad_norm": 1.0, "clip_ratio": 1.0, "lr": 1e-4, "num_tokens": 100,
        "num_loss_tokens": 50, "seconds": 0.5, "optimizer_stepped": True, "loss_scale": None, "update_ratio": 1.0,
    }  # fmt: skip
    return values | given


def write(folder: Path, rows, events=(), manifest=None, verdict=None):
    folder.mkdir(parents=True)
    facts = {
        "name": folder.name, "recipe": {"optim": {"lr": 1e-4}}, "max_steps": 100, "versions": {"torch": "2.13.0"},
        "settings": {"optim": {"lr": 1e-4, "name": "adamw"}}, "fingerprints": {"data": "d1"},
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(facts | (manifest or {})), "utf-8")
    (folder / "steps.jsonl").write_text("".join(dump_line(one) + "\n" for one in rows), "utf-8")
    (folder / "events.jsonl").write_text("".join(dump_line(one) + "\n" for one in events), "utf-8")
    if verdict is not None:
        (folder / "captures").mkdir()
        name = f"verdict-{verdict.step:08d}.json"
        (folder / "captures" / name).write_text(json.dumps(verdict.as_dict(), ensure_ascii=False), "utf-8")
    return folder


def ordinary(folder, steps=120, seed=0, **given):
    """Falls with noise; evaluations, samples, an end."""
    rng = random.Random(seed)
    rows = [
        row(
            step,
            memory_bytes=10**10 + 10**7 * min(step, 50),
            loss=2 + math.exp(-step / 30) + rng.gauss(0, 0.05),
            grad_norm=abs(rng.gauss(1, 0.1)),
            lr=1e-4 * (1 - step / 200),
        )
        for step in range(1, steps + 1)
    ]
    events = [
        {"event": "evaluation", "step": 0, "loss": 3.1},
        {"event": "sample", "question": "수도는?", "answer": "모름", "trained": False},
        {"event": "evaluation", "step": steps, "loss": 2.0},
        {"event": "sample", "question": "수도는?", "answer": "서울", "trained": True},
        {"event": "end", "end": "completed", "num_steps": steps},
    ]
    return write(folder, rows, events, **given)


def broken(folder, onset=80):
    """fp16: from ``onset`` on every step overflows, the scale halves, nothing is applied; and it was proved."""
    rows = [row(step, loss=2 + 1 / step, loss_scale=65536.0, lr=1e-4) for step in range(1, onset)]
    rows += [
        row(
            step,
            loss=math.nan,
            grad_norm=math.nan,
            loss_scale=2.0 ** (16 - step + onset),
            optimizer_stepped=False,
            update_ratio=None,
        )
        for step in range(onset, onset + 20)
    ]
    return write(folder, rows, verdict=OVERFLOW)


def odd(folder):
    """None, NaN, the infinities and 0, each for itself."""
    losses = [3.0, 2.9, None, 2.8, math.nan, 2.7, math.inf, 2.6, -math.inf, 2.5, 0.0, 2.4]
    rows = [row(step, loss=loss, grad_norm=loss) for step, loss in enumerate(losses, 1)]
    return write(folder, rows)


def nothing_but_nan(folder, steps=40):
    rows = [
        row(step, loss=math.nan, grad_norm=math.nan, optimizer_stepped=False, loss_scale=65536.0, update_ratio=None)
        for step in range(1, steps + 1)
    ]
    return write(folder, rows)


def hostile(folder):
    """Every text that a run can hold tries to break out of the page."""
    events = [
        {"event": "sample", "question": HOSTILE, "answer": HOSTILE, "trained": True},
        {"event": "end", "end": HOSTILE, "num_steps": 3},
    ]
    manifest = {
        "name": HOSTILE, "recipe": {"data": {"source": HOSTILE, HOSTILE: HOSTILE}}, "kernels": HOSTILE,
        "settings": {"data": {"source": HOSTILE, HOSTILE: 1}}, "versions": {"torch": HOSTILE}, "command": [HOSTILE],
    }  # fmt: skip
    return write(folder, [row(step) for step in range(1, 4)], events, manifest)
