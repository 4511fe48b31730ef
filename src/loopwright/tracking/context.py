"""Tags that every MLflow run gets which is started inside a Loopwright project, whoever starts it."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

__all__ = ["RunContext"]

#: How long what git and the lock file said is believed at least, and how many times as long as it took to ask.
_FRESH_S = 5.0
_FRESH_TIMES = 100
#: MLflow's limit for the value of a tag.
_LONGEST = 5000


class RunContext:
    """The project, its commit, the locked packages, the Prefect run and the datasets a run starts with.

    MLflow calls it at each start of a run, also outside of projects, where it has nothing to say. A project whose
    configuration is wrong stays silent too: Loopwright's own commands say what is wrong with it.
    """

    def __init__(self) -> None:
        self._facts: dict[str, str] = {}
        self._where = ""
        self._until = 0.0

    def in_context(self) -> bool:
        """Whether there is a project here."""
        return bool(self._project_facts())

    def tags(self) -> dict[str, str]:
        """Return the tags by name."""
        found = self._project_facts() | _prefect() | _datasets()
        return {name: value[:_LONGEST] for name, value in found.items() if value}

    def _project_facts(self) -> dict[str, str]:
        started = time.monotonic()
        where = f"{os.environ.get('LOOPWRIGHT_PROJECT', '')}:{Path.cwd()}"
        if where != self._where or started > self._until:
            self._facts, self._where = _describe(), where
            took = time.monotonic() - started
            self._until = started + max(_FRESH_S, _FRESH_TIMES * took)
        return self._facts


def _describe() -> dict[str, str]:
    from loopwright.config import Project
    from loopwright.errors import LoopwrightError

    try:
        project = Project.find()
    except LoopwrightError:
        return {}
    from loopwright.lineage import environment

    commit, dirty = environment.commit(project)
    return {
        "loopwright.project": project.name,
        "loopwright.lock": environment.lock_digest(project),
        "mlflow.source.git.commit": commit,
        "loopwright.git_dirty": str(dirty).lower() if commit else "",
    }


def _prefect() -> dict[str, str]:
    """Return the ids of the Prefect runs this code is in; a process without Prefect is in none."""
    contexts: Any = sys.modules.get("prefect.context")
    if contexts is None:
        return {}
    flow, task = contexts.FlowRunContext.get(), contexts.TaskRunContext.get()
    found = {}
    if task:
        found["prefect.task_run_id"] = str(task.task_run.id)
        found["prefect.flow_run_id"] = str(task.task_run.flow_run_id or "")
    if flow and flow.flow_run:
        found["prefect.flow_run_id"] = str(flow.flow_run.id)
    return found


def _datasets() -> dict[str, str]:
    """Return the digests of the datasets the running pipeline has read so far."""
    recording: Any = sys.modules.get("loopwright.lineage.context")
    running = recording.recorder.get() if recording else None
    if running is None or not running.datasets:
        return {}
    return {"loopwright.datasets": ",".join(dataset.digest for dataset in running.datasets)}
