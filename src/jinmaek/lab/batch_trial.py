"""One batch size as a process of its own: ``python -m jinmaek.lab.batch_trial ASKED.json ANSWER.json``.

``ASKED.json`` holds ``recipe``, ``size`` and ``limit_bytes`` (on the CPU: memory that may be taken; more is an error
here, and no harm to the machine).
"""

from __future__ import annotations

import gc
import json
import resource
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch

from jinmaek.config import Recipe, recipe_from_dict
from jinmaek.core.errors import JinmaekError
from jinmaek.lab.find_batch import Try, encode_try
from jinmaek.lab.sweep_directory import write_json
from jinmaek.training.batches import Batch
from jinmaek.training.determinism import repeatable
from jinmaek.training.evaluate import evaluate
from jinmaek.training.examples import Example
from jinmaek.training.model import choose_device
from jinmaek.training.session import Session, load_session_data, make_session
from jinmaek.training.step import run_step

STEPS = 3  # the first warms up; memory is at its peak from the second on, when the optimizer's state is there


def try_size(recipe: Recipe, size: int, limit_bytes: int | None) -> Try:
    """Run a few steps on the longest examples and evaluate, as a training of ``recipe`` would."""
    device = choose_device()
    if device.type == "cpu" and limit_bytes is not None:
        resource.setrlimit(resource.RLIMIT_DATA, (limit_bytes, limit_bytes))
    started = time.perf_counter()
    try:
        with repeatable(recipe.train.deterministic, device):
            session = make_session(recipe, load_session_data(recipe))
            seconds, batch = _steps(session)
            evaluated = _longest_first(session.data.held_out)[: recipe.train.batch_size]
            if evaluated:
                evaluate(session.training, evaluated, max_tokens=session.eval_tokens, pad_id=session.pad_id)
            planned = _planned(session)
    except (torch.OutOfMemoryError, MemoryError):
        return Try(size=size, fits=False, out_of_memory=True, on_gpu=device.type == "cuda")
    except RuntimeError as error:
        if "allocate memory" not in str(error) and "bad_alloc" not in str(error):
            raise
        return Try(size=size, fits=False, out_of_memory=True, on_gpu=device.type == "cuda")
    return Try(
        size=size,
        fits=True,
        peak_bytes=_peak_bytes(device),
        seconds_per_step=seconds,
        tokens_per_second=batch.num_tokens * recipe.train.accumulation / seconds,
        seconds=time.perf_counter() - started,
        on_gpu=device.type == "cuda",
        num_examples=len(session.data.train),
        planned=planned,
    )


def _steps(session: Session) -> tuple[float, Batch]:
    """Seconds of a step (median but for the first), and its batch."""
    batch = session.plan.tensors(_fullest(session))
    session.training.model.train()
    seconds = []
    for step in range(1, STEPS + 1):
        started = time.perf_counter()
        outcome = run_step(session.training, step, [batch] * session.recipe.train.accumulation)
        outcome.record()  # waits for the device
        seconds.append(time.perf_counter() - started)
    return median(seconds[1:]), batch


def _fullest(session: Session) -> list[Example]:
    """The microbatch of the recipe that takes the most memory: its longest examples."""
    recipe, examples = session.recipe, _longest_first(session.data.train)
    if not recipe.data.packing:
        return examples[: recipe.train.batch_size]
    chosen, room = [], recipe.train.batch_tokens
    for example in examples:
        if example.num_tokens <= room:
            chosen.append(example)
            room -= example.num_tokens
    return chosen


def _longest_first(examples: Sequence[Example]) -> list[Example]:
    return sorted(examples, key=lambda example: -example.num_tokens)


def _planned(session: Session) -> int | None:
    """The largest size that the planner expects to fit without moving activations to the host; ``None``: no planner."""
    fused, recipe = session.training.fused, session.recipe
    if fused is None or not torch.cuda.is_available():
        return None
    session.training.optimizer.zero_grad(set_to_none=False)
    gc.collect()
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    available = free - (512 << 20)  # what the planner leaves to others
    if fused.memory_limit is not None:
        available = min(available, fused.memory_limit - torch.cuda.memory_allocated())
    per_unit = 1 if recipe.data.packing else _fullest(session)[0].num_tokens
    low, high = 1, 1 << 24
    while high - low > 1:
        middle = (low + high) // 2
        plan = fused.plan(middle * per_unit)
        low, high = (middle, high) if plan.needed_bytes <= available and not plan.offload else (low, middle)
    return low // 64 * 64 if recipe.data.packing else low


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


def main(arguments: Sequence[str]) -> int:
    """Try what the file asks; the exit code is 0 whenever an answer was written."""
    asked: dict[str, Any] = json.loads(Path(arguments[0]).read_text("utf-8"))
    try:
        tried = try_size(recipe_from_dict(asked["recipe"]), asked["size"], asked["limit_bytes"])
    except JinmaekError as error:
        tried = Try(size=asked["size"], fits=False, error={"en": error.render("en"), "ko": error.render("ko")})
    except Exception as error:  # noqa: BLE001 (the search goes on, or tells it)
        traceback.print_exc()
        said = f"{type(error).__name__}: {error}"
        tried = Try(size=asked["size"], fits=False, error={"en": said, "ko": said})
    write_json(Path(arguments[1]), encode_try(tried))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
