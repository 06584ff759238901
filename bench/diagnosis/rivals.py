"""The rivals from PyPI, each asked as its README says, with its defaults.

All get a ``trainer_state.json`` (other logs are converted to one), but runmedic, which reads console text itself,
gets that where there is any, and trainpulse, which is a library, gets ``Monitor().log`` for each record. A finding of
warning or worse counts as "found". finetune-doctor's ``no_eval`` and ``few_evals`` and runmedic's data-loading
checks say nothing on whether the run is sick and count neither way. ``_MEANS`` is generous: a code that names the
symptom of several faults counts as right for all of them.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bench.diagnosis.convert import as_trainer_state
from bench.diagnosis.verdict import Claim, Verdict

_NON_FINITE = ("nan-poisoned-weights", "divergence-to-nan", "nan-batch-intermittent", "grad-nan-finite-loss")
_RISE = ("lr-too-high-divergence", "divergence-plateau", "divergence-to-nan", "optim-8bit-map-bug")
_FLAT = ("params-not-updating", "lr-zero", "warmup-longer-than-run", "gradient-underflow", "stuck-from-start")
_OVERFIT = ("memorisation-overfit",)
_MASKED = ("labels-all-masked", "labels-partly-masked")
_MEANS: dict[str, dict[str, tuple[str, ...]]] = {
    "trainproof": {
        "TP-NAN": _NON_FINITE,
        "TP-NAN-GRAD": _NON_FINITE,
        "TP-ZERO-LOSS": _MASKED,
        "TP-ZERO-LOSS-ONSET": ("nan-masked-scaler-skip", "nan-poisoned-weights", "scaler-collapse-to-zero"),
        "TP-ZERO-LR": ("lr-zero", "warmup-longer-than-run"),
        "TP-ZERO-LR-PARTIAL": ("lr-zero",),
        "TP-ZERO-GRAD": ("params-not-updating", "gradient-underflow"),
        "TP-DIVERGE": _RISE,
        "TP-GRAD-SPIKE": ("divergence-to-nan", "lr-too-high-divergence"),
        "TP-FLAT": _FLAT,
        "TP-DEAD-RUN": _FLAT,
        "TP-OVERFIT": _OVERFIT,
    },
    "losslint": {
        "nan_inf": _NON_FINITE,
        "divergence": _RISE,
        "overfit_onset": _OVERFIT,
        "stagnation": _FLAT,
        "step_backtrack": ("resume-state-lost",),
        "loss_spike": ("outlier-batch", "divergence-to-nan"),
    },
    "trainpulse": {
        "nan_detector": _NON_FINITE,
        "loss_spike": _RISE,
        "gradient": ("params-not-updating", "gradient-underflow", "divergence-to-nan", "lr-too-high-divergence"),
        "learning_rate": ("resume-state-lost", "lr-zero"),
        "plateau": _FLAT,
    },
    "finetune-doctor": {
        "overfitting": _OVERFIT,
        "loss_degenerate": (*_NON_FINITE, *_MASKED),
        "not_learning": (*_FLAT, *_RISE),
        "loss_spikes": ("outlier-batch", "not-shuffled"),
        "gradients": (*_NON_FINITE, "params-not-updating"),
        "lr_schedule": ("lr-zero",),
        "eval_below_train": ("duplicate-or-leaked-data", "loss-scaled-by-accumulation"),
    },
    "runmedic": {
        "non_finite": _NON_FINITE,
        "divergence": _RISE,
        "no_learning": _FLAT,
        "loss_spikes": ("outlier-batch", "not-shuffled"),
        "grad_spikes": ("divergence-to-nan", "grad-spike-finite"),
        "overfitting": _OVERFIT,
        "val_below_train": ("duplicate-or-leaked-data", "loss-scaled-by-accumulation"),
        "constant_lr_plateau": ("params-not-updating",),
    },
    "trainspotter": {
        "divergence": (*_NON_FINITE, *_RISE),
        "spikes": ("outlier-batch", "not-shuffled", "lr-too-high-divergence"),
        "plateau": _FLAT,
        "overfitting": _OVERFIT,
        "lr_schedule": ("warmup-longer-than-run", "resume-state-lost"),
        "grad_norm": ("always-clipped", "divergence-to-nan"),
        "loss_floor": ("duplicate-or-leaked-data", "memorisation-overfit", "labels-all-masked"),
    },
}
_NOT_COUNTED = {
    "no_eval",
    "few_evals",
    "unfinished",
    "input_bound",
    "slow_steps",
    "slowdown",
    "memory_growth",
    "throughput",
}
_GRAVE = {"warning", "warn", "error", "critical", "fail"}
_STEP = re.compile(r"\bsteps?\"?:? \[?\s*(\d+)")
_PULSE = """
import json, sys
from trainpulse import Monitor
monitor = Monitor()
for entry in json.load(open(sys.argv[1]))["log_history"]:
    for name in ("loss", "grad_norm", "learning_rate"):
        if name in entry:
            monitor.log(name, entry["step"], entry[name])
