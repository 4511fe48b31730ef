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
from loopwright.pipelines import rest
from loopwright.pipelines.entrypoints import source_file
from loopwright.pipelines.plan import BATCH, batches_of, pipelines_of

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
        self._entrypoints = list(pipelines_of(project))
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
    paths = {project.root / FILE, *(source_file(project, entrypoint) for entrypoint in pipelines_of(project))}
    return tuple((path, path.stat().st_mtime_ns if path.is_file() else 0) for path in sorted(paths))


def put_all(project: Project, described: dict[str, Any]) -> tuple[list[Served], list[str]]:
    """Bring Prefect's deployments in line with the project, and return them and what is wrong with some.

    A pipeline that cannot be imported keeps its deployment: its runs fail and say why. What Prefect refuses, such as
    a schedule with an hour 25, stays as it was.
    """
    before = rest.deployments(project)
    known = {deployment["name"]: deployment for deployment in before}
    found, problems = [], []
    names = set()
    for entrypoint, crons in pipelines_of(project).items():
        facts = described.get(entrypoint, {})
        if "error" in facts:
            problems.append(f"{entrypoint}: {facts['error']}")
        names.add(entrypoint)
        try:
            deployment_id = rest.put_deployment(
                project,
                entrypoint,
                facts.get("name") or entrypoint.partition(":")[2],
                entrypoint=entrypoint,
                crons=crons,
                schema=facts.get("schema"),
                description=facts.get("description", ""),
                known=known.get(entrypoint),
            )
            found.append(Served(deployment_id, _EXECUTE, entrypoint))
        except InvalidInput as error:
            problems.append(f"{entrypoint}: {error}")
    for target, crons in batches_of(project).items():
        name = f"{BATCH}{target}"
        names.add(name)
        try:
            deployment_id = rest.put_deployment(
                project,
                name,
                name,
                crons=crons,
                description=f"Batch deployment {target}",
                known=known.get(name),
            )
            found.append(Served(deployment_id, _BATCH_RUN, target))
        except InvalidInput as error:
            problems.append(f"{name}: {error}")
    for deployment in before:
        if deployment["name"] not in names:
            rest.delete_deployment(project, deployment["id"])
    return found, problems
