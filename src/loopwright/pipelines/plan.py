"""What of `loopwright.toml` runs through Prefect: the models' pipelines and the scheduled batch deployments."""

from __future__ import annotations

import os
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from loopwright.config import Project
from loopwright.records import Mode

__all__ = ["BATCH", "batches_of", "pipelines_of"]

#: Prefect deployments of batch jobs are called so, followed by the deployment's name.
BATCH = "batch-"
_LOCALTIME = Path("/etc/localtime")


def pipelines_of(project: Project) -> dict[str, list[tuple[str, str]]]:
    """Return the entrypoints of the models' pipelines, each with its schedules: cron and time zone."""
    found: dict[str, list[tuple[str, str]]] = {}
    for name, model in project.config.model.items():
        if model.pipeline is None:
            continue
        crons = found.setdefault(model.pipeline, [])
        monitor = project.config.monitor.get(name)
        for trigger in monitor.retrain_on if monitor else ():
            kind, _, cron = trigger.partition(":")
            if kind.strip() == "schedule" and (cron.strip(), _zone()) not in crons:
                crons.append((cron.strip(), _zone()))
    return found


def batches_of(project: Project) -> dict[str, list[tuple[str, str]]]:
    """Return the batch deployments that have a schedule, with it."""
    return {
        name: [(deployment.schedule, _zone())]
        for name, deployment in project.config.deployment.items()
        if deployment.mode is Mode.batch and deployment.schedule
    }


def _zone() -> str:
    """Return the machine's time zone, in which people write their schedules; UTC where it cannot be told."""
    name = os.environ.get("TZ", "").lstrip(":") or str(_LOCALTIME.resolve()).partition("zoneinfo/")[2]
    try:
        return ZoneInfo(name).key
    except (ValueError, OSError, ZoneInfoNotFoundError):  # a POSIX rule, a copied file, a broken one
        return "UTC"
