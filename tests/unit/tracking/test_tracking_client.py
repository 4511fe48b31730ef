"""Logging through MLflow's own client, to a server that dies while it answers."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest


class Breaking(HTTPServer):
    """A server whose first `broken` answers end between their head and their body; `seen` counts the requests."""

    broken = 0
    seen = 0


class _Answer(BaseHTTPRequestHandler):
    server: Breaking

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.seen += 1
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", "2")
        self.end_headers()
        if self.server.seen > self.server.broken:
            self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def server() -> Iterator[Breaking]:
    """Start a server on a free port."""
    with Breaking(("127.0.0.1", 0), _Answer) as made:
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield made
        made.shutdown()
        thread.join()


#: In a process of its own: the broken connections that MLflow's client leaves would be found open by later tests.
LOG = """
import sys
from mlflow import MlflowClient
from mlflow.entities import Param
from loopwright.tracking.client import _twice
_twice(MlflowClient(sys.argv[1]).log_batch, "0" * 32, params=[Param("depth", "6")])
"""


def log_to(server: Breaking) -> subprocess.CompletedProcess[str]:
    """Log a parameter."""
    command = [sys.executable, "-c", LOG, f"http://127.0.0.1:{server.server_port}"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_an_answer_that_breaks_off_is_asked_for_once_more(server: Breaking) -> None:
    """MLflow's client gives up on it; what is logged may be repeated, and is. Twice in a row is an error."""
    server.broken = 1
    assert log_to(server).returncode == 0
    assert server.seen == 2
    server.broken = 10
    assert "Connection broken" in log_to(server).stderr
    assert server.seen == 4
