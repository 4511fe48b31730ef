"""Real serving workers under load: bad input, kills, swaps and stops."""

import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from four_modes import wine
from serving_worker import (
    JSON,
    ROWS,
    START_S,
    TOML,
    Load,
    Worker,
    copy_of,
    listening,
    logged,
    serve,
    three_versions,
    workers,
)

from loopwright.config import Project
from loopwright.deploy import base
from loopwright.deploy.base import assign
from loopwright.deploy.online.client import Client
from loopwright.errors import InvalidInput, NotFound, SchemaMismatch, Unavailable
from loopwright.ledger import Ledger
from loopwright.predictions import PredictionStore

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project with three versions, prepared."""
    return three_versions(tmp_path_factory)


@pytest.fixture
def project(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a copy of the project that serves version 1."""
    monkeypatch.delenv("LOOPWRIGHT_LEDGER", raising=False)
    return copy_of(prepared, tmp_path)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Return a listening socket on a free port."""
    with listening() as made:
        yield made


@pytest.fixture
def start(listener: socket.socket) -> Iterator[Callable[..., Worker]]:
    """Return a function that starts a worker; what still runs at the end is killed."""
    with workers(listener) as begin:
        yield begin


def test_bad_input_is_answered_and_never_kills(project: Project, start: Callable[..., Worker]) -> None:
    """Each class of bad request has its own status and a message with what is right; the worker goes on."""
    worker = start(project)
    row = ROWS[0]
    cases: list[tuple[int, str, str, Any, dict[str, str] | None, str]] = [
        (400, "POST", "/predict/wine-api", b"", None, "is empty"),
        (400, "POST", "/predict/wine-api", b"hello", None, "at byte 0"),
        (400, "POST", "/predict/wine-api", json.dumps(row)[:-3].encode(), None, "ends too early"),
        (400, "POST", "/predict/wine-api", b'{"alcohol": NaN}', None, "at byte 12"),
        (400, "POST", "/predict/wine-api", b"\xff\xfe", None, "not"),
        (400, "POST", "/predict/wine-api", b"[" * 150_000, None, "nested too deeply"),
        (400, "POST", "/predict/wine-api", [], None, "no records"),
        (400, "POST", "/predict/wine-api", row, JSON | {"x-entity": "e" * 300}, "x-entity has 300 bytes"),
        (422, "POST", "/predict/wine-api", 3, None, "is no record"),
        (422, "POST", "/predict/wine-api", [row, row | {"alcohl": 1}], None, "Row 1 has a field 'alcohl'"),
        (422, "POST", "/predict/wine-api", [row, {}], None, "Row 1 has no field 'alcohol'"),
        (422, "POST", "/predict/wine-api", row | {"hue": "x"}, None, "field 'hue': \"x\" does not fit"),
        (422, "POST", "/predict/wine-api", row | {"hue": None}, None, "'hue': null"),
        (422, "POST", "/predict/wine-api", b'{"hue": 1e999}', None, "out of range"),
        (415, "POST", "/predict/wine-api", b"a=1", {"content-type": "text/plain"}, "'text/plain'"),
        (415, "POST", "/predict/wine-api", b"{}", {}, "content type ''"),
        (413, "POST", "/predict/wine-api", b"[" + b" " * 300_000, None, "more than 200000 bytes"),
        (404, "POST", "/predict/wine-ap", row, None, "'wine-ap'"),
        (503, "POST", "/predict/idle-api", row, None, "has not been started"),
        (405, "GET", "/predict/wine-api", None, None, "GET does not work"),
        (405, "DELETE", "/labels", None, None, "DELETE does not work"),
        (404, "GET", "/nothing", None, None, "nothing at '/nothing'"),
        (404, "POST", "/labels", {"prediction_id": "abc", "actual": 1}, None, "no prediction 'abc'"),
        (422, "POST", "/labels", {"prediction_id": "abc"}, None, "no field 'actual'"),
        (422, "POST", "/labels", {"prediction_id": "abc", "actual": [1]}, None, "its actual is [1]"),
        (422, "POST", "/labels", {"prediction_id": "abc", "actual": None}, None, "its actual is null"),
        (400, "POST", "/labels", b'{"actual": NaN}', None, "not JSON"),
    ]
    for status, method, path, body, headers, message in cases:
        found, answer, _ = worker.ask(method, path, body, headers)
        assert (found, message in answer["error"]["message"]) == (status, True), (path, body, answer)
        assert answer["error"].get("valid") or answer["error"].get("hint")
    _, nearest, _ = worker.ask("POST", "/predict/wine-ap", row)
    assert "Did you mean 'wine-api'" in nearest["error"]["valid"]
    _, idle, _ = worker.ask("POST", "/predict/idle-api", row)
    assert idle["error"]["hint"] == "loopwright deployment start idle-api"
    _, _, allowed = worker.ask("GET", "/predict/wine-api")
    assert allowed["allow"] == "POST"
    status, _, headers = worker.ask("POST", "/predict/wine-api", row, JSON | {"x-request-id": "r-1"})
    assert (status, headers["x-request-id"]) == (200, "r-1")
    assert worker.process.poll() is None
    assert len(logged(project)) == 1
    assert "Traceback" not in worker.log.read_text()


def test_a_body_that_is_too_large_is_refused_while_it_arrives(
    project: Project, start: Callable[..., Worker]
) -> None:
    """A body without a declared length is refused at the limit; the next connection is served."""
    worker = start(project)
    connection = http.client.HTTPConnection("127.0.0.1", worker.port, timeout=30)
    pieces = iter([b"[" + b" " * 90_000] * 4)
    connection.request("POST", "/predict/wine-api", pieces, JSON, encode_chunked=True)
    answer = connection.getresponse()
    assert (answer.status, answer.getheader("connection")) == (413, "close")
    connection.close()
    assert worker.ask("POST", "/predict/wine-api", ROWS[0])[0] == 200


def test_a_caller_that_hangs_up_harms_nobody(project: Project, start: Callable[..., Worker]) -> None:
    """Connections that end in the middle of a request, or send no HTTP, leave the worker as it was."""
    worker = start(project)
    for sent in (
        b"POST /predict/wine-api HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 500\r\n\r\n{",
        b"POST /predict/wine-api HT",
        b"\x00\xff\x13 nonsense\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", worker.port), timeout=10) as raw:
            raw.sendall(sent)
    assert worker.ask("POST", "/predict/wine-api", ROWS[0])[0] == 200
    assert "Traceback" not in worker.log.read_text()


@pytest.mark.parametrize("durability", ["process", "power"])
def test_a_kill_loses_nothing_acknowledged(
    project: Project, start: Callable[..., Worker], durability: str
) -> None:
    """After kill -9 under load and a restart, every acknowledged prediction is in the log, once."""
    (project.root / "loopwright.toml").write_text(TOML.format(durability=durability))
    worker = start(project)
    load = Load(worker.port)
    load.until(lambda: len(load.answers) > 300, "traffic")
    worker.process.kill()
    worker.process.wait()
    before = len(load.answers)
    second = start(project)
    load.until(lambda: len(load.answers) > before + 300, "traffic after the restart")
    load.stop()
    acknowledged = [answer["prediction_id"] for answer in load.answers]
    found = logged(project)
    assert len(found) == len(set(found))
    assert set(acknowledged) <= set(found)
    # What was logged and not acknowledged was under way when the process was killed: one request per connection.
    assert len(set(found) - set(acknowledged)) <= len(load.failures) <= 8
    assert second.stop() == 0
    assert sorted(logged(project)) == sorted(found)


def test_a_swap_under_load_fails_no_request(project: Project, start: Callable[..., Worker]) -> None:
    """Versions change under load without one failed request, and each answer is the version's own."""
    worker = start(project)
    client = Client(f"http://127.0.0.1:{worker.port}")
    load = Load(worker.port)
    for number in range(1, 9):
        wanted = number % 3 + 1
        serve(project, champion=(wanted, 1.0))
        seen = len(load.answers)
        load.until(
            lambda wanted=wanted, seen=seen: any(  # type: ignore[misc]
                one["version"] == wanted for one in load.answers[seen:]
            ),
            f"version {wanted}",
        )
    load.stop()
    assert load.failures == []
    assert {answer["version"] for answer in load.answers} == {1, 2, 3}
    assert sorted(logged(project)) == sorted(answer["prediction_id"] for answer in load.answers)
    assert client.predict("wine-api", ROWS[0])["version"] == 3
    client.close()
    assert worker.stop() == 0


