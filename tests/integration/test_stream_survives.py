"""The stream worker as a process: killed between scoring and commit, fed with poison, and stopped in order."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from four_modes import new_project, serve, wine, wine_version

from loopwright.config import Project
from loopwright.deploy import stream
from loopwright.ledger import Ledger
from loopwright.predictions import PredictionStore
from loopwright.scoring import load

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]
#: The worker, which kills itself in its third batch: the rows are scored and logged, and nothing is committed.
DYING = """
import os, signal
from loopwright.deploy.stream.sqlite import SqliteChannel
from loopwright.deploy.stream.worker import main

commit, calls = SqliteChannel.commit, []

def dying(self, batch, outputs):
    calls.append(len(batch.messages))
    if len(calls) == {which}:
        os.kill(os.getpid(), signal.SIGKILL)
    commit(self, batch, outputs)
    if len(calls) == -{which}:
        os.kill(os.getpid(), signal.SIGKILL)

SqliteChannel.commit = dying
main()
"""
#: The worker, whose process dies of one message: whenever it is among those that are scored.
DEADLY = """
import os, signal
from loopwright.deploy.stream.answering import Answering
from loopwright.deploy.stream.worker import main

predict = Answering.predict

def dying(self, these, logged):
    if any(message.key == "deadly" for message in these.messages):
        os.kill(os.getpid(), signal.SIGKILL)
    return predict(self, these, logged)

