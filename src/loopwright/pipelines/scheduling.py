"""The schedules as the runner carries them out: what is missed or new becomes a flow run, and each run is written down."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from loopwright.config import Project
from loopwright.errors import NotFound
from loopwright.ledger import Ledger
from loopwright.pipelines import news, rest, standing
from loopwright.pipelines.admission import Decision, Due, admit
from loopwright.pipelines.filling import Interval, asks, fill
from loopwright.pipelines.outcome import outcome
from loopwright.pipelines.plan import Schedule
from loopwright.pipelines.remote import TRIGGER_TAG, tagged
from loopwright.pipelines.standing import ScheduledRun, Standing
from loopwright.pipelines.timing import Timing
from loopwright.records import now

__all__ = ["SCHEDULE_TAG", "Scheduling"]

#: Tags of a flow run that a schedule of ours has made.
SCHEDULE_TAG = "schedule:"
WHAT_TAG = "what:"
#: Prefect plans runs ahead of their time; one that is not there so long after it was never planned.
ABSENT = timedelta(seconds=60)
#: Seconds between two looks for missed times, and for runs that ended unseen.
LOOK_S = 10.0
#: At most so many missed runs are made up for at once, and kept in mind.
MOST, REMEMBERED = 150, 20


class Scheduling:
    """The declared schedules of one project while its runner lives.

    Parameters
    ----------
    schedules
        By name; those whose deployment is in Prefect.
    deployments
        The id of the Prefect deployment of each schedule, by the schedule's name.
    """

    def __init__(
        self,
        project: Project,
        ledger: Ledger,
        schedules: dict[str, Schedule],
        deployments: dict[str, str],
    ) -> None:
        self.project = project
        self.ledger = ledger
        self.schedules = schedules
        self.deployments = deployments
        self._waiting: dict[str, str] = {}
        self._looked: dict[str, int] = {}
        self._look_at = 0.0

    # what is due

    def refill(self, going: Iterable[str]) -> list[str]:
        """Make flow runs of news and of missed times, note runs that ended unseen; return what there is to say.

        Parameters
        ----------
        going
            The flow runs whose process is there.
        """
        standings = standing.read_all(self.ledger)
        said: list[str] = []
        look = time.monotonic() >= self._look_at
        if look:
            self._look_at = time.monotonic() + LOOK_S
            self._lost(standings, set(going))
        for name, schedule in self.schedules.items():
            state = standings.get(name)
            if state is None or not state.active or state.problem:
                continue
            if schedule.on:
                said += self._news(schedule, state)
            elif look:
                said += self._missed(schedule, state)
        return said

    def _news(self, schedule: Schedule, state: Standing) -> list[str]:
        if state.running:  # what happens meanwhile is found afterwards, and the run's own doing left out
            return []
        revision = self.ledger.revision()
        if schedule.on.startswith("dataset") and self._looked.get(schedule.name) == revision:
            return []  # they are read one by one, but only when some state has changed
        found, seen = news.find(self.project, self.ledger, schedule.on, state.seen)
        missed: list[datetime] = []
        if schedule.catch_up == "last":
            found = found[-1:]
        elif schedule.catch_up == "none":
            missed = [one.at for one in found if now() - one.at > schedule.max_late]
            found = [one for one in found if now() - one.at <= schedule.max_late]
        for one in found:  # before it counts as seen: a flow run with the same key is made once
            self._make(schedule, one.at, one.key, what=one.what)
        changes: dict[str, Any] = {"seen": seen}
        if found or missed:
            changes["settled"] = now()
        self._write(schedule.name, missed, **changes)
        self._looked[schedule.name] = revision
        return [f"schedule {schedule.name}: {schedule.on} has news, {one.what}" for one in found]

    def _missed(self, schedule: Schedule, state: Standing) -> list[str]:
        """Make up for times that Prefect did not plan, because no server was there either."""
        timing, moment = Timing.of(state.timing), now()
        if timing is None:
            return []
        times = timing.between(state.settled, moment - ABSENT, most=MOST)
        if not times:
            return []
        planned = [
            run
            for run in rest.planned(self.project, self.deployments[schedule.name], times[0], moment)
            if _name(run) == schedule.name
        ]
        there = {_time(run) for run in planned}
        absent = [one for one in times if one not in there]
        wanted: list[datetime] = []
        if schedule.catch_up == "all":
            wanted = absent
        elif schedule.catch_up == "last" and absent and absent[-1] > max(there, default=state.settled):
            wanted = absent[-1:]
        for one in wanted:
            self._make(schedule, one, one.isoformat())
        waiting = [_time(run) for run in planned if run["state_type"] == "SCHEDULED"]
        # What waits is not settled: it is late.
        settled = min([*waiting, *wanted], default=moment - ABSENT + timedelta(seconds=1)) - timedelta(
            seconds=1
        )
        missed = [one for one in absent if one not in wanted]
        self._write(schedule.name, missed, settled=max(settled, state.settled))
        if not absent:
            return []
        return [f"schedule {schedule.name}: {len(absent)} missed, {len(wanted)} of them made up for"]

    def _make(self, schedule: Schedule, at: datetime, key: str, *, what: str = "") -> None:
        deployment_id = self.deployments[schedule.name]
        tags = [f"{SCHEDULE_TAG}{schedule.name}", *([f"{WHAT_TAG}{what}"] if what else [])]
        rest.create_flow_run(
            self.project,
            deployment_id,
            schedule.parameters,
            tags,
            at=at,
            key=f"{deployment_id} {schedule.name} {key}",
        )

    # what starts

    def choose(self, due: list[dict[str, Any]], going: Counter[str], slots: int) -> list[dict[str, Any]]:
        """Return the flow runs to start now, and have the others' states say why they do not."""
        start = []
        for decision in admit([self._due(run) for run in due], now(), going, slots):
            if decision.action == "start":
                start.append(decision.due.flow_run)
            elif decision.action == "wait":
                self._wait(decision)
            else:
                self._give_up(decision)
        waiting = {run["id"] for run in due}
        self._waiting = {key: text for key, text in self._waiting.items() if key in waiting}
        return start

    def _due(self, run: dict[str, Any]) -> Due:
        name = _name(run)
        schedule = self.schedules.get(name)
        # Of what happened, or was asked for by a person, nothing is left out.
        droppable = schedule.timing is not None if schedule else run["auto_scheduled"]
        group = f"{run['deployment_id']} {name}" if droppable else ""
        return Due(run["id"], run["deployment_id"], _time(run), schedule, group, run)

    def _wait(self, decision: Decision) -> None:
        if self._waiting.get(decision.due.id) != decision.message:
            rest.set_state(
                self.project,
                decision.due.id,
                "SCHEDULED",
                decision.message,
                name="AwaitingConcurrencySlot",
                at=decision.due.time.isoformat(),
                force=True,
            )
            self._waiting[decision.due.id] = decision.message

    def _give_up(self, decision: Decision) -> None:
        one = decision.due
        rest.set_state(self.project, one.id, "CANCELLED", decision.message, force=True)
        if one.schedule is None:
            return
        state = standing.read(self.ledger, one.schedule.name)
        missed = [one.time] if decision.action == "miss" else []
        self._write(one.schedule.name, missed, message=decision.message, settled=max(state.settled, one.time))

    def _write(self, name: str, missed: list[datetime], *, message: str = "", **changes: Any) -> None:
        if missed:
            state = standing.read(self.ledger, name)
            changes["missed"] = tuple(sorted({*state.missed, *missed}))[-REMEMBERED:]
        event = standing.SKIPPED if missed or message else ""
        payload = {"times": missed, "reason": message or "nobody was there"} if event else None
        standing.write(self.ledger, name, event=event, payload=payload, **changes)

    # what runs

    def begin(self, run: dict[str, Any]) -> Schedule | None:
        """Fill in the parameters of a flow run that is about to start and write it down; return its schedule."""
        schedule = self.schedules.get(_name(run))
        if schedule is None:
            return None
        state = standing.read(self.ledger, schedule.name)
        at = _time(run)
        parameters, tags = run["parameters"], run["tags"]
        if asks(parameters):
            parameters = fill(parameters, _interval(state, at, tagged(tags, WHAT_TAG)))
        if not tagged(tags, TRIGGER_TAG):
            tags = [*tags, f"{TRIGGER_TAG}schedule {schedule.name}"]
        rest.update_flow_run(self.project, run["id"], parameters, tags)
        started = ScheduledRun(run["id"], time=at, started=now())
        others = tuple(one for one in state.running if one.flow_run_id != run["id"])
        standing.write(
            self.ledger,
            schedule.name,
            event=standing.STARTED,
            payload=started,
            running=(*others, started),
            settled=max(state.settled, at),
        )
        return schedule

    def ended(self, flow_run_id: str) -> None:
        """Write down how a run of a schedule has ended, whoever has told Prefect."""
        for name, state in standing.read_all(self.ledger).items():
            for run in state.running:
                if run.flow_run_id == flow_run_id:
                    self._end(name, state, run)

    def _lost(self, standings: dict[str, Standing], going: set[str]) -> None:
        for name, state in list(standings.items()):
            for run in state.running:
                if run.flow_run_id not in going:
                    standings[name] = state = self._end(name, state, run)

    def _end(self, name: str, state: Standing, run: ScheduledRun) -> Standing:
        others = tuple(one for one in state.running if one.flow_run_id != run.flow_run_id)
        schedule = self.schedules.get(name)
        try:
            found = rest.get_flow_run(self.project, run.flow_run_id)
        except NotFound:
            done = dataclasses.replace(run, status="cancelled", message="its flow run was deleted in Prefect")
        else:
            kind = found["state"]["type"]
            if kind not in rest.FINAL:
                # Taken and given back, it starts again; still running, its end is yet to be told.
                return standing.write(self.ledger, name, running=others) if kind == "SCHEDULED" else state
            done = outcome(self.project, self.ledger, schedule, run, found)
        changes: dict[str, Any] = {"running": others, "last": done}
        if done.status == "completed":
            changes["missed"] = ()
        if schedule and schedule.on:
            record = self.ledger.get("pipeline_run", done.run_id) if done.run_id else None
            digests = [one["digest"] for one in record.value["datasets"]] if record else []
            changes["seen"] = news.own(state.seen, done.run_id, digests)
        return standing.write(self.ledger, name, event=standing.ENDED, payload=done, **changes)


def _name(run: dict[str, Any]) -> str:
    """Return the name of the schedule that a flow run comes from; empty when a person asked for it."""
    if name := tagged(run["tags"], SCHEDULE_TAG):
        return name
    creator = run.get("created_by") or {}
    return str(creator.get("display_value") or "") if run["auto_scheduled"] else ""


def _time(run: dict[str, Any]) -> datetime:
    text = run.get("expected_start_time") or run.get("next_scheduled_start_time") or run["created"]
    return datetime.fromisoformat(text).replace(microsecond=0)


def _interval(state: Standing, at: datetime, what: str) -> Interval:
    """Return what a run is for: since the time before; of one that waits for news, since the run before."""
    timing = Timing.of(state.timing)
    if timing is None:
        return Interval(state.last.time if state.last else state.since, at, what)
    zone = ZoneInfo(timing.zone)
    return Interval(timing.before(at).astimezone(zone), at.astimezone(zone), what)