def test_two_variants_share_the_entities_for_good(project: Project, start: Callable[..., Worker]) -> None:
    """Every entity has one variant, the one that its hash says, in every worker and in the log."""
    deployment = serve(project, champion=(1, 0.7), candidate=(2, 0.3))
    first = start(project)
    load = Load(first.port, entities=True)
    load.until(lambda: len(load.answers) > 400, "traffic")
    start(project, "serving-2")
    load.until(lambda: len(load.answers) > 800, "traffic with two workers")
    load.stop()
    assert load.failures == []
    for answer in load.answers:
        assert answer["variant"] == assign(deployment, answer["entity"])[0].name
    assert {answer["variant"] for answer in load.answers} == {"champion", "candidate"}
    rows = PredictionStore(project).query(
        "select distinct variant, version, propensity from predictions order by 1", deployment="wine-api"
    )
    assert [tuple(row.values()) for row in rows.to_pylist()] == [
        ("candidate", 2, 0.3),
        ("champion", 1, 0.7),
    ]


def test_a_version_that_does_not_verify_never_serves(project: Project, start: Callable[..., Worker]) -> None:
    """A damaged candidate is refused in the ledger while the champion goes on, also after a restart."""
    worker = start(project)
    path = project.scorer("wine", 2) / "model.onnx"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    load = Load(worker.port, threads=2)
    serve(project, champion=(1, 0.5), candidate=(2, 0.5))
    ledger = Ledger.open(project)
    load.until(lambda: bool(ledger.events("worker.refused", "wine-api")), "the refusal")
    load.stop()
    assert load.failures == []
    [event] = ledger.events("worker.refused", "wine-api")
    assert (event.payload["version"], event.payload["worker"], event.actor) == (2, "serving-1", "serving-1")
    assert worker.stop() == 0
    second = start(project)
    assert second.ask("POST", "/predict/wine-api", ROWS[0])[1]["version"] == 1
    state = ledger.get("worker", "serving-1")
    assert state is not None
    assert state.value["serving"] == {"wine-api": {"champion": 1}}
    assert list(state.value["refused"]["wine-api"]) == ["2"]
    ledger.close()


