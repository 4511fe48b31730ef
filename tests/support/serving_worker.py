"""Real serving workers, load on them, and raw connections to them, for the tests of online serving."""

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest
from four_modes import add_version, wine, wine_version
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from loopwright.config import Project
from loopwright.deploy.base import publish
from loopwright.ledger import Ledger
from loopwright.predictions import PredictionStore
from loopwright.records import Deployment, Mode, Variant

TOML = """
[serving]
max_body = "200kB"
durability = "{durability}"
[model.wine]
target = "grower"
[deployment.wine-api]
model = "wine"
mode = "online"
[deployment.idle-api]
model = "wine"
mode = "online"
"""
START_S = 60.0
JSON = {"content-type": "application/json"}
ROWS: list[dict[str, Any]] = [
    {str(name): value for name, value in row.items()}
    for row in wine().drop(columns="grower").to_dict("records")
]
SALT = "salt"


class Worker:
    """A worker process on a listening socket that outlives it, as under the supervisor."""

    def __init__(
        self,
        project: Project,
        listener: socket.socket,
        name: str = "serving-1",
        before: tuple[str, ...] = (),
    ) -> None:
        self.project, self.name = project, name
        self.port = int(listener.getsockname()[1])
        self.log = project.root / f"{name}.log"
        arguments = ["--fd", str(listener.fileno()), "--name", name]
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                [*before, sys.executable, "-m", "loopwright.deploy.online.worker", *arguments],
                env=os.environ | {"LOOPWRIGHT_PROJECT": str(project.root), "OMP_NUM_THREADS": "1"},
                pass_fds=(listener.fileno(),),
                stdout=out,
                stderr=out,
            )

    def wait(self, path: str = "/ready") -> None:
        """Wait until the worker answers 200; when it ends or hangs, fail with what it wrote."""
        until = time.monotonic() + START_S
        while time.monotonic() < until and self.process.poll() is None:
            with contextlib.suppress(OSError, http.client.HTTPException):
                if self.ask("GET", path)[0] == 200:
                    return
            time.sleep(0.1)
        pytest.fail(f"The worker did not start:\n{self.log.read_text()[-3000:]}")

    def ask(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any, dict[str, str]]:
        """Send one request on a connection of its own."""
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, raw, JSON if headers is None else headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read()), dict(answer.getheaders())
        finally:
            connection.close()

    def connect(self, timeout_s: float = 20.0) -> "Wired":
        """Return a raw connection."""
        return Wired(self.port, timeout_s)

    def stop(self) -> int:
        """Stop the worker as the supervisor does and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def kill(self) -> None:
        """Kill the worker, which has no chance to say goodbye."""
        self.process.kill()
        self.process.wait()


@dataclass(slots=True)
class Answer:
    """One answer as it came over the wire."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


class Wired:
    """A raw connection: what is sent is what the test says, byte by byte."""

    def __init__(self, port: int, timeout_s: float) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self._read = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._read.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        """Send bytes; a connection that the other side has closed takes no more, which is no error here."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(data)

    def answer(self, *, head: bool = False) -> Answer | None:
        """Read one answer; None when the connection was closed instead."""
        with contextlib.suppress(ConnectionResetError):
            line = self._read.readline()
            if not line:
                return None
            version, status, *_ = line.split(b" ", 2)
            assert version == b"HTTP/1.1", line
            headers: dict[str, str] = {}
            while (line := self._read.readline().rstrip(b"\r\n")) != b"":
                name, _, value = line.decode("latin-1").partition(":")
                assert name.lower() not in headers, f"{name} stands there twice"
                headers[name.lower()] = value.strip()
            length = 0 if head or int(status) < 200 else int(headers["content-length"])
            return Answer(int(status), headers, self._read.read(length))
        return None

    def answers(self) -> list[Answer]:
        """Read answers until the connection is closed."""
        found = []
        while (one := self.answer()) is not None:
            found.append(one)
        return found

    def closed(self) -> bool:
        """Whether the other side closes the connection and sends nothing more."""
        try:
            return self._read.read(1) == b""
        except ConnectionResetError:
            return True


def request(
    body: Any = None,
    path: str = "/predict/wine-api",
    *headers: str,
    method: str = "POST",
    kind: str = "application/json",
) -> bytes:
    """Return a request as bytes; a body that is no bytes becomes JSON."""
    raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", "host: localhost", *headers]
    if body is not None:
        lines += [f"content-type: {kind}", f"content-length: {len(raw)}"]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + raw


class Load:
    """Threads that send rows until told to stop, and keep every answer and every failure."""

    def __init__(self, port: int, threads: int = 4, *, entities: bool = False, pause_s: float = 0.0) -> None:
        self._pause_s = pause_s
        self.port = port
        self.entities = entities
        self.answers: list[dict[str, Any]] = []
        self.failures: list[str] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(number,)) for number in range(threads)]
        for thread in self._threads:
            thread.start()

    def _send(self, number: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        turn = 0
        while not self._stop.is_set():
            turn += 1
            if self._pause_s:
                time.sleep(self._pause_s)
            row = (number * 37 + turn) % 178
            entity = f"user-{number}-{turn % 50}"
            headers = JSON | ({"x-entity": entity} if self.entities else {})
            try:
                connection.request("POST", "/predict/wine-api", json.dumps(ROWS[row]), headers)
                answer = connection.getresponse()
                found = json.loads(answer.read())
            except (OSError, http.client.HTTPException, json.JSONDecodeError) as error:
                self.failures.append(repr(error))
                connection.close()
                continue
            if answer.status == 200:
                self.answers.append(found | {"entity": entity, "row": row})
            else:
                self.failures.append(f"{answer.status} {found}")
        connection.close()

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait for something to happen under load."""
        limit = time.monotonic() + START_S
        while not condition():
            assert time.monotonic() < limit, f"{what} did not happen; failures: {self.failures[:3]}"
            time.sleep(0.02)

    def more(self, answers: int, what: str = "traffic") -> None:
        """Wait for so many answers from now on."""
        wanted = len(self.answers) + answers
        self.until(lambda: len(self.answers) >= wanted, what)

    def end(self) -> None:
        """Let the requests under way be the last; see `stop`."""
        self._stop.set()

    def stop(self) -> None:
        """Stop and wait for the last answers."""
        self._stop.set()
        for thread in self._threads:
            thread.join(40)


