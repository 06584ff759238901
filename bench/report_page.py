"""``python -m bench.report_page [--runs 10] [--steps 30000] [--keep FOLDER]``: how long a page takes to write and open.

The runs are synthetic: a loss that falls with noise and spikes, NaN and skipped steps, every field that jinmaek
records. Opening is measured in headless Chromium by the page's own clock, from the start of the navigation until
every chart on the first screen is drawn, and by the CPU time of the page's main thread, which other work on the
machine does not change; then until every chart of the page is drawn; then a zoom.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.browser import browser

REDRAW = "(() => { const t = performance.now(); drawAll(); return performance.now() - t })()"
ZOOM = """(() => { const t = performance.now(), [a, b] = state.range;
    setRange([a + (b - a) * 0.5, a + (b - a) * 0.51]); return performance.now() - t })()"""


def write_run(folder: Path, num_steps: int, seed: int) -> None:
    """A run directory with ``num_steps`` synthetic steps."""
    folder.mkdir(parents=True)
    rng = random.Random(seed)
    manifest = {
        "name": folder.name,
        "recipe": {"optim": {"lr": 1e-4}},
        "settings": {"optim": {"lr": 1e-4 * (1 + seed), "name": "adamw", "schedule": "linear"}},
        "max_steps": num_steps,
        "schedule_steps": num_steps,
    }
    (folder / "run.json").write_text(json.dumps(manifest), "utf-8")
    with (folder / "steps.jsonl").open("w") as file:
        applied = 0
        for step in range(1, num_steps + 1):
            row = _row(step, 1e-4 * (1 - applied / num_steps), num_steps, seed, rng)
            applied += row["optimizer_stepped"]
            file.write(json.dumps(row) + "\n")
    with (folder / "events.jsonl").open("w") as file:
        for step in range(0, num_steps + 1, max(1, num_steps // 40)):
            loss = 1.9 + 1.4 * math.exp(-step / (num_steps / 12)) + 0.01 * rng.random()
            file.write(json.dumps({"event": "evaluation", "step": step, "loss": loss}) + "\n")


def _row(step: int, lr: float, num_steps: int, seed: int, rng: random.Random) -> dict[str, Any]:
    loss: float | str = 1.8 + 1.5 * math.exp(-step / (num_steps / 15)) + rng.gauss(0, 0.12) + 0.02 * seed
    if rng.random() < 2e-4:
        loss = float(loss) * 6
    skipped = rng.random() < 1e-3
    if skipped:
        loss = "NaN"
    tokens = rng.randrange(700, 1100)
    return {
        "step": step,
        "loss": loss,
        "grad_norm": "NaN" if skipped else abs(rng.gauss(0.8, 0.2)) + 0.01,
        "clip_ratio": 1.0,
        "lr": lr,
        "num_tokens": tokens,
        "num_loss_tokens": tokens // 2,
        "seconds": abs(rng.gauss(0.4, 0.03)) + 0.05,
        "optimizer_stepped": not skipped,
        "loss_scale": 2.0 ** (16 - (step // 3000) % 4),
        "update_ratio": abs(rng.gauss(1.0, 0.1)),
    }


def open_page(page_file: Path) -> dict[str, float]:
    """Seconds until the first screen is drawn, until all charts are, and for a zoom into a hundredth of the run."""
    with browser() as chromium:
        page = chromium.new_page(viewport={"width": 1400, "height": 1000})
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        counters = page.context.new_cdp_session(page)
        counters.send("Performance.enable", {"timeDomain": "threadTicks"})
        page.goto(page_file.resolve().as_uri())
        page.wait_for_selector(".chart[data-state=drawn]")
        first = page.evaluate("performance.getEntriesByName('jinmaek-drawn')[0].startTime") / 1000
        metrics = {one["name"]: one["value"] for one in counters.send("Performance.getMetrics")["metrics"]}
        every = page.evaluate(REDRAW) / 1000
        zoomed = page.evaluate(ZOOM)
        assert not errors, errors
    return {"first_screen": first, "cpu": metrics["TaskDuration"], "all_charts": first + every, "zoom": zoomed / 1000}


def main() -> None:
    """Write the runs and the page, open it, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--steps", type=int, default=30_000)
    parser.add_argument("--keep", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.keep or Path(temporary)
        if not (folder / "runs").exists():
            for number in range(args.runs):
                write_run(folder / "runs" / f"run-{number}", args.steps, number)
        target = folder / "report.html"
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "jinmaek", "report", str(folder / "runs"), "-o", str(target)], check=True)
        wrote = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        times = open_page(target)
        print(
            f"{args.runs} x {args.steps:,} steps: {target.stat().st_size / 1e6:.1f} MB, written in {wrote:.1f} s"
            f" ({peak:.0f} MiB); first screen after {times['first_screen']:.2f} s"
            f" ({times['cpu']:.2f} s of the main thread's CPU), all charts after"
            f" {times['all_charts']:.2f} s, a zoom takes {times['zoom']:.2f} s"
        )


if __name__ == "__main__":
    main()
