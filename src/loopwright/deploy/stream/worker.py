"""The part that runs all stream deployments of a project: ``python -m loopwright.deploy.stream.worker``."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time

from filelock import FileLock, Timeout

from loopwright import parts
from loopwright.config import Project
from loopwright.deploy.base import Predictor
from loopwright.deploy.stream.base import Channel, open_channel
from loopwright.deploy.stream.consumer import BATCH, Consumer
from loopwright.errors import LoopwrightError
from loopwright.ledger import Ledger
from loopwright.predictions import Ids
from loopwright.records import Mode

__all__ = ["Reader", "main"]

logger = logging.getLogger(__name__)

#: Seconds between two looks at what is to be served.
REFRESH_S = 0.5
#: Seconds between two looks at a topic in which nothing waits; looking all the time took 5 % of a core.
IDLE_S = 0.03
#: Seconds until the next attempt after an error; doubled up to the last.
FIRST_PAUSE_S, LAST_PAUSE_S = 0.2, 10.0
#: A reader that has not come round for so long hangs; loading a version does not count.
HUNG_S = 30.0
#: Seconds given to the batches under way when the part is stopped.
STOP_S = 4.0


class Reader(threading.Thread):
    """One stream deployment in a thread of its own: ONNX Runtime and SQLite let the others run meanwhile.

    Parameters
    ----------
    project, name
        The deployment.
    ledger, ids
        Of the process.
    worker
        The part's name.
    stop
        Set to end after the batch under way.
    """

    def __init__(
        self, project: Project, name: str, *, ledger: Ledger, ids: Ids, worker: str, stop: threading.Event
    ) -> None:
        super().__init__(name=f"stream {name}", daemon=True)
        self.project, self.deployment, self.ledger, self.ids, self.stopping = project, name, ledger, ids, stop
        self.changed = threading.Event()
        self.predictor = Predictor(project, name, ledger=ledger, ids=ids, worker=worker)
        self._seen = time.monotonic()
        self._loading = False
        self._next_refresh = 0.0
        self._complaint = ""
        self._pause = FIRST_PAUSE_S

    @property
    def well(self) -> bool:
        """Whether the thread comes round, or loads a version."""
        return self.is_alive() and (self._loading or time.monotonic() - self._seen < HUNG_S)

    def run(self) -> None:
        """Answer messages until told to stop; whatever goes wrong is said once and tried again."""
        try:
            while not self.stopping.is_set():
                try:
                    # Another reader of this deployment would score everything a second time.
                    with FileLock(self.project.run / f"stream-{self.deployment}.lock", timeout=0.5):
                        self._serve(open_channel(self.project, self.deployment))
                except Timeout:
                    self._failed(f"another process reads for {self.deployment}; waiting for it to end")
                except Exception as error:  # noqa: BLE001  (one deployment's trouble must not stop the others)
                    self._failed(error)
        finally:
            self.predictor.close()

    def _serve(self, channel: Channel) -> None:
        consumer = Consumer(self.predictor, channel, ids=self.ids, ledger=self.ledger)
        try:
            while not self.stopping.is_set():
                self._seen = time.monotonic()
                try:
                    self._follow()
                    if self.served:
                        if not consumer.step():
                            self.stopping.wait(IDLE_S)
                        self._complaint, self._pause = "", FIRST_PAUSE_S
                    else:
                        self.stopping.wait(REFRESH_S)
                except Exception as error:  # noqa: BLE001  (nothing was committed: the batch is tried again)
                    self._failed(error)
        finally:
            channel.close()

    def _follow(self) -> None:
        """Now and then load what is to be served, and seal the log when that is due."""
        if time.monotonic() < self._next_refresh:
            return
        self._next_refresh = time.monotonic() + REFRESH_S
        # A version that is prepared here is compiled first, which can take minutes.
        self._loading = True
        try:
            if self.predictor.refresh():
                if self.predictor.route is not None:
                    self.predictor.route.load_for(BATCH)
                logger.info("%s serves %s", self.deployment, self.served)
                self.changed.set()
            if not self.served:
                self._say(str(self.predictor.absent()))
            self.predictor.maintain()
        finally:
            self._loading = False

    @property
    def served(self) -> dict[str, int]:
        """The version of each variant that is served now."""
        route = self.predictor.route
        return route.served if route else {}

    def _failed(self, problem: str | Exception) -> None:
        known = isinstance(problem, str | LoopwrightError)
        self._say(str(problem) if known else repr(problem))
        self._seen = time.monotonic()
        self.stopping.wait(self._pause)
        self._pause = min(self._pause * 2, LAST_PAUSE_S)

    def _say(self, text: str) -> None:
        """Log a problem, once for as long as it stays the same."""
        if text != self._complaint:
            logger.error("%s: %s", self.deployment, text)
            self._complaint = text


def _publish(ledger: Ledger, worker: str, readers: list[Reader]) -> None:
    """Note what this process serves."""
    for reader in readers:
        reader.changed.clear()
    serving = {reader.deployment: reader.served for reader in readers if reader.served}
    ledger.put("worker", worker, {"pid": os.getpid(), "serving": serving})


def main() -> int:
    """Run the stream deployments of the project until SIGTERM, and finish the batches under way."""
    logging.basicConfig(stream=sys.stdout, level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    project = Project.find()
    worker = os.environ.get(parts.PART_VARIABLE, "stream")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    parts.follow_supervisor()
    project.run.mkdir(parents=True, exist_ok=True)
    ledger, ids = Ledger.open(project, actor=worker), Ids.open(project)
    readers = [
        Reader(project, name, ledger=ledger, ids=ids, worker=worker, stop=stop)
        for name, config in project.config.deployment.items()
        if config.mode is Mode.stream
    ]
    for reader in readers:
        reader.start()
    while not stop.wait(0.5):
        if all(reader.well for reader in readers):
            parts.beat(project, worker)
        if any(reader.changed.is_set() for reader in readers):
            _publish(ledger, worker, readers)
    for reader in readers:
        # Ends a version's preparation that a reader waits for; a batch under way is finished.
        reader.predictor.stop()
    until = time.monotonic() + STOP_S
    for reader in readers:
        reader.join(max(0.0, until - time.monotonic()))
    ledger.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
