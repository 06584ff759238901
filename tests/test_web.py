"""`jinmaek web`: what it shows, what it refuses, how runs grow in it, and how it starts a proof."""

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time

import pytest

import page_runs
from jinmaek.cli import serving
from jinmaek.core.errors import RunError
from jinmaek.report.page.secrets import HIDDEN, without_secrets

pytest.importorskip("starlette")

from starlette.testclient import TestClient

from jinmaek.web import make_app
from jinmaek.web.app import Pages, grown
from jinmaek.web.folder import RunsFolder
from jinmaek.web.live import LiveRuns
from jinmaek.web.proofs import Proofs
from test_page import Elements
from test_watch import append

BASE = "http://127.0.0.1:8765"
OURS = {"X-Jinmaek": "1"}


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "runs"
    page_runs.ordinary(folder / "good")
    page_runs.broken(folder / "older" / "bad")
    return folder


@pytest.fixture
def client(root):
    with TestClient(make_app(root, "en"), base_url=BASE) as started:
        yield started


def test_the_list_names_every_run_and_its_state(client, root):
    (root / "good" / "captures").mkdir()
    (root / "good" / "captures" / "step-00000020.safetensors").write_bytes(b"")
    append(
        root / "older" / "bad", {"event": "finding", "id": "nan-masked-scaler-skip", "step": 80}, file="events.jsonl"
    )
    append(
        root / "older" / "bad",
        {"event": "verdict", "step": 80, "outcome": "CONFIRMED", "causes": ["overflow"]},
        file="events.jsonl",
    )
    said = " ".join(Elements(client.get("/").text).text)
    for words in (
        "good",
        "older/bad",
        "Completed.",
        "Running, or killed",
        "120 / 100",
        "masked NaN",
        "Proved at step 80",
        "(20)",
    ):
        assert words in said, words


def test_a_report_and_several_together(client):
    one = client.get("/report", params={"run": "good"})
    assert one.status_code == 200
    assert '"live":["good"]' in one.text
    both = client.get("/report?run=good&run=older/bad")
    assert '"live":["good","older/bad"]' in both.text
    [policy] = [a["content"] for tag, a in Elements(one.text).tags if a.get("http-equiv") == "Content-Security-Policy"]
    assert "connect-src 'self'" in policy


@pytest.mark.parametrize(
    "name",
    [
        "",
        "..",
        "../runs/good",
        "good/../good",
        "good/",
        "/etc",
        "older",
        "good%00",
        "older/bad/captures",
        "link",
        "linked/run",
    ],
)
@pytest.mark.parametrize("address", ["/report?", "/live?records=0&", "/prove?"])
def test_only_runs_of_the_listing_can_be_asked_for(client, root, tmp_path, name, address):
    page_runs.ordinary(tmp_path / "outside" / "run")
    (root / "link").symlink_to(tmp_path / "outside" / "run")
    (root / "linked").symlink_to(tmp_path / "outside")
    answer = client.get(f"{address}run={name}")
    assert answer.status_code == 404
    assert "root" not in answer.text


def test_another_name_for_this_server_is_refused(client):
    assert client.get("/", headers={"host": "evil.example:8765"}).status_code == 421
    assert client.get("/", headers={"host": "localhost:8765"}).status_code == 200
    assert client.get("/", headers={"host": "[::1]:8765"}).status_code == 200


def test_a_proof_is_started_by_our_own_page_only(client):
    assert client.post("/prove?run=good").status_code == 403
    assert client.post("/prove?run=good", headers=OURS | {"origin": "http://evil.example"}).status_code == 403
    assert client.post("/report?run=good", headers=OURS).status_code == 405


def test_every_answer_says_what_a_browser_may_do_with_it(client):
    for answer in (client.get("/"), client.get("/nowhere"), client.get("/", headers={"host": "x"})):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cache-control"] == "no-store"


def test_with_a_token_nothing_is_told_without_it(root):
    with TestClient(make_app(root, "en", token="t" * 24), base_url="http://10.0.0.5:8765") as client:
        assert client.get("/").status_code == 401
        assert client.get("/?token=wrong").status_code == 401
        assert client.get("/report?run=good", headers={"authorization": "Bearer x"}).status_code == 401
        assert client.get("/", headers={"authorization": "Bearer " + "t" * 24}).status_code == 200
        answer = client.get(f"/report?run=good&token={'t' * 24}", follow_redirects=False)
        assert answer.status_code == 303
        assert answer.headers["location"] == "/report?run=good"
        cookie = answer.headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        assert client.get("/report?run=good").status_code == 200
        assert "t" * 24 not in client.get("/report?run=good").text


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("hub.token", "abc", HIDDEN),
        ("api_key", "x1", HIDDEN),
        ("data.max_tokens", "512", "512"),
        ("train.batch_tokens", "8192", "8192"),
        ("eos_token", "</s>", "</s>"),
        ("data.source", "https://me:pass@host/x", f"https://{HIDDEN}@host/x"),
        ("model.name", "hf_abcdefghijklmnopqrstuv", HIDDEN),
        ("command", "jinmaek train x hub.token=s3cret", f"jinmaek train x hub.token={HIDDEN}"),
        ("command", "jinmaek train x train.batch_tokens=8192", "jinmaek train x train.batch_tokens=8192"),
    ],
)
def test_secrets_stay_out_of_pages(name, value, told):
    assert without_secrets(name, value) == told


def test_no_secret_of_a_recipe_is_in_its_page(client, root):
    settings = {"hub": {"token": "topsecret1"}, "data": {"source": "https://u:topsecret2@h/"}}
    page_runs.ordinary(
        root / "secret", manifest={"recipe": settings, "settings": settings, "command": ["--token=topsecret3"]}
    )
    text = client.get("/report?run=secret&run=good").text
    assert HIDDEN in text
    assert "topsecret" not in text


