"""Name and number side by side: the dicts that Python prints, and lines such as ``step 10 | loss 1.2 | lr 3e-4``."""

from __future__ import annotations

import re
from functools import cache

from jinmaek.ingest.names import Row
from jinmaek.ingest.numbers import NUMBER, parse_number

_QUOTED = re.compile(
    # A key, then a quoted value, or a bare one which may be wrapped: tensor(1.2), np.float64(nan).
    r"""(?P<q>['"])([^'"\\\n]{1,200})(?P=q)\s*:\s*(?:'([^'\n]*)'|"([^"\n]*)"|(?:(?!nan\()[A-Za-z_][\w.]*\()?([^\s,}\]()]+(?:\(\w+\))?))"""
)


def dict_entry(text: str) -> dict[str, str] | None:
    """The pairs of a printed dict, values as text; ``None`` if it does not close or holds none."""
    if not text.rstrip().endswith("}"):
        return None
    return {key: single or double or bare for _, key, single, double, bare in _QUOTED.findall(text)} or None


# What stands before a number in one-line formats. Longer names first, so that "lm loss" is not "loss".
_PAIR = re.compile(
    r"(?<![\w/.\-])"
    r"(?P<name>"
    r"(?:train(?:ing)?|val(?:id(?:ation)?)?|eval|lm|test)[ _/]loss(?:[ _]value)?|loss[ _](?:train|val)"
    r"|(?:fp16[ _])?(?:grad|loss)[ _]?scale|loss"
    r"|learning[ _]?rate|lr|grad(?:ient)?[ _]norm|gnorm|norm"
    r"|global[ _]step|iteration|iter|step|num_updates|epoch"
    r"|mean_token_accuracy|token_acc(?:uracy)?|num_tokens|trained[ _]tokens|number of skipped iterations|val"
    r")"
    r"\s{0,3}[:=]?\s{0,12}(?P<number>" + NUMBER + r")(?:\s{0,2}/\s{0,8}(?P<total>\d+)(?!\d))?",
    re.IGNORECASE | re.ASCII,
)
_OURS = {
    "lr": "lr", "learning rate": "lr", "learningrate": "lr",
    "grad norm": "grad_norm", "gradient norm": "grad_norm", "gnorm": "grad_norm", "norm": "grad_norm",
    "global step": "step", "step": "step", "iteration": "step", "num updates": "step",
    "iter": "weak_step", "epoch": "epoch",
    "fp16 grad scale": "loss_scale", "grad scale": "loss_scale", "loss scale": "loss_scale",
    "gradscale": "loss_scale", "lossscale": "loss_scale",
    "mean token accuracy": "token_accuracy", "token acc": "token_accuracy", "token accuracy": "token_accuracy",
    "num tokens": "num_tokens_seen", "trained tokens": "num_tokens_seen",
    "number of skipped iterations": "skipped", "val": "eval_loss", "test loss": "",
}  # fmt: skip
_MILLISECONDS = re.compile(
    r"(?:\bdt|\btime|elapsed time per iteration \(ms\))\s{0,2}:?\s{0,2}(\d+(?:\.\d+)?)\s{0,2}(?:ms|\|)"
)
_VALIDATION = re.compile(r"[\s\-]*validation loss at ")  # Megatron
_MMENGINE_TIME = re.compile(r"\btime: (\d+\.\d+)  data_time:")
# mmengine's and torchvision's place within an epoch: Epoch(train) [1][200/735]
_IN_EPOCH = re.compile(r"Epoch(?:\(train\))?:?\s{0,3}\[(\d+)\]\s?\[\s{0,6}(\d+)/(\d+)\]")
_ITER_OF = re.compile(r"Iter\(train\)\s{0,3}\[\s{0,8}(\d+)/(\d+)\]")
_TORCHTUNE_BAR = re.compile(r"^\s*(\d+)\|(\d+)\|Loss: (" + NUMBER + r")")
_LEADING_STEP = re.compile(r"^\s*(\d+)\s{0,3}\|")


def line_row(text: str) -> Row:
    """The numbers that a line of ``name number`` pairs names; ``total`` is the number after the step's slash."""
    tune = _TORCHTUNE_BAR.match(text) if "|Loss: " in text else None
    if tune:
        return {"epoch": float(tune[1]), "step": float(tune[2]), "loss": parse_number(tune[3]) or 0.0}
    row: Row = {}
    for found in _PAIR.finditer(text):
        name = _our(found["name"])
        number = parse_number(found["number"])
        if not name or number is None or name in row:
            continue
        row[name] = number
        if name in ("step", "weak_step") and found["total"]:
            row["max_steps"] = float(found["total"])
    if "loss" in row and _VALIDATION.match(text):
        row["eval_loss"] = row.pop("loss")
    _add_place(text, row)
    _add_seconds(text, row)
    return row


@cache
def _our(name: str) -> str:
    name = re.sub(r"[\s_/]+", " ", name.lower())
    if name in _OURS:
        return _OURS[name]
    return "eval_loss" if name.startswith(("val", "eval")) or name.endswith("val") else "loss"


def _add_place(text: str, row: Row) -> None:
    weak = row.pop("weak_step", None)
    if weak is not None:
        row.setdefault("step", weak)
    in_epoch = _IN_EPOCH.search(text) if "[" in text else None
    iteration = _ITER_OF.search(text) if "[" in text else None
    leading = _LEADING_STEP.match(text)
    if in_epoch:
        epoch, step, length = (float(number) for number in in_epoch.groups())
        row |= {"epoch": epoch, "step": max(epoch - 1, 0) * length + step, "epoch_length": length}
    elif iteration:
        row |= {"step": float(iteration[1]), "max_steps": float(iteration[2])}
    elif leading and "step" not in row:
        row["step"] = float(leading[1])


def _add_seconds(text: str, row: Row) -> None:
    if "time" not in text and "dt" not in text and "ms" not in text:
        return
    per_step = _MMENGINE_TIME.search(text)
    milliseconds = _MILLISECONDS.search(text)
    if per_step:
        row["seconds"] = float(per_step[1])
    elif milliseconds:
        row["seconds"] = float(milliseconds[1]) / 1000
