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

    url: str
    process: "subprocess.Popen[bytes]"
    start_s: float


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serve(root: Path) -> Iterator[Server]:
    """Run the local server of the project in `root`; its output is shown when it ends too early."""
    port = free_port()
    log = root / "server.log"
    started = time.monotonic()
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "loopwright.supervisor.server", "--port", str(port)],
            env=os.environ | {"LOOPWRIGHT_PROJECT": str(root)},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        url = f"http://127.0.0.1:{port}"
        while not _answers(url):
            if process.poll() is not None or time.monotonic() - started > START_S:
                raise AssertionError(f"the local server did not start:\n{log.read_text()[-5000:]}")
            time.sleep(0.1)
        yield Server(url, process, time.monotonic() - started)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


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
