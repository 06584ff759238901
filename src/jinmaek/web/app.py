"""What the server answers: the list, the report (live where a run goes on), its growth, and proofs."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from jinmaek.core.errors import JinmaekError
from jinmaek.core.text import Lang
from jinmaek.report.page import gather_runs, render
from jinmaek.report.page.render import Live
from jinmaek.report.page.words import both
from jinmaek.report.page.write import MOST_RUNS
from jinmaek.web.folder import RunsFolder
from jinmaek.web.guard import Guard
from jinmaek.web.listing import render_list
from jinmaek.web.live import LOOK_SECONDS, LiveRun, LiveRuns
from jinmaek.web.proofs import Proofs

FRESH_SECONDS = 20.0
MOST_PAGES = 8  # rendered reports that are kept
BEAT_SECONDS = 15.0  # a line now and then, so that a closed browser is noticed


class Pages:
    """Rendered reports, one at a time.

    A page is made anew when something beside the steps has changed; new steps alone, which every browser gets as they
    come, make it anew only after :data:`FRESH_SECONDS`: reading a long run again is not free.
    """

    def __init__(self, lang: Lang) -> None:
        self._lang = lang
        self._pages: dict[tuple[str, ...], _Page] = {}
        self._lock = threading.Lock()

    def page(self, names: Sequence[str], paths: Sequence[Path]) -> str:
        """The report of the runs in ``paths``."""
        with self._lock:
            beside = tuple(size for path in paths for size in _sizes(path))
            steps = tuple(_size(path / "steps.jsonl") for path in paths)
            key = tuple(names)
            kept = self._pages.pop(key, None)
            fresh = kept is not None and (kept.steps == steps or time.monotonic() - kept.made < FRESH_SECONDS)
            if kept is None or kept.beside != beside or not fresh:
                text = render(gather_runs(paths), self._lang, live=_live(key))
                kept = _Page(text, beside, steps, time.monotonic())
            self._pages[key] = kept
            while len(self._pages) > MOST_PAGES:
                del self._pages[next(iter(self._pages))]
            return kept.text


@dataclass(frozen=True, slots=True)
class _Page:
    text: str
    beside: tuple[int, ...]  # sizes of the files that a page tells of, steps.jsonl apart
    steps: tuple[int, ...]
    made: float


def _live(names: tuple[str, ...]) -> Live:
    script = files("jinmaek.web").joinpath("live.js").read_text("utf-8")
    return Live(ids=names, script=script, words={"all_runs": both("web.all_runs")})


def _sizes(path: Path) -> list[int]:
    files = [path / "run.json", path / "events.jsonl", *sorted(path.glob("captures/verdict-*"))]
    return [_size(file) for file in files]


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return -1


class Desk:
    """Answers requests about the runs below one folder."""

    def __init__(self, root: Path, lang: Lang) -> None:
        self._lang = lang
        self._folder = RunsFolder(root)
        self._live = LiveRuns()
        self._pages = Pages(lang)
        self.proofs = Proofs()
        self.leaving = threading.Event()

    async def index(self, request: Request) -> Response:
        """The list of runs."""
        return HTMLResponse(await run_in_threadpool(self._list))

    def _list(self) -> str:
        return render_list(self._folder.lines(), self._folder.root.name, self._lang)

    async def report(self, request: Request) -> Response:
        """The report of one run or several."""
        names, paths = await self._chosen(request)
        if paths is None or len(paths) > MOST_RUNS:
            return _no_run()
        try:
            return HTMLResponse(await run_in_threadpool(self._pages.page, names, paths))
        except JinmaekError as error:
            return PlainTextResponse(error.render(self._lang), 404)

    async def growth(self, request: Request) -> Response:
        """What the runs of a report grow by, as it happens."""
        _, paths = await self._chosen(request)
        # A browser that lost the connection says how far it had come.
        told = request.headers.get("last-event-id") or request.query_params.get("records", "")
        records = [int(part) for part in told.split(",") if part.isdigit()]
        if paths is None or len(records) != len(paths):
            return _no_run()
        return StreamingResponse(
            grown([self._live.of(path) for path in paths], records, self.leaving), media_type="text/event-stream"
        )

    async def prove(self, request: Request) -> Response:
        """Start a proof, or tell how it goes."""
        _, paths = await self._chosen(request)
        if paths is None or len(paths) != 1:
            return _no_run()
        spoken = request.query_params.get("lang", self._lang)
        lang: Lang = "ko" if spoken == "ko" else "en"
        if request.method == "POST" and not self.proofs.start(paths[0], lang):
            return JSONResponse({"busy": True}, 409)
        return JSONResponse(await run_in_threadpool(self.proofs.told, paths[0]))

    async def _chosen(self, request: Request) -> tuple[list[str], list[Path] | None]:
        names = request.query_params.getlist("run")
        return names, await run_in_threadpool(self._folder.find, names)


def make_app(root: Path, lang: Lang, token: str | None = None) -> Starlette:
    """The application for the runs below ``root``; with ``token`` every request must bring it.

    Once its ``state.leaving`` is set, the streams to browsers that follow a run end by themselves.
    """
    desk = Desk(root, lang)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        desk.proofs.stop()

    routes = [
        Route("/", desk.index),
        Route("/report", desk.report),
        Route("/live", desk.growth),
        Route("/prove", desk.prove, methods=["GET", "POST"]),
    ]
    app = Starlette(routes=routes, middleware=[Middleware(Guard, token=token)], lifespan=lifespan)
    app.state.leaving = desk.leaving
    return app


def _no_run() -> Response:
    return PlainTextResponse("There is no such run here.", 404)


async def grown(runs: Sequence[LiveRun], records: list[int], leaving: threading.Event) -> AsyncIterator[str]:
    """Server-sent events: ``grow`` with new records, ``news`` of a finding, verdict or end, ``anew`` after a resume."""
    await run_in_threadpool(_look, runs)
    replaced = [run.columns.num_replaced for run in runs]
    news = [run.news for run in runs]
    evaluations = [-1 for _ in runs]
    quiet = 0.0
    while not leaving.is_set():
        if [run.columns.num_replaced for run in runs] != replaced or any(
            run.num_records < seen for run, seen in zip(runs, records, strict=True)
        ):
            yield _event("anew", {})
            return
        parts: list[dict[str, Any]] = []
        for number, run in enumerate(runs):
            count = len(run.columns.evaluations)
            # A held-out loss after the last step comes without a record.
            if run.num_records > records[number] or evaluations[number] not in (-1, count):
                parts.append({"run": number, **await run_in_threadpool(run.since, records[number])})
                records[number] += parts[-1]["layout"]["num_records"]
            evaluations[number] = count
        if parts:
            yield _event("grow", {"parts": parts}, ",".join(map(str, records)))
        if (now := [run.news for run in runs]) != news:
            news = now
            yield _event("news", {})
        quiet = 0.0 if parts else quiet + LOOK_SECONDS
        if quiet >= BEAT_SECONDS:
            quiet = 0.0
            yield ": still here\n\n"
        await asyncio.sleep(LOOK_SECONDS)
        await run_in_threadpool(_look, runs)


def _look(runs: Sequence[LiveRun]) -> None:
    for run in runs:
        run.look()


def _event(kind: str, value: dict[str, Any], identity: str = "") -> str:
    named = f"id: {identity}\n" if identity else ""
    return f"event: {kind}\n{named}data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n"