def test_a_version_is_prepared_beside_the_traffic(project: Project, start: Callable[..., Worker]) -> None:
    """A worker answers at once, says that it is not ready, and is when the version has been prepared."""
    shutil.rmtree(project.scorer("wine", 1))
    worker = start(project, ready="/health")
    status, answer, _ = worker.ask("GET", "/ready")
    assert (status, list(answer["error"]["missing"])) == (503, ["wine-api"])
    assert worker.ask("POST", "/predict/wine-api", ROWS[0])[0] == 503
    worker.wait("/ready")
    assert worker.ask("POST", "/predict/wine-api", ROWS[0])[0] == 200


def test_a_stop_finishes_what_is_under_way(project: Project, start: Callable[..., Worker]) -> None:
    """SIGTERM lets requests end, seals the logs and exits 0 within five seconds."""
    worker = start(project)
    load = Load(worker.port)
    load.until(lambda: len(load.answers) > 200, "traffic")
    began = time.monotonic()
    assert worker.stop() == 0
    assert time.monotonic() - began < 5
    assert not list((project.predictions / "deployment=wine-api" / "open").glob("*"))
    load.end()
    start(project, "serving-2")  # what waits in the socket's backlog gets its answer
    load.stop()
    assert {answer["prediction_id"] for answer in load.answers} <= set(logged(project))
    assert "Traceback" not in worker.log.read_text()


