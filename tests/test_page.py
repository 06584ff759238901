"""The page of `jinmaek report`, as text: what stands in it, and that no text of a run can break out of it."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from typer.testing import CliRunner

import page_runs
from jinmaek.cli.main import app
from jinmaek.core.text import say
from jinmaek.core.verdict import Trial
from jinmaek.report.page.charts import CHARTS, missing, observed
from jinmaek.report.page.columns import FIELDS, Columns
from jinmaek.report.page.sections import labels, places
from jinmaek.store.verdicts import decode_verdict, read_verdicts
from verdicts import OVERFLOW

FOUNDING = "\n".join(
    f"{{'loss': {loss}, 'learning_rate': {lr}, 'epoch': {0.4 + index / 100:.2f}}}"
    for index, (loss, lr) in enumerate(
        [
            (1.83, 5.7e-5),
            (1.79, 5.6e-5),
            (1.85, 5.5e-5),
            (1.89, 5.4e-5),
            (0.98, 5.35e-5),
            (0.0, 5.35e-5),
            (0.0, 5.35e-5),
        ]
    )
)


class Elements(HTMLParser):
    """What a browser would see: tags with their attributes, the text outside scripts, each script."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.scripts, self._open = [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "script":
            self._open = dict(attrs)

    def handle_endtag(self, tag):
        if tag == "script":
            self._open = None

    def handle_data(self, data):
        if self._open is None:
            self.text.append(data)
        else:
            self.scripts.append((self._open, data))


def report(*arguments):
    return CliRunner().invoke(app, ["report", *map(str, arguments)])


def page_of(tmp_path, *runs, lang="en"):
    target = tmp_path / "page.html"
    done = report(*runs, "-o", target, "--lang", lang)
    assert done.exit_code == 0, done.output
    return target.read_text("utf-8")


def data_of(text):
    [data] = [data for attributes, data in Elements(text).scripts if attributes.get("id") == "page-data"]
    return json.loads(data)


def test_one_run_tells_what_it_has(tmp_path):
    run = page_runs.ordinary(tmp_path / "ordinary")
    done = report(run)
    assert done.exit_code == 0
    assert str(run / "report.html") in done.output
    text = (run / "report.html").read_text("utf-8")
    said = " ".join(Elements(text).text)
    assert [chart["id"] for chart in data_of(text)["charts"]] == [
        "loss",
        "held_out",
        "grad_norm",
        "lr",
        "update_ratio",
        "speed",
        "memory_bytes",
    ]
    for words in ("수도는?", "모름", "서울", "3.1 → 2", "120 / 120", "optim.lr", "Completed."):
        assert words in said, words
    for lang in ("en", "ko"):
        assert say("chart.needs_loss_scale", lang) in said
        assert say("verdict.healthy", lang) in said


def test_json_names_the_files(tmp_path):
    run = page_runs.odd(tmp_path / "odd")
    told = json.loads(report(run, "--json").stdout)
    assert told["files"] == [{"path": str(run / "report.html"), "bytes": (run / "report.html").stat().st_size}]
    assert told["runs"] == [str(run)]


def test_a_broken_run_shows_where_why_and_the_proof(tmp_path):
    text = page_of(tmp_path, page_runs.broken(tmp_path / "broken"))
    data, said = data_of(text), " ".join(Elements(text).text)
    assert data["findings"][0]["first"] == 80
    assert data["findings"][0]["severity"] == "error"
    assert "71,203" in said or "71,200" in said
    rows = re.findall(r'<tr class="(fails|heals|not_run|recorded)">', text)
    assert rows[0] == "recorded"
    assert rows[1:] == [trial.outcome for trial in OVERFLOW.trials]
    assert text.count('class="pip broken"') >= 3


def test_the_same_page_again_is_the_same_file(tmp_path):
    run = page_runs.odd(tmp_path / "odd")
    assert page_of(tmp_path, run) == page_of(tmp_path, run)


def test_a_foreign_log_is_drawn_with_what_it_has(tmp_path):
    log = tmp_path / "train.log"
    log.write_text(FOUNDING, "utf-8")
    text = page_of(tmp_path, log, lang="ko")
    assert [chart["id"] for chart in data_of(text)["charts"]] == ["loss", "lr"]
    assert set(data_of(text)["runs"][0]["layout"]["series"]) == {"loss_reported", "lr"}
    assert '<html lang="ko"' in text


def test_several_runs_are_laid_over_each_other_and_compared(tmp_path):
    one = page_runs.ordinary(tmp_path / "a" / "run")
    other = page_runs.ordinary(tmp_path / "b" / "run", manifest={"settings": {"optim": {"lr": 2e-4, "name": "adamw"}}})
    text = page_of(tmp_path, one, other)
    assert [run["label"] for run in data_of(text)["runs"]] == ["a/run", "b/run"]
    [differing] = re.findall(r"<details open><summary>.*?</details>", text, re.DOTALL)[:1]
    assert "optim.lr" in differing
    assert "0.0001" in differing
    assert "0.0002" in differing
    assert "optim.name" not in differing


def test_a_run_that_lacks_a_field_is_named_below_the_chart(tmp_path):
    log = tmp_path / "log.jsonl"
    log.write_text("".join(f'{{"step": {n}, "loss": 2.0, "lr": 0.1}}\n' for n in range(1, 5)), "utf-8")
    text = page_of(tmp_path, page_runs.ordinary(tmp_path / "mine"), log)
    assert "Not in log.jsonl: grad_norm is not recorded." in text
    assert "mine: " not in "".join(re.findall(r"Not in mine[^<]*", text))


