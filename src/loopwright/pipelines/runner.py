"""The runner: carries out scheduled and requested pipeline runs, each in a process of its own.

It talks to Prefect over HTTP and imports neither Prefect nor the user's code, so that it stays small for weeks. What
Prefect's own runner leaves open is done here: runs whose process was killed are ended, and runs that were missed while
the system was off are made up for as each schedule says.
"""

import math
import os
import signal
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from types import FrameType
from typing import Any

from loopwright import parts
from loopwright.config import Project
from loopwright.errors import LoopwrightError
from loopwright.ledger import Ledger
from loopwright.pipelines import journal, rest
from loopwright.pipelines.child import Child
from loopwright.pipelines.plan import schedules
from loopwright.pipelines.scheduling import Scheduling
from loopwright.pipelines.serving import Describing, Served, put_all, sources

__all__ = ["Runner", "main"]

POLL_S = 2.0
#: How often it is looked whether Prefect still has the deployments: they can be changed and deleted on its pages.
LOOK_S = 30.0
#: After SIGTERM, a run that goes on is given so long before it is killed.
STOP_S = 3.0


class Runner:
    """Serves the pipelines of one project."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.ledger = Ledger.open(project, actor="runner")
        self.children: dict[str, Child] = {}
        self._served: dict[str, Served] = {}
        self._scheduling = Scheduling(project, self.ledger, {}, {})
        self._notes: list[str] = []
        self._seen: tuple[Any, ...] = ()
        self._describing: Describing | None = None
        self._described: dict[str, Any] | None = None
        self._look_at = 0.0
        #: Whether flow runs may be left that were taken and are carried out by nobody.
        self._unsettled = True
        self._stopping = False
        self._trouble = ""

    def run(self) -> int:
        """Serve until SIGTERM; return the exit code."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        while not self._stopping:
            parts.beat(self.project, "runner")
            try:
                self.turn()
                self._trouble = ""
            except LoopwrightError as error:  # most often the server is being restarted
                self._unsettled = True  # an answer may have been lost
                if self._trouble != error.code:  # once, not every two seconds
                    self._say(str(error))
                self._trouble = error.code
            self._sleep()
        self._stop()
        return 0

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _sleep(self) -> None:
        until = time.monotonic() + POLL_S
        while not self._stopping and time.monotonic() < until:
            time.sleep(0.1)
            if any(child.exit_code is not None for child in self.children.values()):
                return
            if self._describing and self._describing.done:
                return

    def turn(self) -> None:
        """Do once what is to be done: follow the project's files, end what has ended, start what is due."""
        self._follow()
        for child in [child for child in self.children.values() if child.exit_code is not None]:
            self._ended(child)
        self._bury()
        if self._served:
            self._settle()
            self._cancel()
            self._start_due()

    def _follow(self) -> None:
        """Serve what the project's files say now."""
        seen = sources(self.project)
        if seen != self._seen:
            if self._seen:
                self._reload()
            self._seen = sources(self.project)
            if self._describing:
                self._describing.stop()
            self._describing = Describing(self.project)
        if self._describing and self._describing.done:
            self._described, self._describing = self._describing.result(), None
            self._look_at = 0.0
        if self._described is not None and time.monotonic() >= self._look_at:
            self._put(self._described)

    def _reload(self) -> None:
        try:
            self.project = Project(self.project.root)
        except LoopwrightError as error:  # a half-edited file: go on with what was there
            self._say(str(error))

    def _put(self, described: dict[str, Any]) -> None:
        served, deployments, notes = put_all(self.project, self.ledger, described)
        targets = [each.target for each in served]
        if targets != [each.target for each in self._served.values()] or self._look_at == 0.0:
            self._say(f"serving {', '.join(targets) or 'nothing'}")
        for note in notes:
            if note not in self._notes:  # once, not every half minute
                self._say(note)
        self._served = {each.deployment_id: each for each in served}
        self._scheduling.project = self.project
        self._scheduling.schedules = {
            name: one for name, one in schedules(self.project).items() if name in deployments
        }
        self._scheduling.deployments = deployments
        self._notes = notes
        self._look_at = time.monotonic() + LOOK_S

    def _bury(self) -> None:
        """End the runs, of this runner or in a notebook, whose process was killed."""
        for entry in journal.dead(self.project):
            if entry.flow_run_id not in self.children:  # else its end is reported first, in the next turn
                journal.bury(self.project, entry, self.ledger)
                self._say(f"run {entry.run_id} ({entry.flow_run_id}): its process was killed")

    def _settle(self) -> None:
        """Settle the flow runs that were taken, by a killed runner or by an answer that was lost, and go on nowhere."""
        if not self._unsettled:
            return
        known = {entry.flow_run_id for entry in journal.alive(self.project)} | set(self.children)
        for flow_run in rest.flow_runs(
            self.project, list(self._served), ["PENDING", "RUNNING", "CANCELLING"]
        ):
            if flow_run["id"] in known:
                continue
            if flow_run["state_type"] == "PENDING":  # it had not begun
                rest.set_state(self.project, flow_run["id"], "SCHEDULED", "Taken, not begun.", force=True)
                continue
            message = f"Crashed: {journal.KILLED}."
            kind = "CANCELLED" if flow_run["state_type"] == "CANCELLING" else "CRASHED"
            rest.end(self.project, flow_run["id"], kind, message)
            rest.end_tasks(self.project, flow_run["id"], message)
        self._unsettled = False

    def _start_due(self) -> None:
        known = {entry.flow_run_id for entry in journal.alive(self.project)} | set(self.children)
        for line in self._scheduling.refill(known):
            self._say(line)
        # Asked also when no slot is free: it is what tells Prefect that the deployments are being served.
        due = rest.due(self.project, list(self._served))
        going = Counter(child.served.deployment_id for child in self.children.values())
        slots = self.project.config.runner.slots - len(self.children)
        for flow_run in self._scheduling.choose(due, going, slots):
            self._start(flow_run)

    def _start(self, flow_run: dict[str, Any]) -> None:
        served, flow_run_id = self._served[flow_run["deployment_id"]], flow_run["id"]
        if rest.set_state(self.project, flow_run_id, "PENDING") != "PENDING":
            return  # somebody cancelled it meanwhile
        schedule = self._scheduling.begin(flow_run)
        if not served.reports:
            rest.set_state(self.project, flow_run_id, "RUNNING")
        timeout_s = schedule.timeout.total_seconds() if schedule and schedule.timeout else math.inf
        child = Child(self.project, served, flow_run_id, timeout_s=timeout_s)
        self.children[flow_run_id] = child
        self._say(f"flow run {flow_run_id}: {served.target} started as process {child.pid}")

    def _ended(self, child: Child) -> None:
        child.report()
        del self.children[child.flow_run_id]
        self._scheduling.ended(child.flow_run_id)
        self._say(f"flow run {child.flow_run_id}: {child.served.target} ended with {child.exit_code}")

    def _cancel(self) -> None:
        """Stop the runs that were cancelled on Prefect's pages."""
        if not self.children:
            return
        for flow_run in rest.flow_runs(self.project, list(self._served), ["CANCELLING"]):
            if child := self.children.get(flow_run["id"]):
                child.cancel()
        for child in self.children.values():
            child.insist()

    def _stop(self) -> None:
        """End the children; each had its part of the five seconds that a part has."""
        if self._describing:
            self._describing.stop()
        for child in self.children.values():
            child.stop(STOP_S)
        while any(child.exit_code is None for child in self.children.values()):
            time.sleep(0.05)
            for child in self.children.values():
                child.insist()
        try:
            for child in list(self.children.values()):
                self._ended(child)
            self._bury()
        except LoopwrightError as error:  # the server may be gone already; the next runner does it
            self._say(str(error))
        self.ledger.close()

    def _say(self, text: str) -> None:
        print(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {text}", flush=True)  # noqa: T201


def main() -> int:
    """Serve the pipelines of the project that `LOOPWRIGHT_PROJECT` names."""
    parts.follow_supervisor()
    project = Project.find()
    os.chdir(project.root)
    return Runner(project).run()


if __name__ == "__main__":
    sys.exit(main())
