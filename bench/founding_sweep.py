"""The founding sweep: only max_steps is varied, at polyglot-ko-12.8b's shape with random weights, in one command.

    PYTHONPATH=src:. python -m bench.founding_sweep --models DIR --rows ROWS.jsonl --tokenizer TOKENIZER.json
        [--shape 12.8b] [--divide 10] [--seeds 3] [--form both] [--budget 25m] [--jobs 5] [--out runs/founding-sweep]

The author's 50, 500, 600, 1000, 2000 and 5000 steps, each divided by ``--divide``, as ``jinmaek sweep`` runs them: as
he did (``free``: a linear schedule over max_steps, so that every lr changes) and held still (``held``: --controlled).
A twentieth of the rows is held out, which he did not do, or the arms could not be compared. Random weights learn from
the rows as any do: the loss falls, lrs and differences are real, the text's quality is not.

Prints a table in Markdown for each form; what was run already in ``--out`` is not run again. On a shared GPU managed
memory is unwelcome: the optimizer is adamw_8bit instead of paged_adamw_8bit, the same arithmetic in ordinary memory.
``--set`` changes the recipe further: for several trials on one GPU kernels.cache_weights=never and kernels.memory_gib,
which change no bit of what is computed. To see it work on a CPU, where fp16 is slow:

    … --shape tiny --divide 100 --seeds 2 --set train.precision=fp32 --set model.compute_dtype=fp32 --set data.limit=200
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.throughput.inputs import PAIRS
from bench.throughput.process import ROOT, environment
from bench.throughput.shapes import SHAPES

STEPS = (50, 500, 600, 1000, 2000, 5000)
INTERRUPTED = 130
RECIPE = "koalpaca-polyglot-12.8b"
FORMS: dict[str, list[str]] = {"free": [], "held": ["--controlled"]}


def steps_of(divide: int) -> list[int]:
    """The author's numbers of steps, shortened; at least two, and no two the same."""
    return sorted({max(2, steps // divide) for steps in STEPS})


def sweep_command(args: argparse.Namespace, form: str) -> list[str]:
    """``jinmaek sweep`` for one form."""
    model, data = args.models / args.shape, args.models / PAIRS
    settings = [f"model.name={model.absolute()}", f"data.source={data.absolute()}", "data.held_out=0.05"]
    settings += ["optim.name=adamw_8bit", *args.set]
    vary = ["--vary", "train.max_steps=" + ",".join(map(str, steps_of(args.divide)))]
    more = ["--seeds", str(args.seeds), "--out", str(args.out / form), "--json", *FORMS[form]]
    more += ["--jobs", str(args.jobs)]
    more += ["--budget", args.budget] if args.budget else []
    return [sys.executable, "-m", "jinmaek", "sweep", RECIPE, *settings, *vary, *more]


def make_inputs(args: argparse.Namespace) -> None:
    """Model and rows, where they are not there yet, in a process that gives its memory back."""
    files = {f"--{key}": getattr(args, key) for key in ("rows", "tokenizer")}
    given = [word for key, value in files.items() if value for word in (key, str(value.absolute()))]
    command = [sys.executable, "-m", "bench.throughput.inputs", str(args.models), args.shape, *given]
    if code := subprocess.run(command, cwd=ROOT, env=environment(None), check=False).returncode:
        sys.exit(code)


def table(result: dict[str, Any]) -> str:
    """A row for each arm, in Markdown."""
    head = "| max_steps | held-out loss | minus base | | seeds | skipped steps | tokens/s | time, s | first finding |"
    rows = [head, "| ---: | ---: | ---: | --- | --- | ---: | ---: | ---: | --- |"]
    for arm in result["arms"]:
        difference = arm["difference"]
        cells = [
            arm["name"].partition("=")[2],
            _interval(arm["mean"], arm["half_width"], ""),
            "" if difference is None else _interval(difference["mean"], difference["half_width"], "+"),
            "base" if difference is None else difference["verdict"],
            f"{len(arm['losses'])}/{arm['num_trials']}",
            str(arm["skipped_steps"]),
            "" if arm["tokens_per_second"] is None else f"{arm['tokens_per_second']:,.0f}",
            f"{arm['seconds']:.0f}",
            arm["cause"] or "",
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _interval(mean: float | None, half_width: float | None, sign: str) -> str:
    if mean is None:
        return ""
    return f"{mean:{sign}.4f}" + ("" if half_width is None else f" ± {half_width:.4f}")


def conclusion(result: dict[str, Any]) -> str:
    """Lowest arm of those that have all their trials, and those it is not told from."""
    if result["lowest"] is None:
        return "No arm has all its trials."
    partial = [result["arms"][index]["name"] for index in result["not_judged"]]
    names = [result["arms"][index]["name"] for index in (result["lowest"], *result["not_separated_from_lowest"])]
    rest = f"; not told from it: {', '.join(names[1:])}" if names[1:] else "; every other arm is ruled out as the best"
    judged = f"Not judged, trials are missing: {', '.join(partial)}. " if partial else ""
    return f"{judged}Lowest: {names[0]}{rest}."


def main() -> None:
    """Make the inputs, run the forms, print their tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--models", type=Path, required=True, metavar="DIR", help="where model and rows lie or are made"
    )
    parser.add_argument("--rows", type=Path, metavar="ROWS.jsonl", help="KoAlpaca's text-only file, to make the rows")
    parser.add_argument("--tokenizer", type=Path, metavar="TOKENIZER.json", help="polyglot-ko's, to make the model")
    parser.add_argument("--shape", choices=sorted(SHAPES), default="12.8b")
    parser.add_argument("--divide", type=int, default=10, help="shorten all steps by this (10)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--form", choices=[*FORMS, "both"], default="both")
    parser.add_argument("--budget", default="", help="of each form, such as 12m")
    parser.add_argument("--jobs", type=int, default=1, help="so many trials at a time, if memory allows (1)")
    parser.add_argument("--out", type=Path, default=Path("runs/founding-sweep"))
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value")
    args = parser.parse_args()
    args.out, args.models = args.out.absolute(), args.models.absolute()
    make_inputs(args)
    for form in FORMS if args.form == "both" else [args.form]:
        done = subprocess.run(
            sweep_command(args, form), stdout=subprocess.PIPE, cwd=ROOT, env=environment(None), check=False
        )
        if not done.stdout or done.returncode == INTERRUPTED:
            sys.exit(done.returncode)
        result = json.loads(done.stdout)
        (args.out / f"{form}.json").write_bytes(done.stdout)
        print(f"## {form}, steps / {args.divide}, {args.shape}, {args.seeds} seeds: {result['end']}\n")
        print(table(result) + "\n\n" + conclusion(result) + "\n", flush=True)


if __name__ == "__main__":
    main()
