"""One serving process: ``python -m loopwright.deploy.online.worker --fd FD --name serving-1``.

The supervisor hands down a listening socket, so that connections wait while a killed worker is started again.
"""

from __future__ import annotations

import argparse
import functools
import gc
import logging
import os
import signal
import socket
import sys
import threading
from typing import Any

import pyarrow as pa
import uvicorn

from loopwright import parts
from loopwright.config import Project
from loopwright.deploy.online.app import App
from loopwright.deploy.online.follower import FOLLOW_S, UPKEEP_S, Follower, Repeat, Upkeep, online
from loopwright.deploy.online.keys import Keys
from loopwright.deploy.online.protocol import Wire
from loopwright.deploy.shadowing import Shadowing
from loopwright.errors import Denied, LoopwrightError
from loopwright.ledger import Ledger
from loopwright.predictions import Ids, LabelLog

__all__ = ["main"]

#: Seconds for requests under way after SIGTERM; then sealing the logs must still fit into five.
FINISH_S = 3
#: Seconds a connection may be idle. Long, because closing one just as its next request arrives loses that request.
IDLE_S = 75


def main() -> int:
    """Serve until SIGTERM; then finish what is under way, close the logs and return 0."""
    given = _arguments()
    logging.basicConfig(
        stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True
    )
    logging.getLogger("alembic").setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, _leave)
    parts.follow_supervisor()
    try:
        project = Project.find()
        listener = _listener(project, given.fd, given.port)
        return _Worker(project, given.name).run(listener)
    except LoopwrightError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return error.exit_code


def _arguments() -> Any:
    parser = argparse.ArgumentParser(prog="python -m loopwright.deploy.online.worker", description=__doc__)
    parser.add_argument("--fd", type=int, help="an inherited listening socket")
    parser.add_argument(
        "--port", type=int, default=0, help="where to listen without one; 0 takes a free port"
    )
    parser.add_argument("--name", default="serving-1", help="what this process is called in the ledger")
    return parser.parse_args()


def _leave(_number: int, _frame: Any) -> None:
    """End a process that does not serve yet."""
    raise SystemExit(0)


def _listener(project: Project, fd: int | None, port: int) -> socket.socket:
    if fd is not None:
        return socket.socket(fileno=fd)
    host = project.config.serving.host
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise Denied(
            f"Nothing can listen on {host}:{port}: {error.strerror}.", valid="Port 0 takes a free one."
        ) from error


class _Worker:
    """The process's parts, in the order in which they are started and, reversed, stopped."""

    def __init__(self, project: Project, name: str) -> None:
        # Arrow's own allocator keeps 45 MB more of what sealing the log takes; beside a model that is much.
        pa.set_memory_pool(pa.system_memory_pool())
        self.ledger = Ledger.open(project, actor=name)
        ids = Ids.open(project)
        self.labels = LabelLog(project, durability=project.config.serving.durability)
        self.shadowing = Shadowing()
        self.keys = Keys(self.ledger, project.config.serving.host)
        self.app = App(
            project,
            online(project, self.ledger, ids, name, self.shadowing),
            self.labels,
            ids,
            keys=self.keys,
            worker=name,
        )
        self.follower = Follower(project, self.ledger, ids, name, self.app, self.shadowing)
        self.threads = [
            Repeat("following the ledger", FOLLOW_S, self.follower.turn),
            Repeat("following the keys", FOLLOW_S, self.keys.refresh),
            Repeat("sealing the logs", UPKEEP_S, Upkeep(project, self.app, self.labels).turn),
        ]

    def run(self, listener: socket.socket) -> int:
        """Serve on a listening socket until SIGTERM."""
        # Load before the first connection is accepted: until then it waits in the socket's backlog. What must be
        # compiled first is left to the thread, which can take its time.
        self.keys.require_for(listener.getsockname()[0])
        self.follower.turn(prepare=False)
        # What is loaded by now stays: collecting garbage need not look at it again and again.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 20)
        # A thread that scores or seals gives the loop its turn sooner than after the usual 5 ms.
        sys.setswitchinterval(0.001)
        for thread in self.threads:
            thread.start()
        server = uvicorn.Server(
            uvicorn.Config(
                self.app,
                http=functools.partial(Wire, self.app),  # type: ignore[arg-type]
                interface="asgi3",
                proxy_headers=False,
                ws="none",
                lifespan="off",
                access_log=False,
                log_config=None,
                log_level="warning",
                server_header=False,
                timeout_keep_alive=IDLE_S,
                timeout_graceful_shutdown=FINISH_S,
            )
        )
        # uvicorn raises the signal again when it has ended; the handler that is there then must not end the process.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, server.handle_exit)
        host, port = listener.getsockname()[:2]
        logging.getLogger(__name__).info("serving on http://%s:%s", host, port)
        try:
            server.run([listener])
        finally:
            self.close()
        return 0

    def close(self) -> None:
        """Stop the threads, then close the logs: nothing is appended any more."""
        predictors = self.app.predictors.values()
        for predictor in predictors:
            predictor.stop()
        for thread in self.threads:
            thread.end()
        self.app.close()
        self.shadowing.close()
        for predictor in predictors:
            predictor.close()
        self.labels.close()
        self.ledger.close()


def _exit(code: int) -> None:
    """End the process, also when a thread is still inside a model that it loads or calls."""
    sys.stdout.flush()
    sys.stderr.flush()
    if any(thread is not threading.main_thread() and thread.is_alive() for thread in threading.enumerate()):
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    _exit(main())