def test_a_report_is_made_anew_when_something_beside_the_steps_happens(root):
    pages, paths = Pages("en"), [root / "good"]
    first = pages.page(["good"], paths)
    append(root / "good", page_runs.row(121))
    assert pages.page(["good"], paths) is first
    append(root / "good", {"event": "evaluation", "step": 121, "loss": 1.5}, file="events.jsonl")
    assert "121" in pages.page(["good"], paths)


def events_of(run, records, happens):
    """The events of a followed run; ``happens`` is called after each of them, and ends it by ``StopIteration``."""

    async def collect():
        told = []
        async for text in grown([run], records, threading.Event()):
            fields = dict(line.split(": ", 1) for line in text.strip().splitlines())
            told.append((fields["event"], fields.get("id"), json.loads(fields["data"])))
            if next(happens, None) is None:
                return told
        return told

    return asyncio.run(asyncio.wait_for(collect(), 20))


def test_a_followed_run_sends_what_is_new_once(root, monkeypatch):
    monkeypatch.setattr("jinmaek.web.app.LOOK_SECONDS", 0.01)
    monkeypatch.setattr("jinmaek.web.live.LOOK_SECONDS", 0.0)
    run, live = root / "good", LiveRuns()

    def happens():
        append(run, page_runs.row(121), page_runs.row(122))
        yield 1
        append(run, {"event": "finding", "id": "plateau", "step": 122}, file="events.jsonl")
        yield 2
        append(run, {"event": "evaluation", "step": 122, "loss": 1.5}, file="events.jsonl")
        yield 3
        append(run, page_runs.row(100))  # resumed from step 99
        yield 4

    told = events_of(live.of(run), [110], happens())
    assert [(kind, at) for kind, at, _ in told] == [
        ("grow", "120"),
        ("grow", "122"),
        ("news", None),
        ("grow", "122"),
        ("anew", None),
    ]
    assert [part["layout"]["num_records"] for _, _, data in told[:2] for part in data["parts"]] == [10, 2]
    assert live.of(run) is live.of(run)


def test_streams_end_when_the_server_leaves(root, monkeypatch):
    monkeypatch.setattr("jinmaek.web.app.LOOK_SECONDS", 0.01)
    leaving = threading.Event()

    async def collect():
        told = []
        async for text in grown([LiveRuns().of(root / "good")], [0], leaving):
            told.append(text)
            leaving.set()
        return told

    assert len(asyncio.run(asyncio.wait_for(collect(), 20))) == 1


def test_growth_goes_on_where_a_lost_connection_left_off(client, monkeypatch):
    asked = []

    async def seen(runs, records, leaving):
        asked.append(records)
        yield ""

    monkeypatch.setattr("jinmaek.web.app.grown", seen)
    client.get("/live?run=good&records=1")
    client.get("/live?run=good&records=1", headers={"last-event-id": "77"})
    assert asked == [[1], [77]]
    assert client.get("/live?run=good&records=1,2").status_code == 404


def test_one_proof_at_a_time_and_its_output_is_told(tmp_path):
    script = (
        "import sys, time; print('proving', sys.argv[1], flush=True); time.sleep(float(sys.argv[1][-1])); sys.exit(1)"
    )
    proofs = Proofs((sys.executable, "-c", script))
    assert proofs.told(tmp_path / "1") is None
    assert proofs.start(tmp_path / "1", "en")
    assert not proofs.start(tmp_path / "0", "en")
    deadline = time.monotonic() + 20
    while (told := proofs.told(tmp_path / "1"))["code"] is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert told["code"] == 1
    assert told["output"].startswith("proving")
    assert proofs.start(tmp_path / "9", "en")
    proofs.stop()
    while proofs.told(tmp_path / "9")["code"] is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_loopback_needs_no_token_and_anything_else_does(monkeypatch):
    assert [
        serving.is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "10.0.0.5", "my.host")
    ] == [True] * 3 + [False] * 3
    monkeypatch.delenv(serving.TOKEN_VARIABLE, raising=False)
    assert len(serving.token_for_others()) >= 32
    assert serving.token_for_others() != serving.token_for_others()
    monkeypatch.setenv(serving.TOKEN_VARIABLE, "short")
    with pytest.raises(RunError, match="5 characters"):
        serving.token_for_others()


def test_what_cannot_be_served_is_said(tmp_path, monkeypatch):
    with pytest.raises(RunError, match="is no folder"):
        serving.serve(tmp_path / "no", "127.0.0.1", 0, "en")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(RunError, match="cannot be listened on"):
            serving.serve(tmp_path, "127.0.0.1", taken.getsockname()[1], "en")
    monkeypatch.setattr(serving, "find_spec", lambda name: None)
    with pytest.raises(RunError, match=r"jinmaek\[web\]"):
        serving.serve(tmp_path, "127.0.0.1", 0, "en")


def test_damaged_runs_and_no_runs_are_listed(tmp_path):
    with TestClient(make_app(tmp_path, "ko"), base_url=BASE) as client:
        assert "아직 실행이 없습니다" in client.get("/").text
    run = page_runs.write(tmp_path / "x", [], [{"event": "verdict"}, {"event": "evaluation", "loss": "?"}])
    (run / "run.json").write_text("{")
    (run / "steps.jsonl").write_bytes(b"\xff\xfe\n")
    [line] = RunsFolder(tmp_path).lines()
    assert (line.id, line.step, line.state) == ("x", None, "open")
    with TestClient(make_app(tmp_path, "ko"), base_url=BASE) as client:
        assert client.get("/").status_code == 200


def test_the_server_never_imports_torch():
    program = "import sys, jinmaek.web, jinmaek.cli.serving; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
