"""Running the monitors: which windows are due, what the checks say, what follows."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from loopwright import plugins
from loopwright.config import MonitorConfig, Project
from loopwright.errors import LoopwrightError
from loopwright.ledger import Ledger
from loopwright.monitor.alerts import judge
from loopwright.monitor.base import Check, Context, Phase
from loopwright.monitor.metrics import default_metric
from loopwright.monitor.windows import due
from loopwright.predictions import PredictionStore
from loopwright.predictions.privacy import left_out
from loopwright.records import Alert, Deployment, ModelVersion, Signal, Task, Window
from loopwright.registry.profile import Profile, read_profile

__all__ = ["tick"]

log = logging.getLogger(__name__)
#: A window is judged this long after its end at the earliest: clocks and queues are not exact.
SLACK = timedelta(seconds=0.5)


def tick(project: Project, ledger: Ledger, store: PredictionStore, now: datetime) -> list[Alert]:
    """Judge all windows that are due and return the alerts that were opened.

    What was judged is read from the ledger, so that a killed process goes on where it stopped. A check that fails
    leaves an event ``monitor.failed`` and stops nothing else.
    """
    opened: list[Alert] = []
    for state in ledger.states("deployment"):
        deployment = state.read(Deployment)
        config = project.config.monitor.get(deployment.model)
        if config is None or deployment.name not in project.config.deployment:
            continue
        for phase in ("inputs", "labels"):
            opened += _phase(project, ledger, store, deployment, config, phase, now)
    return opened


def _phase(
    project: Project,
    ledger: Ledger,
    store: PredictionStore,
    deployment: Deployment,
    config: MonitorConfig,
    phase: Phase,
    now: datetime,
) -> list[Alert]:
    delay = SLACK + (config.performance.label_delay if phase == "labels" else timedelta(0))
    opened: list[Alert] = []
    champion = deployment.variants[0].version
    for window in due(config.window, after=_judged(ledger, deployment, phase), now=now, delay=delay):
        signals = _signals(project, ledger, store, deployment, config, phase, window, champion)
        ledger.append(
            "monitor.window", deployment.name, {"window": window, "phase": phase, "signals": signals}
        )
        opened += judge(ledger, deployment.name, phase, champion, config.window.total_seconds())
    return opened


def _judged(ledger: Ledger, deployment: Deployment, phase: Phase) -> datetime:
    """Return the end of the last window judged, or when the deployment was first started."""
    for event in reversed(ledger.events("monitor.window", deployment.name, newest=True, limit=20)):
        if event.payload["phase"] == phase:
            return datetime.fromisoformat(event.payload["window"]["end"])
    started = ledger.events("deployment.changed", deployment.name, limit=1)
    return started[0].at if started else deployment.changed


def _signals(
    project: Project,
    ledger: Ledger,
    store: PredictionStore,
    deployment: Deployment,
    config: MonitorConfig,
    phase: Phase,
    window: Window,
    champion: int,
) -> list[Signal]:
    table = store.table(deployment=deployment.name, since=window.start, until=window.end)
    # What the log does not keep as it came would look like drift: only missing values, or only unseen ones.
    hidden = {f"input_{name}" for name in left_out(project.config.deployment[deployment.name])}
    table = table.drop_columns(sorted(hidden.intersection(table.column_names)))

    def query(sql: str) -> Any:
        found = store.query(sql, deployment=deployment.name, since=window.start, until=window.end)
        return found.column(0)[0].as_py() if found.num_rows and found.num_columns else None

    context = Context(
        model=deployment.model,
        deployment=deployment.name,
        window=window,
        config=config,
        champion=champion,
        table=table,
        profile=_profiles(project, deployment.model),
        query=query,
        metric=_metric(ledger, deployment, config, champion),
    )
    signals: list[Signal] = []
    for name in plugins.names("check"):
        check: Check = plugins.load("check", name)()
        if check.phase != phase:
            continue
        try:
            signals += check.run(context)
        except LoopwrightError as error:
            ledger.append(
                "monitor.failed", deployment.name, {"check": name, "window": window, "reason": str(error)}
            )
        except Exception as error:
            log.exception("check %s of %s failed", name, deployment.name)
            ledger.append(
                "monitor.failed", deployment.name, {"check": name, "window": window, "reason": repr(error)}
            )
    return signals


def _profiles(project: Project, model: str) -> Callable[[int], Profile | None]:
    known: dict[int, Profile | None] = {}

    def profile(version: int) -> Profile | None:
        if version not in known:
            known[version] = None
            with contextlib.suppress(LoopwrightError, OSError):
                known[version] = read_profile(project.scorer(model, version) / "profile.json")
        return known[version]

    return profile


def _metric(ledger: Ledger, deployment: Deployment, config: MonitorConfig, champion: int) -> str:
    if config.performance.metric:
        return config.performance.metric
    state = ledger.get("model_version", f"{deployment.model}/{champion}")
    signature = state.read(ModelVersion).signature if state else None
    return default_metric(signature.task if signature else Task.classification)
