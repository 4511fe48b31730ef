"""Running the monitors: which windows are due, what the checks say, what follows."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from loopwright.config import Project
from loopwright.ledger import Ledger, State
from loopwright.monitor.alerts import judge
from loopwright.monitor.base import Phase
from loopwright.monitor.failures import Failures
from loopwright.monitor.label_delay import LabelDelay
from loopwright.monitor.late import grown
from loopwright.monitor.results import Results
from loopwright.monitor.waiting import Waiting
from loopwright.monitor.watching import Watched
from loopwright.monitor.windows import due
from loopwright.predictions import PredictionStore
from loopwright.records import Alert, Deployment, Judged, Window

__all__ = ["judge_span", "tick"]

log = logging.getLogger(__name__)
#: A window is judged this long after its end at the earliest: clocks and queues are not exact.
SLACK = timedelta(seconds=0.5)
#: After a turn that failed.
AGAIN = timedelta(seconds=5)
#: What was found is kept so long, or as long as the log where that keeps predictions longer.
KEPT = timedelta(days=400)


@dataclass(slots=True)
class _Memory:
    """What a process knows of a deployment between two turns. It only saves work: all that counts is in the ledger."""

    watched: Watched
    revision: int
    project: Project
    at: datetime
    next: datetime
    grown: datetime
    waiting: Waiting
    begun: bool = False


class Runner:
    """Looks after the windows of all deployments of one project."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._results = Results(ledger)
        self._failures = Failures(ledger)
        self._known: dict[str, _Memory] = {}
        self._pruned: datetime | None = None

    def tick(self, project: Project, store: PredictionStore, now: datetime) -> list[Alert]:
        """Judge what is due, see `tick`."""
        opened: list[Alert] = []
        for state in self.ledger.states("deployment"):
            memory = self._remembered(project, store, state, now)
            if memory is not None and now >= memory.next:
                opened += self._turn(memory, now)
        self._prune(project, now)
        return opened

    def _remembered(
        self, project: Project, store: PredictionStore, state: State, now: datetime
    ) -> _Memory | None:
        """Return what is known of a deployment; None where nobody watches it. Most turns end with this."""
        memory = self._known.get(state.key)
        if memory is None or memory.revision != state.revision or memory.project is not project:
            deployment = state.read(Deployment)
            config = project.config.monitor.get(deployment.model)
            if config is None or state.key not in project.config.deployment or not deployment.variants:
                self._known.pop(state.key, None)
                return None
            watched = Watched(project, self.ledger, store, deployment, config, self._failures)
            waiting = Waiting(self._results, state.key, config)
            memory = _Memory(watched, state.revision, project, now, now, now, waiting)
            self._known[state.key] = memory
        elif now < memory.at:
            # The clock was set back: what was to come then is no measure any more.
            memory.next = memory.grown = now
            memory.waiting.forget()
        memory.at = now
        return memory

    def _turn(self, memory: _Memory, now: datetime) -> list[Alert]:
        watched = memory.watched
        opened: list[Alert] = []
        try:
            for window in self._new(watched, "inputs", now):
                watched.inputs(window, now)
                opened += self._alerts(watched, now)
            began = time.monotonic()
            ready = memory.waiting.ready(now)
            for window in [*ready, *self._new(watched, "labels", now)]:
                judged = watched.labels(window, self._delay(watched, now), now)
                memory.waiting.looked(judged, now)
                if judged.state == "judged":
                    opened += self._alerts(watched, now)
            if ready:
                memory.waiting.rest(now, time.monotonic() - began)
            if self._late(memory, now) or not memory.begun:
                # Also when a process begins: the last one may have been killed between a window and its alerts.
                opened += self._alerts(watched, now)
            memory.begun = True
            memory.next = self._next(memory, now)
        except Exception as error:
            log.exception("the monitors of %s failed", watched.name)
            self._failures.failed(watched.name, "monitors", str(error) or repr(error), None)
            memory.next = now + AGAIN
        return opened

    def _new(self, watched: Watched, phase: Phase, now: datetime) -> Iterable[Window]:
        """Return the windows that have ended and were never looked at."""
        after = self._results.last_end(watched.name, phase, until=now) or watched.started
        return due(watched.config.window, after=after, now=now, delay=SLACK)

    def _delay(self, watched: Watched, now: datetime) -> LabelDelay:
        return LabelDelay.read(watched.store, watched.name, now, watched.config)

    def _late(self, memory: _Memory, now: datetime) -> bool:
        """Judge the windows again that rows came into since; return whether there were any."""
        watched = memory.watched
        if now < memory.grown:
            return False
        memory.grown = now + max(watched.config.window / 2, timedelta(seconds=30))
        found = grown(self._results, watched.store, watched.name, watched.config.window, now)
        for window in found:
            watched.inputs(window, now)
            watched.labels(window, self._delay(watched, now), now)
        return bool(found)

    def _alerts(self, watched: Watched, now: datetime) -> list[Alert]:
        return judge(self.ledger, watched.name, watched.champion, watched.config, now)

    def _next(self, memory: _Memory, now: datetime) -> datetime:
        """Return when there is something to do next: a window ends, or one that waits for labels is looked at."""
        watched = memory.watched
        length = watched.config.window
        ends = [
            (self._results.last_end(watched.name, phase, until=now) or watched.started) + length + SLACK
            for phase in ("inputs", "labels")
        ]
        waiting = memory.waiting.next(now)
        return min([*ends, memory.grown, *([waiting] if waiting is not None else [])])

    def _prune(self, project: Project, now: datetime) -> None:
        """Delete old windows, once a day."""
        if self._pruned is not None and abs(now - self._pruned) < timedelta(days=1):
            return
        self._pruned = now
        self._results.prune(now - max(KEPT, project.config.log.keep or KEPT))


#: The last ledger that was looked after; a process has one project.
_last: Runner | None = None


def tick(project: Project, ledger: Ledger, store: PredictionStore, now: datetime) -> list[Alert]:
    """Judge all windows that are due and return the alerts that were opened.

    Windows of inputs are judged when they are over, those of labels when their labels have come. What was judged is read
    from the ledger, so that a killed process goes on where it stopped. A check that fails leaves its reason with the
    window, an event ``monitor.failed`` when it is a new one, and stops nothing else.
    """
    global _last
    if _last is None or _last.ledger is not ledger:
        _last = Runner(ledger)
    return _last.tick(project, store, now)


def judge_span(
    project: Project,
    ledger: Ledger,
    store: PredictionStore,
    deployment: str,
    since: datetime,
    until: datetime,
    now: datetime,
) -> list[Judged]:
    """Judge all whole windows of a span, also those that were judged before; for past rows that were brought in.

    What was found replaces what was kept. Alerts follow from the newest windows at the next turn, as ever.

    Raises
    ------
    NotFound
        There is no such deployment or no monitor of its model.
    """
    watched = Watched.open(project, ledger, store, deployment)
    delay = LabelDelay.read(store, deployment, now, watched.config)
    length = watched.config.window
    found = []
    most = int((until - since) / length) + 1
    for window in due(length, after=since, now=min(until, now), delay=timedelta(0), most=most):
        found += [watched.inputs(window, now), watched.labels(window, delay, now)]
    return found
