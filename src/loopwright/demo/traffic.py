"""Requests at a steady rate over real HTTP, with labels that come later."""

import http.client
import json
import queue
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from loopwright.demo.scenario import Row
from loopwright.records import Scalar

__all__ = ["Sent", "Traffic"]

CONNECTIONS = 3
LABEL_DELAY_S = 2.0


@dataclass(frozen=True, slots=True)
class Sent:
    """One request that was answered. `at` is in monotonic seconds."""

    at: float
    row: Row
    prediction_id: str
    prediction: Scalar
    version: int
    variant: str
    latency_ms: float


class Traffic:
    """Sends rows until stopped; every answer is kept, and every failure counted.

    Parameters
    ----------
    host, port
        Where the serving workers listen.
    deployment
        Which deployment is asked.
    rows
        What is sent, one request each.
    rate
        Requests per second.
    """

    def __init__(self, host: str, port: int, deployment: str, rows: Iterator[Row], rate: float) -> None:
        self._host, self._port, self._path = host, port, f"/predict/{deployment}"
        self._rows, self._rate = rows, rate
        self._todo: queue.Queue[Row] = queue.Queue(maxsize=1000)
        self._unlabelled: deque[Sent] = deque()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.sent: list[Sent] = []
        self.failures: list[str] = []
        self._threads = [
            threading.Thread(target=self._produce, name="rows", daemon=True),
            threading.Thread(target=self._label, name="labels", daemon=True),
            *(
                threading.Thread(target=self._send, name=f"sender-{n}", daemon=True)
                for n in range(CONNECTIONS)
            ),
        ]

    @property
    def requests(self) -> int:
        """How many requests were made, failed ones included."""
        return len(self.sent) + len(self.failures)

    def start(self) -> None:
        """Start sending."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop sending and wait until the last answer is there."""
        self._stop.set()
        for thread in self._threads:
            thread.join(15)

    def since(self, at: float) -> list[Sent]:
        """Return what was answered since a moment, in monotonic seconds."""
        return [sent for sent in list(self.sent) if sent.at >= at]

    def _produce(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            self._todo.put(next(self._rows))
            due = max(due + 1.0 / self._rate, time.monotonic() - 1.0)
            time.sleep(max(0.0, due - time.monotonic()))

    def _send(self) -> None:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=30)
        while not (self._stop.is_set() and self._todo.empty()):
            try:
                row = self._todo.get(timeout=0.2)
            except queue.Empty:
                continue
            started = time.monotonic()
            try:
                status, body = _post(connection, self._path, row.fields, {"x-entity": row.entity})
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
                continue
            if status != 200:
                self.failures.append(f"{status}: {body}")
                continue
            sent = Sent(
                started,
                row,
                body["prediction_id"],
                body["prediction"],
                body["version"],
                body["variant"],
                (time.monotonic() - started) * 1000,
            )
            with self._lock:
                self.sent.append(sent)
                self._unlabelled.append(sent)
        connection.close()

    def _label(self) -> None:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=30)
        while not self._stop.wait(0.4):
            old = time.monotonic() - LABEL_DELAY_S
            due = []
            while self._unlabelled and self._unlabelled[0].at < old:
                due.append(self._unlabelled.popleft())
            if not due:
                continue
            labels = [{"prediction_id": sent.prediction_id, "actual": sent.row.actual} for sent in due]
            try:
                status, body = _post(connection, "/labels", labels, {})
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
                connection.close()
                continue
            if status >= 300:
                self.failures.append(f"{status}: {body}")
        connection.close()


def _post(
    connection: http.client.HTTPConnection, path: str, body: object, headers: dict[str, str]
) -> tuple[int, dict[str, Any]]:
    connection.request("POST", path, json.dumps(body), {"content-type": "application/json", **headers})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())
