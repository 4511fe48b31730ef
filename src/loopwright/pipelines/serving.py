"""What the runner serves: one Prefect deployment for each pipeline and each scheduled batch job of the project."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from loopwright.config import FILE, Project
from loopwright.pipelines import rest
from loopwright.pipelines.entrypoints import source_file
from loopwright.pipelines.plan import BATCH, batches_of, pipelines_of

__all__ = ["Served", "put_all", "sources"]

_DESCRIBE_S = 300.0


@dataclass(frozen=True, slots=True)
class Served:
    """One Prefect deployment and the module that carries out its flow runs, with its arguments."""

    deployment_id: str
    module: str
    target: str

    def command(self, flow_run_id: str) -> list[str]:
        """Return the command that carries out one flow run."""
        arguments = (flow_run_id, self.target) if self.module == _EXECUTE else (self.target,)
        return [sys.executable, "-m", self.module, *arguments]

    @property
    def reports(self) -> bool:
        """Whether the command itself tells Prefect how the flow run goes."""
        return self.module == _EXECUTE


_EXECUTE = "loopwright.pipelines.execute"
_BATCH_RUN = "loopwright.deploy.batch.run"


def sources(project: Project) -> tuple[Any, ...]:
    """Return what the deployments depend on, to see a change: the configuration and the pipelines' files."""
    paths = {project.root / FILE, *(source_file(project, entrypoint) for entrypoint in pipelines_of(project))}
    return tuple((path, path.stat().st_mtime_ns if path.is_file() else 0) for path in sorted(paths))


def put_all(project: Project) -> tuple[list[Served], list[str]]:
    """Bring Prefect's deployments in line with the project, and return them and what is wrong with some.

    A pipeline that cannot be imported keeps its deployment: its runs fail and say why.
    """
    found, problems = [], []
    wanted = pipelines_of(project)
    described = _describe(project, list(wanted))
    for entrypoint, crons in wanted.items():
        facts = described.get(entrypoint, {})
        if "error" in facts:
            problems.append(f"{entrypoint}: {facts['error']}")
        deployment_id = rest.put_deployment(
            project,
            entrypoint,
            facts.get("name") or entrypoint.partition(":")[2],
            entrypoint=entrypoint,
            crons=crons,
            schema=facts.get("schema"),
            description=facts.get("description", ""),
        )
        found.append(Served(deployment_id, _EXECUTE, entrypoint))
    for name, crons in batches_of(project).items():
        deployment_id = rest.put_deployment(
            project, f"{BATCH}{name}", f"{BATCH}{name}", crons=crons, description=f"Batch deployment {name}"
        )
        found.append(Served(deployment_id, _BATCH_RUN, name))
    kept = {served.deployment_id for served in found}
    for deployment in rest.deployments(project):
        if deployment["id"] not in kept:
            rest.delete_deployment(project, deployment["id"])
    return found, problems


def _describe(project: Project, entrypoints: list[str]) -> dict[str, Any]:
    if not entrypoints:
        return {}
    command = [sys.executable, "-m", "loopwright.pipelines.describe", *entrypoints]
    try:
        done = subprocess.run(
            command, cwd=project.root, capture_output=True, text=True, timeout=_DESCRIBE_S, check=False
        )
        found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    except (subprocess.TimeoutExpired, IndexError, json.JSONDecodeError) as error:
        return {entrypoint: {"error": f"its module could not be read: {error}"} for entrypoint in entrypoints}
    return found
