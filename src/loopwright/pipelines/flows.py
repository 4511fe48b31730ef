"""One run of a pipeline as Prefect sees it: a flow run with its tasks and log lines, written over Prefect's API.

Prefect's own engine is not used for this: it makes some ten calls for a flow and waits for each, and importing it takes
two seconds. What a run looks like on Prefect's pages is the same. Tasks are written as Prefect's client does since
version 3, as events that the server's recorder turns into task runs; they are sent together, a quarter of a second
after the first, while the step works.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import uuid4

from loopwright import parts
from loopwright.config import Project
from loopwright.errors import NotFound, StepFailed, Unavailable
from loopwright.pipelines import rest

__all__ = ["Flow", "Task"]

T = TypeVar("T")

#: How long what happens is collected before it is sent.
_COLLECT_S = 0.25
#: A server that is being started again is waited for so long, when a run begins and when it ends.
_PATIENCE_S = 120.0
#: Names of states beside the types that Prefect gives them.
_TYPES = {
    "Running": "RUNNING",
    "Retrying": "RUNNING",
    "AwaitingRetry": "SCHEDULED",
    "Completed": "COMPLETED",
    "Cached": "COMPLETED",
    "Failed": "FAILED",
    "TimedOut": "FAILED",
    "Crashed": "CRASHED",
}

_flow_ids: dict[tuple[str, str], str] = {}


def _now() -> str:
    return datetime.now(UTC).isoformat()


class Task:
    """One task run while it lasts. `upstream` are the tasks whose results it takes."""

    def __init__(self, flow: Flow, name: str, number: int, upstream: dict[str, list[Task]]) -> None:
        self.id = str(uuid4())
        self._flow = flow
        self._facts: dict[str, Any] = {
            "name": f"{name}-{number}",
            "task_key": name,
            "dynamic_key": str(number),
            "run_count": 0,
            "expected_start_time": _now(),
            "task_inputs": {
                argument: [{"input_type": "task_run", "id": task.id} for task in tasks]
                for argument, tasks in upstream.items()
            },
        }
        self._started = 0.0
        self._state: str | None = None

    def move(self, state: str, message: str = "") -> None:
        """Enter a state: Running, AwaitingRetry, Retrying, Completed, Cached, Failed, TimedOut or Crashed."""
        at, kind = _now(), _TYPES[state]
        if kind == "RUNNING":
            self._facts["run_count"] += 1
            self._facts.setdefault("start_time", at)
            self._started = self._started or time.monotonic()
        elif kind != "SCHEDULED":
            self._facts.setdefault("start_time", at)
            self._facts["end_time"] = at
            self._facts["total_run_time"] = time.monotonic() - self._started if self._started else 0.0
        before, self._state = self._state, kind
        shown: dict[str, Any] = {
            "type": kind,
            "name": state,
            "message": message,
            "state_details": {},
            "data": None,
        }
        name = self._facts["name"]
        self._flow.add(
            {
                "id": str(uuid4()),
                "occurred": at,
                "event": f"prefect.task-run.{state}",
                "resource": {
                    "prefect.resource.id": f"prefect.task-run.{self.id}",
                    "prefect.resource.name": name,
                    "prefect.run-count": str(self._facts["run_count"]),
                    "prefect.state-message": message,
                    "prefect.state-name": state,
                    "prefect.state-timestamp": at,
                    "prefect.state-type": kind,
                    "prefect.orchestration": "client",
                },
                "related": [
                    {
                        "prefect.resource.id": f"prefect.flow-run.{self._flow.id}",
                        "prefect.resource.role": "flow-run",
                        "prefect.resource.name": self._flow.name,
                    }
                ],
                "payload": {
                    "intended": {"from": before, "to": kind},
                    "initial_state": {"type": before, "name": before.title(), "message": ""}
                    if before
                    else None,
                    "validated_state": shown,
                    "task_run": dict(self._facts),
                },
            }
        )


class Flow:
    """One flow run while it lasts."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.id = ""
        self.name = ""
        #: The flow that it is a run of.
        self.flow_name = ""
        #: The flow run as Prefect's API describes it.
        self.facts: dict[str, Any] = {}
        self._events: list[dict[str, Any]] = []
        self._lines: list[tuple[str, int, str]] = []
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._timer: threading.Timer | None = None

    def start(self, flow: str, parameters: dict[str, Any], tags: list[str], flow_run_id: str = "") -> None:
        """Begin a new flow run of the flow with this name, or the scheduled one that is given.

        Raises
        ------
        StepFailed
            The scheduled run was cancelled, or is being run by somebody else.
        Unavailable
            Prefect does not answer.
        """
        self.flow_name = flow
        if flow_run_id:
            self.facts = self._take(flow_run_id, tags)
        else:
            body = {
                "flow_id": self._flow_id(flow),
                "parameters": parameters,
                "tags": tags,
                "state": {"type": "RUNNING", "name": "Running"},
            }
            try:
                self.facts = rest.call(self.project, "POST", "flow_runs/", body)
            except NotFound:  # the flow was deleted, or the store is a new one
                _flow_ids.clear()
                body["flow_id"] = self._flow_id(flow)
                self.facts = rest.call(self.project, "POST", "flow_runs/", body)
        self.id, self.name = str(self.facts["id"]), str(self.facts["name"])

    def _flow_id(self, flow: str) -> str:
        key = (parts.prefect_url(self.project), flow)
        if key not in _flow_ids:
            _flow_ids[key] = str(rest.call(self.project, "POST", "flows/", {"name": flow})["id"])
        return _flow_ids[key]

    def _take(self, flow_run_id: str, tags: list[str]) -> dict[str, Any]:
        found = _patiently(lambda: rest.get_flow_run(self.project, flow_run_id))
        rest.call(
            self.project, "PATCH", f"flow_runs/{flow_run_id}", {"tags": sorted({*found["tags"], *tags})}
        )
        state = rest.set_state(self.project, flow_run_id, "RUNNING", name="Running")
        if state != "RUNNING":
            raise StepFailed(f"The flow run {flow_run_id} cannot be started: it is {state.lower()}.")
        taken: dict[str, Any] = rest.get_flow_run(self.project, flow_run_id)
        return taken

    def task(self, name: str, number: int, upstream: dict[str, list[Task]]) -> Task:
        """Return a new task of this run: the n-th call of all, from 0."""
        return Task(self, name, number, upstream)

    def log(self, text: str, level: int = 20) -> None:
        """Add a line to the logs on the run's page; levels are those of `logging`."""
        with self._lock:
            self._lines.append((_now(), level, text))
        self._soon()

    def add(self, event: dict[str, Any]) -> None:
        """Send an event, soon."""
        with self._lock:
            self._events.append(event)
        self._soon()

    def _soon(self) -> None:
        with self._lock:
            if self._timer is not None:
                return
            self._timer = threading.Timer(_COLLECT_S, self._send_later)
            self._timer.daemon = True
            self._timer.start()

    def _send_later(self) -> None:
        with self._lock:
            self._timer = None
        try:
            self.send()
        except Unavailable:  # kept, and sent with the next, or at the end
            return

    def send(self) -> None:
        """Send what has been collected.

        Raises
        ------
        Unavailable
            Prefect does not answer; nothing is lost.
        """
        with self._sending:
            with self._lock:
                events, lines = list(self._events), list(self._lines)
            if events:
                rest.call(self.project, "POST", "events", events)
            if lines:
                rest.call(self.project, "POST", "logs/", [self._line(*line) for line in lines])
            with self._lock:
                del self._events[: len(events)], self._lines[: len(lines)]

    def _line(self, at: str, level: int, text: str) -> dict[str, Any]:
        return {
            "flow_run_id": self.id,
            "name": "loopwright",
            "level": level,
            "message": text,
            "timestamp": at,
        }

    def end(self, kind: str, message: str = "", name: str = "") -> None:
        """Send the rest, and end the run in a state of this type.

        Raises
        ------
        Unavailable
            Prefect has not answered for two minutes.
        """
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
        _patiently(self.send)
        _patiently(lambda: rest.set_state(self.project, self.id, kind, message[:5000], name=name, force=True))


def _patiently(call: Callable[[], T]) -> T:
    """Repeat a call while nobody answers, for two minutes."""
    until = time.monotonic() + _PATIENCE_S
    pause = 0.2
    while True:
        try:
            return call()
        except Unavailable:
            if time.monotonic() + pause > until:
                raise
            time.sleep(pause)
            pause = min(pause * 2, 2.0)
