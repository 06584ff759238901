"""``jinmaek watch``: follow a run of another process on a terminal, to its end and beyond."""

from __future__ import annotations

import time
from pathlib import Path

import typer
from rich.console import Console
from rich.live import Live

from jinmaek.cli.diagnosis import patience
from jinmaek.core.codec import dump_line
from jinmaek.core.errors import RunError
from jinmaek.core.text import Lang, say
from jinmaek.ingest.follow import Follower
from jinmaek.report.watch import Watched, draw_watched

RUNS = ("*/run.json", "sweeps/*/trials/*/run.json")
LOOK_SECONDS = 1.0
AFTER_END_SECONDS = 1.5  # a run that is resumed at once goes on being followed
NOT_WELL = 3


def newest_run(folder: Path) -> Path:
    """The run in ``folder`` that was written to last.

    Raises:
        RunError: there is none.
    """
    runs = [path.parent for pattern in RUNS for path in folder.glob(pattern)]
    if not runs:
        raise RunError("watch.no_runs", path=folder)
    return max(runs, key=_last_write)


def _last_write(run: Path) -> float:
    return max(path.stat().st_mtime for path in (run / "run.json", run / "steps.jsonl") if path.exists())


def watch_run(run: Path | None, lang: Lang, *, once: bool, as_json: bool) -> int:
    """Show ``run`` (the newest in ``runs/``) until it ends or Ctrl-C; returns the exit code.

    0 completed or still running, 3 it ended otherwise. Without a terminal, with ``once`` or ``as_json``, it is shown
    once.

    Raises:
        RunError: no such run.
    """
    path = run if run is not None else newest_run(Path("runs"))
    if not (path / "run.json").is_file():
        raise RunError("run.not_found", path=path)
    console = Console(highlight=False)
    watched = Watched(Follower(path))
    with patience(Console(stderr=True, highlight=False), str(path), lang) as progress:
        count = 0
        while new := watched.look():
            count += new
            progress(count)
    if as_json:
        typer.echo(dump_line(watched.as_dict()))
    elif once or not console.is_terminal:
        quiet = time.time() - _last_write(path)
        console.print(draw_watched(watched, lang, console.width, 40, quiet_seconds=quiet))
    else:
        _follow(watched, console, lang)
    return 0 if watched.follower.end is None or watched.follower.end.get("end") == "completed" else NOT_WELL


def _follow(watched: Watched, console: Console, lang: Lang) -> None:
    heard = time.monotonic() - (time.time() - _last_write(watched.follower.path))
    ended: float | None = None
    # No alternate screen: what was seen stays in the scrollback, and a dropped ssh session leaves no broken terminal.
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        try:
            while True:
                now = time.monotonic()
                if watched.look():
                    heard = now
                view = draw_watched(watched, lang, console.width, console.height, quiet_seconds=now - heard)
                live.update(view, refresh=True)
                ended = None if watched.follower.end is None else ended or now
                if ended is not None and now - ended > AFTER_END_SECONDS:
                    return
                time.sleep(LOOK_SECONDS)
        except KeyboardInterrupt:
            pass
    if watched.follower.end is None:
        typer.echo(say("watch.left_alone", lang))
