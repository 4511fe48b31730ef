"""A real serving worker at its limits: too much, too late, too often, without a key, on a full disk, and at its end."""

import json
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from serving_worker import (
    JSON,
    ROWS,
    TOML,
    Load,
    Worker,
    copy_of,
    feel,
    four_versions,
    listening,
    logged,
    request,
    serve,
    workers,
)
from waiting import eventually

from loopwright.config import Project
from loopwright.deploy.online import keys
from loopwright.ledger import Ledger
from loopwright.predictions import PredictionStore

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
ROW = ROWS[0]
SHORT, LONG = "/predict/wine-api", "/predict/wine%2Dapi"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project with three fast versions and a moody one, prepared."""
    return four_versions(tmp_path_factory)


@pytest.fixture
def project(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a copy of the project that serves version 1."""
    monkeypatch.delenv("LOOPWRIGHT_LEDGER", raising=False)
    return copy_of(prepared, tmp_path)


@pytest.fixture
def start() -> Iterator[Callable[..., Worker]]:
    """Return a function that starts a worker; what still runs at the end is killed."""
    with listening() as listener, workers(listener) as begin:
        yield begin


def limit(project: Project, *lines: str, durability: str = "process") -> None:
    """Write limits into the project's configuration."""
    text = TOML.format(durability=durability).replace("[serving]", "\n".join(["[serving]", *lines]))
    (project.root / "loopwright.toml").write_text(text)


def slow(project: Project, start: Callable[..., Worker], seconds: float) -> Worker:
    """Return a worker that has noticed that its model takes its time."""
    serve(project, champion=(4, 1.0))
    feel(project, "0.05")
    worker = start(project)
    assert worker.ask("POST", SHORT, ROW)[0] == 200
    feel(project, str(seconds))
    return worker


class Together:
    """Requests that are sent at once, each on its own connection, with their answers in the order they came."""

    def __init__(self, worker: Worker, bodies: list[Any], headers: dict[str, str] | None = None) -> None:
        self.found: list[tuple[int, int, Any, dict[str, str]]] = []
        self._threads = [
            threading.Thread(target=self._send, args=(worker, number, body, headers or {}))
            for number, body in enumerate(bodies)
        ]
        for thread in self._threads:
            thread.start()

    def _send(self, worker: Worker, number: int, body: Any, headers: dict[str, str]) -> None:
        path = SHORT if number % 2 else LONG
        self.found.append((number, *worker.ask("POST", path, body, JSON | headers)))

    def wait(self) -> None:
        """Wait for all answers."""
        for thread in self._threads:
            thread.join(30)


def test_beyond_the_queue_requests_are_refused_at_once(
    project: Project, start: Callable[..., Worker]
) -> None:
    """What does not fit gets 503 with Retry-After before what waits is answered; what waits gets its answer."""
    limit(project, "queue_rows = 8")
    worker = slow(project, start, 1.5)
    before = len(logged(project))
    sent = Together(worker, [ROWS[number : number + 4] for number in range(20)])
    sent.wait()
    statuses = [status for _, status, _, _ in sent.found]
    assert sorted(set(statuses)) == [200, 503]
    assert statuses.count(200) == 2
    assert statuses[:18] == [503] * 18
    for _, status, answer, headers in sent.found:
        if status == 503:
            assert (answer["error"]["code"], headers["retry-after"]) == ("overloaded", "1")
            assert "queue_rows" in answer["error"]["hint"]
    feel(project, None)
    assert worker.ask("POST", SHORT, ROWS[:8])[0] == 200
    assert len(logged(project)) == before + 2 * 4 + 8