_prepared: dict[str, Path] = {}


def three_versions(factory: pytest.TempPathFactory) -> Path:
    """Return a project with three prepared versions of the wine model, made once for all tests; copy it."""
    if "wine" not in _prepared:
        root = factory.mktemp("three-versions")
        (root / "loopwright.toml").write_text(TOML.format(durability="process"))
        project = Project(root)
        for rows in (178, 120, 150):
            wine_version(project, seed_rows=rows)
        _prepared["wine"] = root
    return _prepared["wine"]


def copy_of(prepared: Path, folder: Path, toml: str | None = None) -> Project:
    """Return a copy of a project that serves version 1 of the wine model, with its own loopwright.toml if given."""
    shutil.copytree(prepared, folder / "project")
    if toml is not None:
        (folder / "project" / "loopwright.toml").write_text(toml)
    project = Project(folder / "project")
    serve(project, champion=(1, 1.0))
    return project


@contextlib.contextmanager
def listening() -> Iterator[socket.socket]:
    """Give a listening socket on a free port, which workers can inherit."""
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as made:
        made.set_inheritable(True)
        yield made


@contextlib.contextmanager
def workers(listener: socket.socket) -> Iterator[Callable[..., Worker]]:
    """Give a function that starts a worker and waits for it; what still runs at the end is killed."""
    started: list[Worker] = []

    def begin(
        project: Project, name: str = "serving-1", ready: str = "/ready", before: tuple[str, ...] = ()
    ) -> Worker:
        started.append(Worker(project, listener, name, before))
        started[-1].wait(ready)
        return started[-1]

    try:
        yield begin
    finally:
        for worker in started:
            worker.kill()


def serve(project: Project, name: str = "wine-api", **variants: tuple[int, float]) -> Deployment:
    """Publish variants as (version, weight); one that is called shadow is one, whatever its weight."""
    made = tuple(
        Variant(called, version, weight, shadow=called == "shadow")
        for called, (version, weight) in variants.items()
    )
    deployment = Deployment(name, "wine", Mode.online, made, salt=SALT)
    ledger = Ledger.open(project, actor="test")
    publish(ledger, deployment)
    ledger.close()
    return deployment


def logged(project: Project, deployment: str = "wine-api") -> list[str]:
    """Return the ids in the prediction log."""
    table = PredictionStore(project).table(deployment=deployment, columns=["prediction_id"])
    return list(table["prediction_id"].to_pylist())


def moody(rows: Any) -> Any:
    """Return rows as they are; the file ``mood`` in the project says how many seconds to sleep first, or ``angry``."""
    import os
    import time
    from pathlib import Path

    mood = Path(os.environ.get("LOOPWRIGHT_PROJECT", "/nowhere"), "mood")
    if mood.exists():
        said = mood.read_text()
        if said == "angry":
            raise RuntimeError("no rows today")
        time.sleep(float(said or 0))
    return rows


def four_versions(factory: pytest.TempPathFactory) -> Path:
    """Return the project of `three_versions` with a fourth, whose model calls `moody` for each batch; copy it."""
    if "moody" not in _prepared:
        root = factory.mktemp("four-versions") / "project"
        shutil.copytree(three_versions(factory), root)
        table = wine()
        model = make_pipeline(FunctionTransformer(moody), StandardScaler(), LogisticRegression(max_iter=500))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(moody, "__module__", "__main__")  # pickled by value, as a notebook's function is
            add_version(Project(root), model.fit(table.drop(columns="grower"), table["grower"]), table)
        _prepared["moody"] = root
    return _prepared["moody"]


def feel(project: Project, mood: str | None) -> None:
    """Say how the fourth version feels; see `moody`."""
    path = project.root / "mood"
    if mood is None:
        path.unlink(missing_ok=True)
    else:
        (path.with_suffix(".new")).write_text(mood)
        path.with_suffix(".new").replace(path)
