"""``jinmaek sweep RECIPE --find batch``: try sizes, tell the largest."""

from __future__ import annotations

import json

import typer
from rich.console import Console

from jinmaek.cli.sweeping import NOT_ALL, Asked, SweepOptions
from jinmaek.core.codec import plain
from jinmaek.core.errors import RunError
from jinmaek.core.text import Lang, say
from jinmaek.lab.find_batch import LargestBatch, Try, encode_try, search, size_key
from jinmaek.lab.memory import GIB
from jinmaek.lab.try_batch import HOST_SHARE, BatchTries

_NEAR = 0.95  # of the highest speed: as good as it
_WHY = {
    "memory": "lab.batch_memory",
    "plan": "lab.batch_by_plan",
    "data": "lab.batch_data",
    "slow": "lab.batch_slow",
    "failed": "lab.batch_failed",
    "too_small": "lab.batch_too_small",
}


def find_batch(asked: Asked, options: SweepOptions, lang: Lang) -> int:
    """Find the largest batch that fits; returns the exit code.

    Raises:
        JinmaekError: the recipe or the command line is wrong.
    """
    assert asked.recipe is not None
    elsewhere = options.jobs > 1 or options.engine != "local"
    if any((asked.seeds, asked.between, asked.steps, options.out, options.budget)) or elsewhere:
        raise RunError("lab.find_batch_alone")
    tries = BatchTries(asked.recipe, asked.settings)
    console, key = Console(stderr=True, highlight=False), size_key(tries.recipe)
    console.print(say("lab.batch_plan", lang, key=key), markup=False, soft_wrap=True)
    if options.dry_run:
        return 0

    def attempt(size: int) -> Try:
        with console.status(say("lab.batch_trying", lang, key=key, size=size)):
            tried = tries.attempt(size)
        console.print(f"  {_told(key, tried, lang)}", markup=False, soft_wrap=True)
        return tried

    found = search(tries.recipe, attempt)
    if options.as_json:
        facts = {name: getattr(found, name) for name in ("largest", "smallest_failed", "why")}
        rows = [encode_try(tried) for tried in found.tries]
        typer.echo(json.dumps(plain({"key": key, **facts, "tries": rows}), ensure_ascii=False, indent=2))
    else:
        _print(key, found, tries.limit_bytes, lang)
    return 0 if found.largest is not None else NOT_ALL


def _told(key: str, tried: Try, lang: Lang) -> str:
    if tried.error is not None:
        return say("lab.batch_try_failed", lang, key=key, size=tried.size, why=tried.error[lang])
    if not tried.fits:
        return say("lab.batch_try_memory", lang, key=key, size=tried.size)
    return say(
        "lab.batch_try_fits",
        lang,
        key=key,
        size=tried.size,
        peak=(tried.peak_bytes or 0) / GIB,
        seconds=tried.seconds_per_step or 0.0,
        speed=tried.tokens_per_second or 0.0,
    )


def _print(key: str, found: LargestBatch, limit_bytes: int | None, lang: Lang) -> None:
    console = Console(highlight=False)

    def line(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    size = "–" if found.largest is None else found.largest
    facts = {"key": key, "size": size, "failed": found.smallest_failed or "–"}
    line(say(_WHY[found.why], lang, **facts))
    fitting = [tried for tried in found.tries if tried.fits and tried.tokens_per_second]
    if not fitting:
        return
    fastest = max(tried.tokens_per_second or 0.0 for tried in fitting)
    enough = min(tried.size for tried in fitting if (tried.tokens_per_second or 0.0) >= _NEAR * fastest)
    if found.largest is not None and enough < found.largest:
        line(say("lab.batch_enough", lang, key=key, size=enough, speed=fastest))
    if not fitting[-1].on_gpu:
        limit = "–" if limit_bytes is None else f"{limit_bytes / GIB:.1f}"
        line(say("lab.batch_cpu", lang, limit=limit, share=f"{HOST_SHARE * 100:.0f}"))
    elif not any(tried.planned for tried in fitting):
        line(say("lab.batch_no_planner", lang))