def test_a_deadline_that_passes_is_said_when_it_passes(
    project: Project, start: Callable[..., Worker]
) -> None:
    """A caller that waits no longer gets 504; one that waits gets its answer; the queue is empty afterwards."""
    limit(project, "queue_rows = 50")
    worker = slow(project, start, 1.0)
    patient = Together(worker, [ROW] * 4)
    time.sleep(0.3)
    hasty = Together(worker, [ROW] * 4, {"x-timeout-ms": "100"})
    hasty.wait()
    assert [status for _, status, _, _ in hasty.found] == [504] * 4
    assert {answer["error"]["code"] for _, _, answer, _ in hasty.found} == {"deadline_exceeded"}
    assert patient.found == []
    patient.wait()
    assert [status for _, status, _, _ in patient.found] == [200] * 4
    # Late in the queue is not scored at all; late in a thread is, and may be in the log.
    late = worker.ask("POST", SHORT, ROW, JSON | {"x-timeout-ms": "100", "x-request-id": "late"})
    assert (late[0], late[2]["x-request-id"]) == (504, "late")
    feel(project, None)
    # As much as the queue holds: it would be refused beside anything that was not counted out.
    eventually(
        "an empty queue",
        lambda: [worker.ask("POST", SHORT, ROWS[:49])[0] for _ in range(2)] == [200, 200],
        5.0,
    )
    answered = {answer["prediction_id"] for _, status, answer, _ in patient.found}
    assert answered <= set(logged(project))


def test_who_asks_too_often_is_told_when_to_ask_again(project: Project, start: Callable[..., Worker]) -> None:
    """Beyond the rate requests get 429 with Retry-After, whichever way they take; health is always answered."""
    limit(project, 'rate_limit = "20/m"')
    worker = start(project)
    answers = [worker.ask("POST", SHORT if turn % 2 else LONG, ROW) for turn in range(30)]
    assert [status for status, _, _ in answers] == [200] * 20 + [429] * 10
    for _, answer, headers in answers[20:]:
        assert answer["error"]["code"] == "too_many_requests"
        assert 1 <= int(headers["retry-after"]) <= 3
    assert worker.ask("GET", "/health")[0] == 200
    assert len(logged(project)) == 20


def test_a_server_with_keys_asks_for_one(project: Project, start: Callable[..., Worker]) -> None:
    """From the first key on each request needs one; a right one is let in both ways, a revoked one refused."""
    worker = start(project)
    assert worker.ask("POST", SHORT, ROW)[0] == 200
    ledger = Ledger.open(project)
    key = keys.create(ledger, "web")
    eventually("a closed door", lambda: worker.ask("POST", SHORT, ROW)[0] == 401, 5.0)
    right = [{"x-api-key": key}, {"authorization": f"Bearer {key}"}, {"authorization": f"bearer {key}"}]
    wrong: list[dict[str, str]] = [
        {},
        {"x-api-key": key[:-1]},
        {"x-api-key": ""},
        {"x-api-key": key + "é"},
        {"authorization": f"Basic {key}"},
        {"authorization": "Bearer "},
    ]
    before = len(logged(project))
    for path in (SHORT, LONG):
        for headers in right:
            assert worker.ask("POST", path, ROW, JSON | headers)[0] == 200
        for headers in wrong:
            status, answer, said = worker.ask("POST", path, ROW, JSON | headers)
            assert (status, answer["error"]["code"]) == (401, "unauthorized"), headers
            assert said["www-authenticate"] == "Bearer"
            assert key not in json.dumps(answer)
    for path in ("/v2/models/wine-api/infer", "/deployments/wine-api/invocations", "/labels"):
        assert worker.ask("POST", path, b"{}", JSON)[0] == 401
    assert worker.ask("GET", "/deployments")[0] == 401
    assert worker.ask("GET", "/health")[0] == 200
    assert len(logged(project)) == before + 6
    keys.revoke(ledger, "web")
    eventually(
        "the refusal of a revoked key",
        lambda: worker.ask("POST", SHORT, ROW, JSON | {"x-api-key": key})[0] == 401,
        5.0,
    )
    ledger.close()