alerts = monitor.report().alerts
print(json.dumps([{"code": a.detector, "severity": a.severity.value, "step": a.step} for a in alerts]))
"""


def rivals(venv: Path, scratch: Path) -> dict[str, Callable[[Path], Verdict]]:
    """Each rival's name and how to ask it."""
    bin_ = venv / "bin"
    commands: dict[str, Callable[[Path], list[str]]] = {
        "trainproof": lambda path: [str(bin_ / "trainproof"), "epoch", str(path), "--format", "hf", "--json"],
        "losslint": lambda path: [str(bin_ / "losslint"), "check", str(path), "--format", "json"],
        "trainpulse": lambda path: [str(bin_ / "python"), "-c", _PULSE, str(path)],
        "finetune-doctor": lambda path: [str(bin_ / "finetune-doctor"), str(path), "--format", "json"],
        "runmedic": lambda path: [str(bin_ / "runmedic"), "diagnose", str(path), "--json"],
        "trainspotter": lambda path: [str(bin_ / "trainspotter"), "analyze", str(path), "--output", "json"],
    }

    def asker(name: str) -> Callable[[Path], Verdict]:
        return lambda path: _ask(name, commands[name], path, scratch)

    return {name: asker(name) for name in commands}


def _ask(name: str, command: Callable[[Path], list[str]], path: Path, scratch: Path) -> Verdict:
    given: Path | None = path
    if name != "runmedic" or path.suffix != ".txt":
        given = as_trainer_state(path, scratch / path.parent.name / path.name / "trainer_state.json")
    if given is None:
        return Verdict(error="no format it reads")
    try:
        done = subprocess.run(command(given), capture_output=True, text=True, timeout=60, check=False)
        said = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, json.JSONDecodeError) as error:
        return Verdict(error=type(error).__name__)
    found = [finding for finding in _findings(name, said) if _grave(finding)]
    return Verdict(tuple(_claim(name, finding) for finding in found))


def _findings(name: str, said: Any) -> list[dict[str, Any]]:
    if name == "trainpulse":
        return list(said)
    reports = {"trainproof": lambda: said["reports"], "runmedic": lambda: said}.get(name, lambda: [said])()
    return [finding for report in reports for finding in report["findings"]]


def _code(finding: dict[str, Any]) -> str:
    return str(next(finding[key] for key in ("code", "id", "check", "detector") if key in finding))


def _grave(finding: dict[str, Any]) -> bool:
    severity = str(finding.get("severity") or finding.get("level")).lower()
    return severity in _GRAVE and _code(finding) not in _NOT_COUNTED


def _claim(name: str, finding: dict[str, Any]) -> Claim:
    code = _code(finding)
    step = finding.get("step", finding.get("step_start"))
    if step is None and (match := _STEP.search(json.dumps(finding))):
        step = match[1]
    ids = frozenset(_MEANS[name].get(code, ()))
    return Claim(ids, code, True, None if step is None else int(float(step)))
