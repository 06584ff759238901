"""The page in headless Chromium: charts drawn, zoom, cursor, findings, both languages, print, phone; no error."""

import math
import re
import sys
import threading
from pathlib import Path

import pytest

import page_runs
from test_page import page_of
from test_watch import append

ROOT = Path(__file__).parents[1]
if str(ROOT) not in sys.path:  # bench is no installed package
    sys.path.insert(0, str(ROOT))
from bench.browser import browser, executable  # noqa: E402

pytest.importorskip("playwright")
pytestmark = pytest.mark.skipif(executable() is None, reason="needs Chromium")


@pytest.fixture(scope="module")
def chromium():
    with browser() as started:
        yield started


@pytest.fixture
def opened(chromium, tmp_path):
    """Opens the page of runs; whatever the console says is an error of the test."""
    contexts, said = [], []

    def open_page(*runs, lang="en", **settings):
        (tmp_path / "page.html").write_text(page_of(tmp_path, *runs, lang=lang), "utf-8")
        settings = {"viewport": {"width": 1300, "height": 900}} | settings
        context = chromium.new_context(**settings)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: said.append(request.url) if request.url.startswith("http") else None)
        page.goto((tmp_path / "page.html").as_uri())
        page.wait_for_selector("html[data-ready=yes]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


def lines(page, chart):
    return page.locator(f"#chart-{chart} .scatterlayer .js-line").count()


def steps(page):
    return page.evaluate("state.range")


def test_one_run_drawn_zoomed_switched_and_printed(opened, tmp_path):
    page = opened(page_runs.ordinary(tmp_path / "run"), color_scheme="dark")
    page.wait_for_selector("#chart-loss[data-state=drawn]")
    assert page.locator("#chart-speed").get_attribute("data-state") == "waiting"

    # Dragging zooms every chart; a double click shows the whole run.
    box = page.locator("#chart-loss .plot").bounding_box()
    whole = steps(page)
    page.mouse.move(box["x"] + 300, box["y"] + 100)
    page.mouse.down()
    page.mouse.move(box["x"] + 400, box["y"] + 120, steps=4)
    page.mouse.up()
    low, high = steps(page)
    assert whole[0] < low < high < whole[1]
    for chart in ("held_out", "grad_norm", "lr", "update_ratio", "speed"):
        page.locator(f"#chart-{chart}").scroll_into_view_if_needed()
        page.wait_for_selector(f"#chart-{chart}[data-state=drawn]")
        assert lines(page, chart) >= 1
        assert page.evaluate(f"document.querySelector('#chart-{chart} .plot').layout.xaxis.range") == [low, high]
    page.locator("#chart-loss").scroll_into_view_if_needed()
    page.mouse.dblclick(box["x"] + 300, page.locator("#chart-loss .plot").bounding_box()["y"] + 100)
    page.wait_for_timeout(400)
    assert steps(page) == whole

    # The language switch changes every word.
    assert page.locator("#charts-title").inner_text() == "Charts"
    page.locator("#lang").click()
    assert page.locator("#charts-title").inner_text() == "그래프"
    assert page.title().startswith("진맥 보고서")
    assert page.locator("#chart-loss .xtitle").text_content() == "단계"
    assert not re.search("Held-out|Settings|Charts", page.locator("main").inner_text())

    # Dark and light follow the system, and the button.
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.locator("#theme").click()
    assert page.evaluate(background) != dark
    page.locator("#theme").click()
    assert page.evaluate(background) == dark

    # On paper every chart is drawn, whatever was looked at before.
    pdf = page.pdf(format="A4", print_background=True)
    assert pdf.startswith(b"%PDF")
    assert len(pdf) > 40_000


def test_printing_draws_charts_that_nobody_has_seen(opened, tmp_path):
    page = opened(page_runs.nothing_but_nan(tmp_path / "nan"))
    assert page.locator("#chart-loss .scatterlayer .point").count() >= 1
    page.pdf()
    assert page.locator(".chart[data-state=waiting]").count() == 0


def test_the_cursor_reads_the_same_step_in_every_chart(opened, tmp_path):
    page = opened(page_runs.odd(tmp_path / "odd"))
    page.locator("#chart-grad_norm").scroll_into_view_if_needed()
    page.wait_for_selector("#chart-grad_norm[data-state=drawn]")
    page.locator("#chart-loss .plot").focus()
    for presses, said in ((5, "5: NaN"), (2, "7: ∞"), (2, "9: −∞"), (2, "11: 0")):
        for _ in range(presses):
            page.keyboard.press("ArrowRight")
        assert page.locator("#chart-loss .readout").inner_text().strip() == said
        assert page.locator("#chart-grad_norm .readout").inner_text().strip() == said
    page.keyboard.press("+")
    assert steps(page)[1] - steps(page)[0] < 8
    page.keyboard.press("0")
    page.keyboard.press("l")
    assert page.evaluate("document.querySelector('#chart-loss .plot').layout.yaxis.type") == "log"


def test_findings_axes_legend_and_smoothing_of_two_runs(opened, tmp_path):
    page = opened(page_runs.broken(tmp_path / "broken"), page_runs.ordinary(tmp_path / "good", steps=500))
    page.wait_for_selector("#chart-loss .annotation-text-g")
    whole = steps(page)
    page.locator("[data-finding='1']").click()
    low, high = steps(page)
    assert low < 80 < high < 150
    assert "chosen" in page.locator(".finding").first.get_attribute("class")
    page.evaluate("document.querySelectorAll('.chosen').forEach(one => one.classList.remove('chosen'))")
    page.locator("#chart-loss .annotation-text-g").first.click()  # and back: its number on the curve shows its card
    assert "chosen" in page.locator(".finding").first.get_attribute("class")
    page.locator("#whole").click()
    assert steps(page) == whole

    page.locator("#smoothing").select_option("1")
    before = lines(page, "loss")
    page.locator(".legend button").first.click()
    assert page.locator(".legend button").first.get_attribute("aria-pressed") == "false"
    assert lines(page, "loss") < before
    assert page.locator("#chart-loss .annotation").count() == 0
    page.locator("#smoothing").select_option("50")
    assert lines(page, "loss") == 2
    page.locator("input[value=tokens]").check()
    assert steps(page)[1] > 40_000
    page.locator("input[value=time]").check()
    assert 200 < steps(page)[1] < 300
    assert "min" in page.locator("#chart-loss .xtick").last.text_content()


def test_hostile_runs_run_nothing_and_one_step_is_seen(opened, tmp_path):
    one = page_runs.write(tmp_path / "<img src=x onerror=alert(1)>", [page_runs.row(1)])
    page = opened(page_runs.hostile(tmp_path / "hostile"), page_runs.hostile(tmp_path / "other"), one)
    assert "owned" not in page.title()
    assert page.locator("main img").count() == 0
    for number in (0, 1):
        page.locator(".legend button").nth(number).click()
    assert page.locator("#chart-loss .scatterlayer .point").count() == 1


def test_a_phone_shows_it_without_scrolling_sideways(opened, tmp_path):
    page = opened(
        page_runs.broken(tmp_path / "broken"),
        viewport={"width": 375, "height": 720},
        has_touch=True,
        is_mobile=True,
        lang="ko",
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    page.locator("#chart-loss").scroll_into_view_if_needed()
    page.wait_for_selector("#chart-loss[data-state=drawn]")
    page.locator("#in").tap()
    low, high = steps(page)
    assert high - low < 60


def test_a_run_grows_in_the_browser_and_a_finding_appears(chromium, tmp_path):
    pytest.importorskip("starlette")
    uvicorn = pytest.importorskip("uvicorn")
    from jinmaek.cli.serving import _listen
    from jinmaek.web import make_app

    run = page_runs.write(tmp_path / "runs" / "live", [page_runs.row(step) for step in range(1, 21)])
    listening = _listen("127.0.0.1", 0)
    server = uvicorn.Server(
        uvicorn.Config(make_app(tmp_path / "runs", "en"), log_level="error", timeout_graceful_shutdown=1)
    )
    serving = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    serving.start()
    said = []
    page = chromium.new_page()
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    try:
        page.goto(f"http://127.0.0.1:{listening.getsockname()[1]}/")
        page.locator("input[name=run]").check()
        page.locator("#compare").click()
        page.wait_for_selector("#chart-loss[data-state=drawn]")
        assert page.locator(".finding").count() == 0
        broken = [
            page_runs.row(step, loss=math.nan, grad_norm=math.nan, optimizer_stepped=False) for step in range(21, 41)
        ]
        append(run, *broken)
        append(run, {"event": "finding", "id": "nan-batch-intermittent", "step": 21}, file="events.jsonl")
        page.wait_for_selector(".finding")
        assert page.evaluate("[state.runs[0].length, state.whole, state.range[1] > 40]") == [40, True, True]
        page.locator("[data-finding='1']").click()
        assert steps(page)[0] > 0
    finally:
        page.close()
        server.should_exit = True
        serving.join(20)
        listening.close()
    assert said == []