def test_a_stop_answers_everything_that_was_accepted(project: Project, start: Callable[..., Worker]) -> None:
    """SIGTERM under load: what is logged is answered, what is answered is logged, and the exit code is 0."""
    worker = start(project)
    load = Load(worker.port, 8)
    load.more(300)
    with worker.connect() as quiet, worker.connect() as late:
        late.send(request(ROW)[:-10])
        worker.process.send_signal(signal.SIGTERM)
        # From here on the end has begun: what has nothing under way is closed.
        assert quiet.closed()
        late.send(request(ROW)[-10:])
        late_one = late.answer()
    assert worker.process.wait(20) == 0
    load.end()
    start(project, "serving-2")  # what waits in the socket's backlog gets its answer
    load.stop()
    # A request that was half there when the end came was accepted, too.
    assert late_one is not None
    assert (late_one.status, late_one.headers["connection"]) == (200, "close")
    answered = {answer["prediction_id"] for answer in load.answers} | {late_one.json["prediction_id"]}
    assert set(logged(project)) == answered
    # Only connections that had nothing under way may have been closed.
    assert all("RemoteDisconnected" in one or "ConnectionReset" in one for one in load.failures), (
        load.failures
    )
    assert "Traceback" not in worker.log.read_text()


def test_a_stop_waits_for_a_slow_model(project: Project, start: Callable[..., Worker]) -> None:
    """What is in a thread when the end comes is answered, and what waits behind it."""
    worker = slow(project, start, 0.8)
    sent = Together(worker, [[ROWS[number]] for number in range(4)])
    time.sleep(0.3)
    behind = Together(worker, [ROWS[10]])
    time.sleep(0.2)
    assert worker.stop() == 0
    sent.wait()
    behind.wait()
    assert [status for _, status, _, _ in [*sent.found, *behind.found]] == [200] * 5
    ids = [answer["predictions"][0]["prediction_id"] for _, _, answer, _ in sent.found]
    ids += [answer["prediction_id"] for _, _, answer, _ in behind.found]
    assert set(ids) <= set(logged(project))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits the files of another process")
@pytest.mark.parametrize("durability", ["process", "power"])
def test_on_a_full_disk_nothing_is_acknowledged(
    project: Project, start: Callable[..., Worker], durability: str
) -> None:
    """When the log takes no more, requests get 503 and are not logged; when there is space again, all goes on."""
    limit(project, durability=durability)
    worker = start(project)
    good = [worker.ask("POST", SHORT, ROWS[number])[1]["prediction_id"] for number in range(20)]
    [tail] = (project.predictions / "deployment=wine-api" / "open").iterdir()
    pid, hard = worker.process.pid, resource.RLIM_INFINITY
    # No file may grow beyond this: as on a disk that is full, a write is cut off in its middle.
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (tail.stat().st_size + 2000, hard))
    answers = []
    for number in range(60):
        answers.append(
            worker.ask("POST", SHORT if number % 2 else LONG, ROWS[number : number + 1 + number % 3])
        )
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
    statuses = [status for status, _, _ in answers]
    assert set(statuses) == {200, 503}
    assert statuses[-10:] == [503] * 10
    for status, answer, headers in answers:
        if status == 503:
            assert "could not be written" in answer["error"]["message"]
            assert headers["retry-after"] == "1"
        else:
            good += [one["prediction_id"] for one in answer["predictions"]]
    again = [worker.ask("POST", SHORT, ROWS[number]) for number in range(20)]
    assert [status for status, _, _ in again] == [200] * 20
    good += [answer["prediction_id"] for _, answer, _ in again]
    assert sorted(logged(project)) == sorted(good)
    assert worker.stop() == 0
    assert sorted(logged(project)) == sorted(good)


def test_a_label_is_not_acknowledged_either(project: Project, start: Callable[..., Worker]) -> None:
    """A label that the disk does not take gets 503, and is handed in again later."""
    worker = start(project)
    one = worker.ask("POST", SHORT, ROW)[1]["prediction_id"]
    label = {"prediction_id": one, "actual": "anna"}
    pid, hard = worker.process.pid, resource.RLIM_INFINITY
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, hard))
    status, answer, _ = worker.ask("POST", "/labels", label)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (hard, hard))
    assert (status, answer["error"]["code"]) == (503, "unavailable")
    assert PredictionStore(project).count(deployment="wine-api", labelled=True) == 0
    assert worker.ask("POST", "/labels", label)[0] == 202
    assert PredictionStore(project).count(deployment="wine-api", labelled=True) == 1