def test_nothing_that_a_run_says_breaks_out(tmp_path):
    folder = page_runs.hostile(tmp_path / "<img src=x onerror=alert(1)>")
    other = page_runs.hostile(tmp_path / "other")
    seen = Elements(page_of(tmp_path, folder, other))
    assert not [tag for tag, _ in seen.tags if tag in ("img", "iframe", "object", "link", "base", "form")]
    assert not [name for _, attributes in seen.tags for name in attributes if name.startswith("on")]
    assert page_runs.HOSTILE in " ".join(seen.text)
    run_by_browser = [attributes for attributes, _ in seen.scripts if "type" not in attributes]
    assert len(run_by_browser) == 1


def test_only_known_scripts_may_run_and_nothing_may_be_fetched(tmp_path):
    seen = Elements(page_of(tmp_path, page_runs.odd(tmp_path / "odd")))
    [policy] = [a["content"] for tag, a in seen.tags if a.get("http-equiv") == "Content-Security-Policy"]
    [script] = [data for attributes, data in seen.scripts if "type" not in attributes]
    assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy.partition("script-src")[2].partition(";")[0]
    assert "connect-src" not in policy
    assert not [a for _, a in seen.tags if str(a.get("src") or a.get("href") or "#")[0] != "#"]


@pytest.mark.parametrize("name", ["empty", "torn"])
def test_a_run_without_a_step_says_so(tmp_path, name):
    run = page_runs.write(tmp_path / name, [])
    if name == "torn":
        (run / "steps.jsonl").write_text('{"step":1,"lo', "utf-8")
    text = page_of(tmp_path, run)
    assert say("html.empty", "en") in text
    assert say("html.no_findings", "en") not in text


def test_one_step_and_nothing_but_nan_are_drawn(tmp_path):
    one = page_runs.write(tmp_path / "one", [page_runs.row(1)])
    assert data_of(page_of(tmp_path, one))["runs"][0]["layout"]["num_records"] == 1
    layout = data_of(page_of(tmp_path, page_runs.nothing_but_nan(tmp_path / "nan")))["runs"][0]["layout"]
    assert layout["skipped"]["length"] == 40
    assert layout["series"]["loss"]["values"]["length"] == 40


def test_every_path_that_cannot_be_read_is_named_at_once(tmp_path):
    done = CliRunner().invoke(app, ["report", str(tmp_path / "no"), str(tmp_path / "neither")])
    problems = [problem.params["path"] for problem in done.exception.problems]
    assert problems == [str(tmp_path / "no"), str(tmp_path / "neither")]


def test_too_many_runs_and_a_place_that_cannot_be_written_are_refused(tmp_path):
    for number in range(31):
        page_runs.write(tmp_path / "many" / f"run-{number:02d}", [page_runs.row(1)])
    assert "31 runs" in str(report(tmp_path / "many").exception)
    (tmp_path / "file").write_text("")
    done = report(tmp_path / "many" / "run-00", "-o", tmp_path / "file" / "x.html")
    assert "cannot be written" in str(done.exception)


def test_every_chart_has_fields_that_columns_keep():
    named = {part for chart in CHARTS for need in chart.needs for part in need.split("|")}
    assert named - set(FIELDS) == {"evaluations", "skipped"}
    assert [missing(chart, observed(Columns())) for chart in CHARTS] == [chart.needs for chart in CHARTS]


@pytest.mark.parametrize(
    ("names", "short"),
    [
        (["runs/a", "runs/b"], ["a", "b"]),
        (["x/run", "y/run"], ["x/run", "y/run"]),
        (["a", "a"], ["a (1)", "a (2)"]),
        (["/runs/one"], ["one"]),
        (["-"], ["-"]),
    ],
)
def test_labels_are_the_shortest_that_tell_runs_apart(names, short):
    assert labels(names) == short


def test_a_trial_breaks_where_its_numbers_say():
    nan = float("nan")
    assert places(Trial(arm="a", family="data", outcome="fails", loss=nan, grad_norm=nan)) == (
        "broken",
        "broken",
        "broken",
    )
    assert places(Trial(arm="a", family="data", outcome="fails", loss=2.0, grad_norm=nan)) == (
        "whole",
        "broken",
        "broken",
    )
    assert places(Trial(arm="a", family="data", outcome="heals", loss=2.0, grad_norm=1.0)) == (
        "whole",
        "whole",
        "whole",
    )
    assert places(Trial(arm="a", family="data", outcome="not_run")) == ("not_reached",) * 3


def test_a_verdict_is_read_back_as_it_was_written(tmp_path):
    assert decode_verdict(json.loads(json.dumps(OVERFLOW.as_dict()))).as_dict() == OVERFLOW.as_dict()
    (tmp_path / "verdict-00000001.json").write_text("{}")
    (tmp_path / "verdict-00000002.json").write_text(json.dumps(OVERFLOW.as_dict()))
    verdicts, unread = read_verdicts(tmp_path)
    assert [verdict.step for verdict in verdicts] == [487]
    assert unread == ["verdict-00000001.json"]


def test_no_file_of_the_page_is_too_long():
    folder = Path(__file__).parents[1] / "src/jinmaek/report/page"
    assert not [
        path.name for path in folder.iterdir() if path.is_file() and len(path.read_text("utf-8").splitlines()) > 300
    ]
