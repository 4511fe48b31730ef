"""One serving process: ``python -m loopwright.deploy.online.worker --fd FD --name serving-1``.

The supervisor hands down a listening socket, so that connections wait while a killed worker is started again.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import socket
import threading
import time

import uvicorn

from loopwright import parts
from loopwright.config import Project
from loopwright.deploy.base import Predictor
from loopwright.deploy.online.app import App
from loopwright.errors import LoopwrightError, NotFound
from loopwright.ledger import Ledger
from loopwright.predictions import Ids, LabelLog
from loopwright.records import Mode

__all__ = ["main"]

log = logging.getLogger(__name__)
#: Seconds between two looks at the ledger for news.
FOLLOW_S = 0.25


class _Follower(threading.Thread):
    """Follows the ledger and tends the logs beside the event loop, so that neither ever holds a request."""

    def __init__(self, name: str, ledger: Ledger, predictors: dict[str, Predictor], labels: LabelLog) -> None:
        super().__init__(name="follower", daemon=True)
        self._worker, self._ledger, self._predictors, self._labels = name, ledger, predictors, labels
        self._ended = threading.Event()
        self._revision = -1

    def follow(self) -> None:
        """Load what the deployments serve now, where that is news."""
        revision = self._ledger.revision()
        if revision == self._revision:
            return
        changed = False
        for name, predictor in self._predictors.items():
            try:
                changed |= predictor.refresh()
            except NotFound:
                continue  # declared, not started yet
            except LoopwrightError:
                log.exception("deployment %s does not follow the ledger", name)
        self._revision = revision
        if changed:
            serving = {
                name: {variant.name: variant.version for variant in predictor.deployment.variants}
                for name, predictor in self._predictors.items()
                if predictor.ready
            }
            self._ledger.put("worker", self._worker, {"pid": os.getpid(), "serving": serving})

    def run(self) -> None:
        """Follow until told to end; an error is logged and tried again."""
        maintained = time.monotonic()
        while not self._ended.wait(FOLLOW_S):
            try:
                self.follow()
                if time.monotonic() - maintained > 1:
                    maintained = time.monotonic()
                    for predictor in self._predictors.values():
                        predictor.maintain()
                    self._labels.maintain()
            except Exception:
                log.exception("following the ledger failed; trying again")

    def end(self) -> None:
        """Stop following."""
        self._ended.set()
        self.join(10)


def main() -> None:
    """Serve until SIGTERM: then finish what is in flight, close the logs and exit."""
    parser = argparse.ArgumentParser(prog="python -m loopwright.deploy.online.worker")
    parser.add_argument("--fd", type=int, help="an inherited listening socket")
    parser.add_argument("--port", type=int, default=0, help="where to listen without one")
    parser.add_argument("--name", default="serving-1")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("alembic").setLevel(logging.WARNING)
    project = Project.find()
    parts.follow_supervisor()
    ledger = Ledger.open(project, actor=given.name)
    ids, labels = Ids.open(project), LabelLog(project, durability=project.config.serving.durability)
    online = [name for name, config in project.config.deployment.items() if config.mode is Mode.online]
    predictors = {
        name: Predictor(project, name, ledger=ledger, ids=ids, worker=given.name) for name in online
    }
    follower = _Follower(given.name, ledger, predictors, labels)
    # Load before the first connection is accepted: until then it waits in the socket's backlog.
    follower.follow()
    follower.start()
    config = uvicorn.Config(
        App(project, predictors, labels, ids),
        host=project.config.serving.host,
        port=given.port,
        http="httptools",
        loop="uvloop",
        ws="none",
        lifespan="off",
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=4,
    )
    sockets = [socket.socket(fileno=given.fd)] if given.fd is not None else None
    try:
        uvicorn.Server(config).run(sockets)
    finally:
        follower.end()
        for predictor in predictors.values():
            with contextlib.suppress(LoopwrightError):
                predictor.close()
        labels.close()


if __name__ == "__main__":
    main()
