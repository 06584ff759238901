"""Real trainings of tiny-ko whose limit, or whose difference, is known by how they were made."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

import jinmaek
from jinmaek.comparison import compare_paths

SETTINGS = (
    "samples.questions=", "train.checkpoint_every=0", "capture.every=0", "train.eval_every=40", "train.max_steps=160",
    "optim.warmup_steps=0", "train.accumulation=2", "train.batch_size=4",
)  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A training: settings laid over the common ones, what truly limits it, and what of the optimizer is broken."""

    truth: str
    settings: tuple[str, ...]
    damping: float = 1.0


CASES = {
    "reference": Case("nothing: it improves", ()),
    "low": Case("lr a hundred times too low", ("optim.lr=2e-5",)),
    "noisy": Case(
        "noise: batch of 1 + 1, constant lr", ("train.batch_size=1", "optim.schedule=constant", "optim.lr=4e-3")
    ),
    "broken": Case("an optimizer whose updates are a thousandth", (), 1e-3),
    "repeated": Case("memory: 24 rows again and again", ("data.limit=24", "optim.schedule=constant")),
}


def print_runs(out: Path, num_seeds: int) -> None:
    """Train what is not there yet, and print what is said of each run and of pairs of them."""
    torch.set_num_threads(1)
    print("| run | truth | named, by seed | noise scale, tokens (a step's) | held-out |")
    print("| --- | --- | --- | --- | --- |")
    for name, case in CASES.items():
        found = []
        for seed in range(num_seeds):
            _train(case, seed, out / f"{name}-{seed}")
            (diagnosis,) = jinmaek.diagnose(out / f"{name}-{seed}")
            assert diagnosis.limits is not None
            found.append(diagnosis.limits)
        named = ", ".join(each.limiting + (f" ({each.finding})" if each.finding else "") for each in found)
        scales = ", ".join(f"{each.facts.get('noise_scale', float('nan')):.3g}" for each in found)
        held_out = ", ".join(f"{each.facts['held_out']:.3f}" for each in found)
        batch = found[0].facts.get("batch_tokens", 0)
        print(f"| {name} | {case.truth} | {named} | {scales} ({batch:.0f}) | {held_out} |", flush=True)
    print()
    print("| A | B | outcome | held-out B − A | interval | within ±0.01 |")
    print("| --- | --- | --- | --- | --- | --- |")
    pairs = [(f"reference-{a}", f"reference-{b}") for a, b in combinations(range(num_seeds), 2)][:3]
    pairs += [("reference-0", f"{name}-0") for name in CASES if name not in ("reference", "repeated")]
    for first, other in pairs:
        pair = compare_paths([str(out / first), str(out / other)], margin=0.01).pairs[0]
        decided = pair.decided
        assert decided is not None
        interval = f"{decided.low:+.4f} … {decided.high:+.4f}"
        print(f"| {first} | {other} | {pair.outcome} | {decided.value:+.4f} | {interval} | {pair.equivalence} |")


def _train(case: Case, seed: int, path: Path) -> None:
    if (path / "run.json").exists():
        return
    started = time.perf_counter()
    recipe = jinmaek.load_recipe("quickstart", [*SETTINGS, *case.settings, f"train.seed={seed}"])
    with ExitStack() as stack:
        if case.damping != 1.0:
            # jinmaek refuses such an optimizer before step 1; here it must train with it.
            stack.enter_context(patch("jinmaek.pulse.run.require_sound"))
            stack.enter_context(_damped(case.damping))
        jinmaek.train(recipe, run_dir=path)
    print(f"<!-- {path.name}: {time.perf_counter() - started:.0f} s -->", flush=True)


@contextmanager
def _damped(factor: float) -> Iterator[None]:
    """AdamW whose second moments are too large: its updates are ``factor`` of what they should be."""
    step = torch.optim.AdamW.step

    def damped(self: Any, closure: Any = None) -> Any:
        before = [[weight.detach().clone() for weight in group["params"]] for group in self.param_groups]
        done = step(self, closure)
        with torch.no_grad():
            for group, kept in zip(self.param_groups, before, strict=True):
                for weight, old in zip(group["params"], kept, strict=True):
                    weight.copy_(old + factor * (weight - old))
        return done

    with patch.object(torch.optim.AdamW, "step", damped):
        yield