Answering.predict = dying
main()
"""
#: The worker, and at its end whether it has loaded what a long-lived process must not.
LEAN = """
import sys
from loopwright.deploy.stream.worker import main
code = main()
print("LOADED", sorted({"mlflow", "prefect", "pandas", "sklearn"} & set(sys.modules)))
sys.exit(code)
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of wine/1, prepared."""
    root = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("LOOPWRIGHT_LEDGER", raising=False)
        wine_version(new_project(root))
    return root


@pytest.fixture
def project(prepared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """Return a project of its own for each test, with wine/1 in a stream deployment."""
    monkeypatch.delenv("LOOPWRIGHT_LEDGER", raising=False)
    project = new_project(tmp_path)
    (project.state / "scorers").symlink_to(prepared / ".loopwright" / "scorers")
    serve(project, "wine-stream", 1)
    return project


class Workers:
    """Starts workers of a project and sees that none is left."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.running: list[subprocess.Popen[str]] = []

    def start(self, code: str) -> subprocess.Popen[str]:
        """Start a worker."""
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=self.project.root,
            env=os.environ | {"LOOPWRIGHT_PROJECT": str(self.project.root)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.running.append(process)
        return process

    def stop(self, process: subprocess.Popen[str]) -> str:
        """Stop a worker in order and return its output."""
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
        assert process.returncode == 0, output
        return output


@pytest.fixture
def workers(project: Project) -> Iterator[Workers]:
    """Return a way to start workers."""
    workers = Workers(project)
    yield workers
    for process in workers.running:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout:
            process.stdout.close()


PLAIN = "from loopwright.deploy.stream.worker import main; main()"


def until(true: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 60) -> None:
    """Wait for something to become true; print what the worker said when it ends before."""
    end = time.monotonic() + seconds
    while not true():
        if process.poll() is not None and process.stdout:
            pytest.fail(f"the worker ended with {process.returncode}:\n{process.stdout.read()}")
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def messages(n: int) -> list[tuple[str, bytes]]:
    """Return n rows of the wine table as messages."""
    rows = wine().drop(columns="grower").to_dict("records")
    return [(f"m{number}", json.dumps(rows[number % len(rows)]).encode()) for number in range(n)]


def send(project: Project, these: list[tuple[str, bytes]]) -> None:
    """Publish messages."""
    channel = stream.source(project, "wine-stream")
    channel.publish(these)
    channel.close()


def answers(project: Project) -> list[dict[str, Any]]:
    """Return all results in the sink's topic."""
    with sqlite3.connect(project.root / "streams.db") as connection:
        found = connection.execute("SELECT value FROM log WHERE topic = 'growers' ORDER BY off").fetchall()
    connection.close()
    return [json.loads(value) for (value,) in found]


def logged(project: Project) -> list[str]:
    """Return all prediction ids of the log."""
    return list(
        PredictionStore(project).query("select prediction_id from predictions")["prediction_id"].to_pylist()
    )


@pytest.mark.parametrize("which", [3, -3], ids=["before the commit", "behind the commit"])
def test_three_kills_around_the_commit_lose_and_repeat_nothing(
    which: int, project: Project, workers: Workers
) -> None:
    """Each of 2,600 messages has one result and one logged prediction, under the same id."""
    sent = messages(2600)
    send(project, sent)
    for _ in range(3):
        dying = workers.start(DYING.format(which=which))
        assert dying.wait(60) == -signal.SIGKILL
    last = workers.start(PLAIN)
    until(lambda: stream.progress(project, "wine-stream").waiting == 0, last)
    workers.stop(last)
    found = answers(project)
    assert [one["key"] for one in found] == [key for key, _ in sent]
    ids = [one["prediction_id"] for one in found]
    assert len(set(ids)) == len(ids) == 2600
    assert sorted(logged(project)) == sorted(ids)
    table = wine().drop(columns="grower")
    expected = load(project.scorer("wine", 1)).score({str(name): table[name].to_numpy() for name in table})
    assert [one["prediction"] for one in found[:178]] == expected.prediction.tolist()


def test_poison_is_put_aside_and_the_next_message_answered(project: Project, workers: Workers) -> None:
    """What is no JSON, no object or of the wrong type goes to the dead letters with the reason; the rest is answered."""
    good = messages(3)
    row = json.loads(good[0][1])
    poison = [
        ("torn", good[0][1][:-5]),
        ("list", b"[1, 2]"),
        ("text", json.dumps(row | {"hue": "red"}).encode()),
        ("gap", json.dumps({key: value for key, value in row.items() if key != "ash"}).encode()),
        ("bytes", b"\xff\xfe\x00"),
    ]
    send(project, [good[0], *poison, *good[1:]])
    worker = workers.start(LEAN)
    until(lambda: stream.progress(project, "wine-stream").waiting == 0, worker)
    assert stream.progress(project, "wine-stream") == stream.Progress("wine-stream", 0, 3, 5)
    output = workers.stop(worker)
    assert "LOADED []" in output
    assert [one["key"] for one in answers(project)] == ["m0", "m1", "m2"]
    with sqlite3.connect(project.root / "streams.db") as connection:
        dead = dict(connection.execute("SELECT key, error FROM dead").fetchall())
    connection.close()
    assert set(dead) == {key for key, _ in poison}
    assert "not JSON" in dead["torn"]
    assert "Expected `float`, got `str` - at `$.hue`" in dead["text"]
    assert "missing required field `ash`" in dead["gap"]
    event = Ledger.open(project).last("stream.dead", "wine-stream")
    assert event is not None
    assert event.payload["messages"] == 5


def test_a_message_that_kills_the_process_is_put_aside_after_three_tries(
    project: Project, workers: Workers
) -> None:
    """The messages before and behind it are answered once, and it ends with the dead letters."""
    sent = messages(40)
    sent[17] = ("deadly", sent[17][1])
    send(project, sent)
    deaths = 0
    while True:
        worker = workers.start(DEADLY)
        while worker.poll() is None and stream.progress(project, "wine-stream").waiting:
            time.sleep(0.05)
        if worker.poll() is None:
            break
        deaths += 1
        assert deaths < 12
    workers.stop(worker)
    assert [one["key"] for one in answers(project)] == [key for key, _ in sent if key != "deadly"]
    assert stream.progress(project, "wine-stream").refused == 1
    assert len(logged(project)) == len(set(logged(project))) == 39


def test_the_worker_says_what_it_serves_and_stops_in_order(project: Project, workers: Workers) -> None:
    """It beats, names its versions in the ledger, and ends well when told to; what comes later waits."""
    send(project, messages(5))
    worker = workers.start(PLAIN)
    until(lambda: len(answers(project)) == 5, worker)
    until((project.run / "stream.beat").exists, worker)
    ledger = Ledger.open(project)
    until(lambda: ledger.get("worker", "stream") is not None, worker)
    state = ledger.get("worker", "stream")
    assert state is not None
    assert state.value["serving"] == {"wine-stream": {"champion": 1}}
    workers.stop(worker)
    send(project, messages(2))
    assert stream.progress(project, "wine-stream").waiting == 2