def test_the_client_speaks_to_the_worker(project: Project, start: Callable[..., Worker]) -> None:
    """The Python client takes rows in every form, raises the server's errors, and hands in labels."""
    worker = start(project)
    table = wine().drop(columns="grower")
    with Client(f"http://127.0.0.1:{worker.port}") as client:
        one = client.predict("wine-api", table.iloc[0].to_dict(), entity="müller")
        many = client.predict("wine-api", table.head(3))
        again = client.predict("wine-api", ROWS[:3])
        assert [answer["prediction"] for answer in many] == [answer["prediction"] for answer in again]
        client.label(one["prediction_id"], "anna")
        assert client.labels([(answer["prediction_id"], "anna") for answer in many]) == 3
        with pytest.raises(SchemaMismatch, match="Row 0 has no field 'alcohol'") as caught:
            client.predict("wine-api", {})
        assert caught.value.attrs == {"row": 0, "field": "alcohol"}
        with pytest.raises(SchemaMismatch, match="'hue': null"):
            client.predict("wine-api", table.head(2).assign(hue=float("nan")))
        with pytest.raises(NotFound, match="Did you mean 'wine-api'"):
            client.predict("wine-ap", ROWS[0])
        with pytest.raises(InvalidInput, match="cannot be sent"):
            client.predict("wine-api", {"hue": object()})
    store = PredictionStore(project)
    assert store.find(one["prediction_id"]).entity == "müller"
    assert store.count(deployment="wine-api", labelled=True) == 4
    assert worker.stop() == 0
    with Client(f"http://127.0.0.1:{worker.port}", timeout_s=1) as gone, pytest.raises(Unavailable):
        gone.predict("wine-api", ROWS[0])


@pytest.fixture
def registry_of(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Return the project with an MLflow server of its own."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    url, log = f"http://127.0.0.1:{port}", project.root / "mlflow.log"
    project.artifacts.mkdir(parents=True)
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--artifacts-destination", str(project.artifacts)]
    command += ["--backend-store-uri", f"sqlite:///{project.root / 'mlflow.db'}"]
    settings = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with log.open("wb") as out:
        server = subprocess.Popen(command, env=os.environ | settings, stdout=out, stderr=out)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    try:
        until = time.monotonic() + 2 * START_S
        while True:
            with contextlib.suppress(OSError, http.client.HTTPException):
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                connection.request("GET", "/health")
                if connection.getresponse().status == 200:
                    break
            assert server.poll() is None, log.read_text()[-3000:]
            assert time.monotonic() < until, log.read_text()[-3000:]
            time.sleep(0.2)
        yield project
    finally:
        server.terminate()
        server.wait(20)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_start_and_rollback_move_serving_and_the_alias(registry_of: Project) -> None:
    """Without a version the champion starts, else the newest; the alias follows, and back again."""
    from sklearn.linear_model import LogisticRegression

    from loopwright import registry

    project = registry_of
    shutil.rmtree(project.state / "scorers")
    with pytest.raises(NotFound, match="has no version yet") as caught:
        base.start(project, "idle-api")
    assert caught.value.hint == "loopwright pipeline run wine"
    table = wine()
    model = LogisticRegression(max_iter=10_000).fit(table.drop(columns="grower"), table["grower"])
    for _ in range(2):
        registry.register("wine", model, table, target="grower", project=project)
    first = base.start(project, "idle-api")
    assert [(one.name, one.version) for one in first.variants] == [("champion", 2)]
    assert registry.aliases(project, "wine") == {"champion": 2}
    assert base.start(project, "idle-api", 1).variants[0].version == 1
    assert registry.aliases(project, "wine") == {"champion": 1}
    assert base.start(project, "idle-api").variants[0].version == 1
    assert base.rollback(project, "idle-api").variants[0].version == 2
    assert registry.aliases(project, "wine") == {"champion": 2}
    with pytest.raises(NotFound, match="called '9'"):
        base.start(project, "idle-api", 9)
    with pytest.raises(NotFound, match="Did you mean 'idle-api'"):
        base.start(project, "idle-ap")
