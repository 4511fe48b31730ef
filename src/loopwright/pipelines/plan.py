"""What of `loopwright.toml` runs through Prefect: the pipelines it names, and all schedules, however they are declared."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from loopwright.config import Project
from loopwright.errors import NotFound
from loopwright.pipelines.timing import Timing
from loopwright.records import Mode

__all__ = ["BATCH", "Schedule", "entrypoints", "schedule", "schedules"]

#: Prefect deployments of batch jobs are called so, followed by the deployment's name.
BATCH = "batch-"
_LOCALTIME = Path("/etc/localtime")


@dataclass(frozen=True, slots=True)
class Schedule:
    """When something runs by itself. `timing` is None for one that waits for news, named by `on`.

    `target` is an entrypoint, or with `batch` the name of a batch deployment.
    """

    name: str
    target: str
    batch: bool = False
    timing: Timing | None = None
    on: str = ""
    parameters: dict[str, Any] = field(default_factory=dict)
    catch_up: Literal["last", "all", "none"] = "last"
    max_late: timedelta = timedelta(minutes=1)
    expect: dict[str, str] = field(default_factory=dict)
    timeout: timedelta | None = None
    concurrency: int = 1
    overlap: Literal["wait", "skip"] = "wait"
    paused: bool = False

    @property
    def deployment(self) -> str:
        """The name of the Prefect deployment it belongs to."""
        return f"{BATCH}{self.target}" if self.batch else self.target

    @property
    def when(self) -> str:
        """When it runs, for people."""
        return str(self.timing) if self.timing else f"on {self.on}"


def schedules(project: Project) -> dict[str, Schedule]:
    """Return all schedules of the project by name.

    Those of `[schedule.*]` have their own name; `retrain_on` of a model makes ``retrain-<model>`` (a second one
    ``retrain-<model>-2``), the schedule of a batch deployment ``batch-<deployment>``.
    """
    found = [_declared(project, name) for name in project.config.schedule]
    found += _retraining(project)
    for name, deployment in project.config.deployment.items():
        if deployment.mode is Mode.batch and deployment.schedule:
            timing = Timing(cron=deployment.schedule, zone=_zone())
            found.append(Schedule(f"{BATCH}{name}", name, batch=True, timing=timing))
    return {one.name: one for one in found}


def schedule(project: Project, name: str) -> Schedule:
    """Return one schedule, or raise `NotFound` with the known names."""
    known = schedules(project)
    if name not in known:
        raise NotFound.among("schedule", name, known, hint="loopwright schedule list")
    return known[name]


def entrypoints(project: Project) -> list[str]:
    """Return the pipelines that `loopwright.toml` names: of models and of schedules, each once."""
    trained = [model.pipeline for model in project.config.model.values() if model.pipeline]
    scheduled = [one.target for one in schedules(project).values() if not one.batch]
    return list(dict.fromkeys([*trained, *scheduled]))


def _declared(project: Project, name: str) -> Schedule:
    config = project.config.schedule[name]
    timing = None
    if config.cron:
        timing = Timing(cron=config.cron, zone=config.timezone or _zone())
    elif config.every:
        timing = Timing(every_s=config.every.total_seconds())
    pipeline = config.pipeline
    if pipeline and ":" not in pipeline:
        pipeline = project.model(pipeline).pipeline or pipeline
    return Schedule(
        name=name,
        target=config.deployment or pipeline,
        batch=bool(config.deployment),
        timing=timing,
        on=config.on or "",
        parameters=config.parameters,
        catch_up=config.catch_up,
        max_late=config.max_late,
        expect=config.expect,
        timeout=config.timeout,
        concurrency=config.concurrency,
        overlap=config.overlap,
        paused=config.paused,
    )


def _retraining(project: Project) -> list[Schedule]:
    """Return the schedules of `retrain_on`; two models of one pipeline and one cron share the first one's."""
    found: dict[tuple[str, Timing], Schedule] = {}
    for model, monitor in project.config.monitor.items():
        pipeline = project.model(model).pipeline
        number = 0
        for trigger in monitor.retrain_on:
            kind, _, cron = trigger.partition(":")
            if kind.strip() != "schedule" or pipeline is None:
                continue
            number += 1
            name = f"retrain-{model}" + (f"-{number}" if number > 1 else "")
            timing = Timing(cron=cron.strip(), zone=_zone())
            found.setdefault((pipeline, timing), Schedule(name, pipeline, timing=timing))
    return list(found.values())


def _zone() -> str:
    """Return the machine's time zone, in which people write their schedules; UTC where it cannot be told."""
    name = os.environ.get("TZ", "").lstrip(":") or str(_LOCALTIME.resolve()).partition("zoneinfo/")[2]
    try:
        return ZoneInfo(name).key
    except (ValueError, OSError, ZoneInfoNotFoundError):  # a POSIX rule, a copied file, a broken one
        return "UTC"
