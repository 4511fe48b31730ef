"""The runner: carries out scheduled and requested pipeline runs, each in a process of its own.

It talks to Prefect over HTTP and imports neither Prefect nor the user's code, so that it stays small for weeks. What
Prefect's own runner leaves open is done here: runs whose process was killed are ended, and of the runs that were missed
while the system was off only the newest of each schedule is made up for.
"""

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

from loopwright import parts
from loopwright.config import Project
from loopwright.errors import LoopwrightError, Unavailable
from loopwright.ledger import Ledger
from loopwright.pipelines import journal, rest
from loopwright.pipelines.serving import Served, put_all, sources

__all__ = ["Runner", "main"]

POLL_S = 2.0
#: Runs at a time: training uses all cores by itself.
SLOTS = 2
#: After SIGTERM, a run that goes on is given so long before it is killed.
STOP_S = 3.0
_LOG_LINES = 200


@dataclass
class Child:
    """One flow run and the process that carries it out."""

    flow_run_id: str
    served: Served
    process: "subprocess.Popen[bytes]"
    log: Path
    cancelled: bool = field(default=False)


class Runner:
    """Serves the pipelines of one project."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.ledger = Ledger.open(project, actor="runner")
        self.children: list[Child] = []
        self._served: dict[str, Served] = {}
        self._seen: tuple[Any, ...] = ()
        self._stopping = False
        self._silent = False

    def run(self) -> int:
        """Serve until SIGTERM; return the exit code."""
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        first = True
        while not self._stopping:
            parts.beat(self.project, "runner")
            try:
                self.turn(first=first)
                first, self._silent = False, False
            except Unavailable as error:
                if not self._silent:  # once, not every two seconds while the server restarts
                    print(error, flush=True)  # noqa: T201
                self._silent = True
            self._sleep()
        self._stop()
        return 0

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._stopping = True

    def _sleep(self) -> None:
        until = time.monotonic() + POLL_S
        while not self._stopping and time.monotonic() < until:
            time.sleep(0.1)
            if any(child.process.poll() is not None for child in self.children):
                return

    def turn(self, *, first: bool = False) -> None:
        """Do once what is to be done: follow the project's files, end what has ended, start what is due."""
        self._follow()
        for child in [child for child in self.children if child.process.poll() is not None]:
            self._ended(child)
        # One that died just now is ended in the next turn.
        ours = {child.flow_run_id for child in self.children}
        for entry in journal.dead(self.project):
            if entry.flow_run_id not in ours:
                journal.bury(self.project, entry, self.ledger)
                self._say(f"flow run {entry.flow_run_id}: its process was killed")
        if first:
            self._end_abandoned()
        self._cancel()
        self._start_due()

    def _follow(self) -> None:
        seen = sources(self.project)
        if seen == self._seen:
            return
        if self._seen:
            self._reload()
        served, problems = put_all(self.project)
        self._served = {each.deployment_id: each for each in served}
        self._seen = sources(self.project)
        self._say(f"serving {', '.join(each.target for each in served) or 'nothing'}")
        for problem in problems:
            self._say(problem)

    def _reload(self) -> None:
        try:
            self.project = Project(self.project.root)
        except LoopwrightError as error:  # a half-edited file: go on with what was there
            self._say(str(error))

    def _end_abandoned(self) -> None:
        """End the flow runs that a killed runner had taken and whose process did not come far enough to say so."""
        alive = {entry.flow_run_id for entry in journal.alive(self.project)}
        for flow_run in rest.flow_runs(
            self.project, list(self._served), ["PENDING", "RUNNING", "CANCELLING"]
        ):
            if flow_run["id"] not in alive:
                rest.end(self.project, flow_run["id"], "CRASHED", f"Crashed: {journal.KILLED}.")
                rest.end_tasks(self.project, flow_run["id"], f"Crashed: {journal.KILLED}.")

    def _start_due(self) -> None:
        if not self._served:
            return
        # Asked also when no slot is free: it is what tells Prefect that the deployments are being served.
        due = rest.due(self.project, list(self._served), datetime.now(UTC))
        busy = {child.flow_run_id for child in self.children}
        due = self._without_missed([run for run in due if run["id"] not in busy])
        for flow_run in due[: max(0, SLOTS - len(self.children))]:
            self._start(flow_run)

    def _without_missed(self, due: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Keep the newest scheduled run of each deployment and cancel those before it."""
        newest = {run["deployment_id"]: run["id"] for run in due if run["auto_scheduled"]}
        kept = []
        for run in due:
            if run["auto_scheduled"] and newest[run["deployment_id"]] != run["id"]:
                message = "Missed: nobody was there to run it, and a newer one is due."
                rest.set_state(self.project, run["id"], "CANCELLED", message, force=True)
            else:
                kept.append(run)
        return kept

    def _start(self, flow_run: dict[str, Any]) -> None:
        served = self._served[flow_run["deployment_id"]]
        flow_run_id = flow_run["id"]
        if rest.set_state(self.project, flow_run_id, "PENDING") != "PENDING":
            return  # somebody cancelled it meanwhile
        if not served.reports:
            rest.set_state(self.project, flow_run_id, "RUNNING")
        log = self.project.run / "logs" / "flows" / f"{flow_run_id}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:
            process = subprocess.Popen(
                served.command(flow_run_id),
                cwd=self.project.root,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
            )
        self.children.append(Child(flow_run_id, served, process, log))
        self._say(f"flow run {flow_run_id}: {served.target} started as process {process.pid}")

    def _ended(self, child: Child) -> None:
        """Write down how a process ended, where it could not do so itself."""
        code = child.process.returncode
        lines = _tail(child.log)
        rest.log(self.project, child.flow_run_id, lines, datetime.now(UTC))
        if child.cancelled and code != 0:
            # The process itself may have said that it crashed, because it was terminated: that was we.
            rest.set_state(self.project, child.flow_run_id, "CANCELLED", "Cancelled.", force=True)
        elif code == 0 and not child.served.reports:
            rest.end(self.project, child.flow_run_id, "COMPLETED", lines[-1] if lines else "")
        elif code > 0 and not child.served.reports:
            rest.end(self.project, child.flow_run_id, "FAILED", "\n".join(lines[-5:]))
        else:
            rest.end(self.project, child.flow_run_id, "CRASHED", f"Crashed: the process ended with {code}.")
        self.children.remove(child)
        self._say(f"flow run {child.flow_run_id}: {child.served.target} ended with {code}")

    def _cancel(self) -> None:
        """Stop the runs that were cancelled on Prefect's pages."""
        if not self.children:
            return
        wanted = {run["id"] for run in rest.flow_runs(self.project, list(self._served), ["CANCELLING"])}
        for child in self.children:
            if child.flow_run_id in wanted and not child.cancelled:
                child.cancelled = True
                child.process.terminate()

    def _stop(self) -> None:
        for child in self.children:
            child.process.terminate()
        until = time.monotonic() + STOP_S
        for child in list(self.children):
            try:
                child.process.wait(max(0.0, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()
            try:
                self._ended(child)
            except LoopwrightError as error:  # the server may be gone already; the next runner does it
                self._say(str(error))
        try:
            for entry in journal.dead(self.project):
                journal.bury(self.project, entry, self.ledger)
        except LoopwrightError as error:
            self._say(str(error))
        self.ledger.close()

    def _say(self, text: str) -> None:
        print(f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} {text}", flush=True)  # noqa: T201


def _tail(log: Path) -> list[str]:
    try:
        text = log.read_bytes()[-50_000:].decode(errors="replace")
    except OSError:
        return []
    return text.splitlines()[-_LOG_LINES:]


def main() -> int:
    """Serve the pipelines of the project that `LOOPWRIGHT_PROJECT` names."""
    parts.follow_supervisor()
    project = Project.find()
    os.chdir(project.root)
    return Runner(project).run()


if __name__ == "__main__":
    sys.exit(main())
