"""``python -m bench.report_shots [--out docs/pictures]``: the screenshots of docs/report.md, of runs made here.

A run like the founding one (fp16: from step 487 on every step overflows, the loss scale dies, and a verdict says why)
beside a healthy one. The verdict is the one that the tests tell (`tests/verdicts.py`), the numbers are synthetic.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.browser import browser

from jinmaek.core.codec import dump_line
from jinmaek.report.page import write_report

ONSET, LAST = 487, 660


def write_runs(folder: Path) -> list[Path]:
    """A run that breaks and one that does not."""
    sys.path.insert(0, "tests")
    from verdicts import OVERFLOW

    broken, healthy = folder / "koalpaca-fp16", folder / "koalpaca-bf16"
    _write(broken, "fp16", [_row(step, 1, onset=ONSET) for step in range(1, LAST + 1)])
    _write(healthy, "bf16", [_row(step, 2, onset=None) for step in range(1, 1001)])
    (broken / "captures").mkdir()
    verdict = {**OVERFLOW.as_dict(), "run": broken.name}
    (broken / "captures" / "verdict-00000487.json").write_text(json.dumps(verdict, ensure_ascii=False), "utf-8")
    return [broken, healthy]


def _row(step: int, seed: int, onset: int | None) -> dict[str, Any]:
    rng = random.Random(seed * 100_003 + step)
    drift = 0.0 if onset is None else 0.12 * max(0.0, (step - 300) / 200)
    loss = 1.72 + 1.3 * math.exp(-step / 40) + rng.gauss(0, 0.09) + drift
    norm = abs(rng.gauss(0.85, 0.12)) * (1 + 4 * drift)
    dead = onset is not None and step >= onset
    tokens = rng.randrange(380, 620)
    return {
        "step": step,
        "loss": math.nan if dead else loss,
        "grad_norm": math.nan if dead else norm,
        "clip_ratio": None if dead else min(1.0, 1 / norm),
        "lr": 1e-4 * (1 - min(step - 1, (onset or step) - 1) / 1000),
        "num_tokens": tokens,
        "num_loss_tokens": tokens // 2,
        "seconds": 1.48 + abs(rng.gauss(0, 0.05)),
        "optimizer_stepped": not dead,
        "loss_scale": None if onset is None else 65536.0 * 0.5 ** max(0, step - onset),
        "update_ratio": None if dead else abs(rng.gauss(1 + 8 * drift, 0.08)),
    }


def _write(folder: Path, precision: str, rows: list[dict[str, Any]]) -> None:
    folder.mkdir(parents=True)
    settings = {
        "model": {"name": "polyglot-ko-12.8b", "quantization": "nf4"},
        "train": {"precision": precision, "batch_size": 2},
        "optim": {"name": "adamw_8bit", "lr": 1e-4, "schedule": "linear"},
    }
    manifest = {
        "name": folder.name,
        "recipe": settings,
        "settings": settings,
        "max_steps": 1000,
        "schedule_steps": 1000,
        "versions": {"torch": "2.13.0", "bitsandbytes": "0.50.2"},
        "fingerprints": {"data": "7f1c", "order": "a0b2"},
    }
    (folder / "run.json").write_text(json.dumps(manifest), "utf-8")
    (folder / "steps.jsonl").write_text("".join(dump_line(row) + "\n" for row in rows), "utf-8")
    last = ONSET if precision == "fp16" else len(rows) + 1
    events: list[dict[str, Any]] = [
        {"event": "evaluation", "step": step, "loss": 1.70 + 1.2 * math.exp(-step / 60)} for step in range(0, last, 100)
    ]
    end = "completed" if precision == "bf16" else "interrupted"
    events.append({"event": "end", "end": end, "num_steps": len(rows)})
    (folder / "events.jsonl").write_text("".join(dump_line(event) + "\n" for event in events), "utf-8")


def shoot(page_file: Path, out: Path) -> None:
    """The pictures of docs/report.md."""
    with browser() as chromium:
        for name, lang, scheme, size, find in (
            ("report-en-light", "en", "light", (1280, 960), None),
            ("report-ko-dark", "ko", "dark", (1280, 960), "1"),
        ):
            context = chromium.new_context(viewport={"width": size[0], "height": size[1]}, color_scheme=scheme)
            page = context.new_page()
            page.goto(page_file.resolve().as_uri())
            page.wait_for_selector("html[data-ready=yes]")
            page.evaluate(f"(setLang('{lang}'), redraw())")
            if find is not None:
                page.locator(f"[data-finding='{find}']").click()
                page.wait_for_timeout(1200)
            page.wait_for_timeout(600)
            page.screenshot(path=out / f"{name}.png")
            context.close()
        page = chromium.new_page(viewport={"width": 1000, "height": 700})
        page.goto(page_file.resolve().as_uri())
        page.wait_for_selector("html[data-ready=yes]")
        box = page.locator(".verdict").bounding_box()
        clip = {"x": box["x"], "y": box["y"], "width": box["width"], "height": 730}
        page.screenshot(path=out / "report-verdict.png", full_page=True, clip=clip)


def main() -> None:
    """Make the runs, the page and the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("docs/pictures"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        runs = write_runs(Path(folder))
        shoot(write_report(runs, Path(folder) / "report.html", lang="en"), args.out)
    for picture in sorted(args.out.glob("report-*.png")):
        print(f"{picture} {picture.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
