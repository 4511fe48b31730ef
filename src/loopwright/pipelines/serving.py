"""What the runner serves: one Prefect deployment for each pipeline and each scheduled batch job of the project."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import Any

from loopwright.config import FILE, Project
from loopwright.errors import InvalidInput
from loopwright.ledger import Ledger
from loopwright.pipelines import rest, standing
from loopwright.pipelines.entrypoints import source_file
from loopwright.pipelines.placing import Placed, place
from loopwright.pipelines.plan import BATCH, Schedule, entrypoints, schedules
from loopwright.pipelines.standing import Standing
from loopwright.records import now

__all__ = ["Describing", "Served", "put_all", "sources"]

_DESCRIBE_S = 300.0
_EXECUTE = "loopwright.pipelines.execute"
_BATCH_RUN = "loopwright.deploy.batch.run"


@dataclass(frozen=True, slots=True)
class Served:
    """One Prefect deployment and the module that carries out its flow runs, with its arguments."""

    deployment_id: str
    module: str
    target: str

    def command(self, flow_run_id: str) -> list[str]:
        """Return the command that carries out one flow run."""
        arguments = (flow_run_id, self.target) if self.reports else (self.target,)
        return [sys.executable, "-m", self.module, *arguments]

    @property
    def reports(self) -> bool:
        """Whether the command itself tells Prefect how the flow run goes."""
        return self.module == _EXECUTE


class Describing:
    """Asks the pipelines' modules for names and parameters, in a process beside the runner.

    Importing them may take a minute, in which the runner has other things to do.
    """

    def __init__(self, project: Project) -> None:
        self._entrypoints = entrypoints(project)
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `stop`
        self._until = time.monotonic() + _DESCRIBE_S
        command = [sys.executable, "-m", "loopwright.pipelines.describe", *self._entrypoints]
        self._process = subprocess.Popen(
            command,
            cwd=project.root,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.DEVNULL,
        )

    @property
    def done(self) -> bool:
        """Whether it has ended, or takes too long."""
        return self._process.poll() is not None or time.monotonic() > self._until

    def stop(self) -> None:
        """End the process and give back the file of its output."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._output.close()

    def result(self) -> dict[str, Any]:
        """Return the description of each entrypoint, or its error, and stop."""
        slow = self._process.poll() is None
        self._output.seek(0)
        lines = self._output.read().decode(errors="replace").strip().splitlines()
        self.stop()
        try:
            found: dict[str, Any] = json.loads(lines[-1])
        except (IndexError, json.JSONDecodeError):
            why = f"took more than {_DESCRIBE_S:.0f} s" if slow else f"ended with {self._process.returncode}"
            error = {"error": f"importing its module {why}"}
            return dict.fromkeys(self._entrypoints, error)
        return found


def sources(project: Project) -> tuple[Any, ...]:
    """Return what the deployments depend on, to see a change: the configuration and the pipelines' files."""
    paths = {project.root / FILE, *(source_file(project, entrypoint) for entrypoint in entrypoints(project))}
    return tuple((path, path.stat().st_mtime_ns if path.is_file() else 0) for path in sorted(paths))


def put_all(
    project: Project, ledger: Ledger, described: dict[str, Any]
) -> tuple[list[Served], dict[str, str], list[str]]:
    """Bring Prefect's deployments in line with the project.

    A pipeline that cannot be imported keeps its deployment: its runs fail and say why. What Prefect refuses stays as
    it was.

    Returns
    -------
    tuple
        What is served; the id of the deployment of each schedule, by its name; what people should know of some.
    """
    before = rest.deployments(project)
    known = {deployment["name"]: deployment for deployment in before}
    planned = list(schedules(project).values())
    standings = standing.read_all(ledger)
    found: list[Served] = []
    notes: list[str] = []
    ids: dict[str, str] = {}
    wanted = _wanted(project)
    for name, target, batch in wanted:
        facts = {} if batch else described.get(target, {})
        problem = str(facts.get("error", ""))
        own = [one for one in planned if one.deployment == name]
        there = known.get(name)
        placed, kept = place(own, there, standings)
        timed = [placed[one.name].body(one.name) for one in own if one.timing]
        try:
            deployment_id = rest.put_deployment(
                project,
                name,
                name if batch else facts.get("name") or target.partition(":")[2],
                entrypoint="" if batch else target,
                schedules=[*timed, *kept],
                # A module that cannot be imported just now has not lost its parameters.
                schema=there["parameter_openapi_schema"] if problem and there else facts.get("schema"),
                description=f"Batch deployment {target}" if batch else facts.get("description", ""),
                known=there,
            )
            found.append(Served(deployment_id, _BATCH_RUN if batch else _EXECUTE, target))
            ids |= dict.fromkeys((one.name for one in own), deployment_id)
        except InvalidInput as error:
            problem = str(error)
        if problem:
            notes.append(f"{name}: {problem}")
        for one in own:
            # A pause of the whole deployment holds its times in Prefect; what waits for news has none there.
            paused = bool(there and there["paused"] and one.timing)
            notes += _stand(ledger, one, placed[one.name], standings.get(one.name), paused, problem)
    for deployment in before:
        if deployment["name"] not in {name for name, _, _ in wanted}:
            rest.delete_deployment(project, deployment["id"])
    return found, ids, notes


def _wanted(project: Project) -> list[tuple[str, str, bool]]:
    """Return what is to be in Prefect: the deployment's name, what it runs, and whether that is a batch job."""
    batches = dict.fromkeys(one.target for one in schedules(project).values() if one.batch)
    pipelines = [(entrypoint, entrypoint, False) for entrypoint in entrypoints(project)]
    return [*pipelines, *((f"{BATCH}{name}", name, True) for name in batches)]


def _stand(
    ledger: Ledger, schedule: Schedule, placed: Placed, before: Standing | None, paused: bool, problem: str
) -> list[str]:
    """Write down how a schedule is in Prefect now, and return what people should know of it."""
    active = placed.active and not paused
    changes: dict[str, Any] = {
        "declared": placed.declared,
        "timing": placed.timing,
        "active": active,
        "problem": problem,
    }
    if before and active and not (before.active and before.timing == placed.timing):
        changes["settled"] = now()  # what it would have done while it was off, or otherwise, is not missed
    standing.write(ledger, schedule.name, **changes)
    return [f"schedule {schedule.name} {placed.note}"] if placed.note else []
