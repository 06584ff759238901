"""Pasted excerpts: a few lines of a Trainer console around the fault's beginning, and from the run's middle.

An excerpt is labelled by what its lines hold: healthy before the fault; undetermined where the lines leave out what
the fault shows itself in (``_SHOWN_BY``), so that nobody could name it from them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.diagnosis.cases import UNDETERMINED, Case
from bench.diagnosis.scenario import HEALTHY

Entries = Sequence[dict[str, Any]]


def _evaluations(entries: Entries) -> int:
    return sum("eval_loss" in entry for entry in entries)


_SHOWN_BY: dict[str, Callable[[Entries, dict[str, Any]], bool]] = {
    # A jump needs a line on each side of it.
    "resume-state-lost": lambda lines, label: lines[0]["step"] < label["onset"],
    "not-shuffled": lambda lines, label: any(lines[1]["step"] <= edge <= lines[-2]["step"] for edge in (50, 100)),
    # A wrong start needs the start.
    "bad-labels": lambda lines, label: lines[0]["step"] <= 2 * label["logging_steps"],
    "wrong-forward-at-step-1": lambda lines, label: lines[0]["step"] <= 2 * label["logging_steps"],
    # A warm-up that does not end looks like one that will.
    "warmup-longer-than-run": lambda lines, label: False,
    # Train against evaluation; evaluations against one another, or a gradient of 0.
    "loss-scaled-by-accumulation": lambda lines, label: _evaluations(lines) >= 1,
    "memorisation-overfit": lambda lines, label: _evaluations(lines) >= 2,
    "params-not-updating": lambda lines, label: (
        _evaluations(lines) >= 2 or all(entry.get("grad_norm", 0.0) == 0.0 for entry in lines)
    ),
    # A rise needs its rise.
    "optim-8bit-map-bug": lambda lines, label: lines[-1]["step"] >= label["onset_until"],
}
_ALIKE_IN_PART: dict[str, tuple[str, ...]] = {
    # Lines from behind the onset alone cannot tell since when.
    "nan-masked-scaler-skip": ("scaler-skip-every-step",),
    "scaler-collapse-to-zero": ("scaler-skip-every-step", "nan-masked-scaler-skip"),
    "divergence-to-nan": ("nan-poisoned-weights",),
}


def excerpt_cases(corpus: Path) -> Iterator[Case]:
    """Two excerpts of each Trainer run of the corpus."""
    for path in sorted(corpus.glob("*/trainer-seed*/label.json")):
        label = json.loads(path.read_text("utf-8"))
        name = f"{path.parent.parent.name}/{path.parent.name}"
        yield from _excerpts(path.parent, name, label, corpus / ".excerpts")


def _excerpts(folder: Path, name: str, label: dict[str, Any], out: Path) -> Iterator[Case]:
    """Two excerpts of the run in ``folder``, written to ``out``."""
    history = json.loads((folder / "trainer_state.json").read_text("utf-8"))["log_history"]
    entries = [entry for entry in history if "loss" in entry or "eval_loss" in entry]
    length = 8 + label["seed"] * 2 % 5
    at = next((number for number, entry in enumerate(entries) if entry["step"] >= (label["onset"] or 1)), 0)
    for kind, centre in (("onset", at), ("middle", len(entries) // 2)):
        first = max(0, min(centre - length // 2, len(entries) - length))
        lines = entries[first : first + length]
        path = out / f"{name.replace('/', '-')}-{kind}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(_console_line(entry, modern=label["seed"] % 2 == 1) for entry in lines), "utf-8")
        yield Case("excerpt", f"{name}:{kind}", path, _visible(label, lines), _also(label, lines))


def _visible(label: dict[str, Any], lines: Entries) -> str:
    onset, pathology = label["onset"], str(label["pathology"])
    if pathology == HEALTHY or onset is None:
        return pathology
    if lines[-1]["step"] < onset:
        return HEALTHY
    shown = _SHOWN_BY.get(pathology, lambda lines, label: True)(lines, label)
    return pathology if shown else UNDETERMINED


def _also(label: dict[str, Any], lines: Entries) -> tuple[str, ...]:
    behind = label["onset"] is not None and lines[0]["step"] >= label["onset"]
    return (*label["also"], *(_ALIKE_IN_PART.get(label["pathology"], ()) if behind else ()))


def _console_line(entry: dict[str, Any], *, modern: bool) -> str:
    """A line as transformers 5 prints it (numbers as text), or as 4 did."""
    shown = {key: value for key, value in entry.items() if key not in ("step", "total_flos")}
    if modern:
        return f"{ {key: f'{value:.4g}' if isinstance(value, float) else value for key, value in shown.items()} }\n"
    rounded = {key: round(value, 4) if key == "loss" else value for key, value in shown.items()}
    rounded["epoch"] = round(rounded["epoch"], 2)
    return f"{rounded}\n"
