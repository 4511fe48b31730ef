"""The local server of a project as a subprocess on a free port, for the tests beside this file."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

START_S = 180.0


@dataclass
class Server:
    """A running local server."""

    root: Path
    port: int
    process: "subprocess.Popen[bytes]"
    start_s: float

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def restart(self) -> None:
        """Kill it and start it again at the same address, as the supervisor would."""
        self.process.kill()
        self.process.wait()
        self.process = _start(self.root, self.port)


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _start(root: Path, port: int) -> "subprocess.Popen[bytes]":
    started = time.monotonic()
    with (root / "server.log").open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "loopwright.supervisor.server", "--port", str(port)],
            env=os.environ | {"LOOPWRIGHT_PROJECT": str(root)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        while not _answers(f"http://127.0.0.1:{port}"):
            if process.poll() is not None or time.monotonic() - started > START_S:
                log = (root / "server.log").read_text()
                raise AssertionError(f"the local server did not start:\n{log[-5000:]}")
            time.sleep(0.1)
    except BaseException:
        _end(process)
        raise
    return process


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def serve(root: Path) -> Iterator[Server]:
    """Run the local server of the project in `root`; its output is shown when it ends too early."""
    port, started = free_port(), time.monotonic()
    server = Server(root, port, _start(root, port), time.monotonic() - started)
    try:
        yield server
    finally:
        _end(server.process)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health", timeout=2, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


@contextlib.contextmanager
def environment(root: Path, server: Server) -> Iterator[None]:
    """Point this process at a server, as `parts.connect` does."""
    wanted = {
        "LOOPWRIGHT_PROJECT": str(root),
        "MLFLOW_TRACKING_URI": f"{server.url}/mlflow",
        "MLFLOW_REGISTRY_URI": f"{server.url}/mlflow",
        "LOOPWRIGHT_BUFFERED_URI": f"{server.url}/mlflow",
        "PREFECT_API_URL": f"{server.url}/prefect/api",
        "PREFECT_HOME": str(root / ".loopwright" / "prefect"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
    }
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
