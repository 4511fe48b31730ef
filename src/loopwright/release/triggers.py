"""What starts a release: an alert, enough new labels, a scheduled training, or a person."""

from __future__ import annotations

import secrets
from datetime import datetime, timedelta

from loopwright.config import Project
from loopwright.deploy import base
from loopwright.errors import Conflict
from loopwright.ledger import Ledger
from loopwright.predictions import PredictionStore
from loopwright.records import Alert, Deployment, ModelVersion, PipelineRun, Release, ReleaseState, now

__all__ = ["look", "request"]


def request(
    project: Project, deployment: str, *, version: int | None = None, reason: str, forced: bool = False
) -> Release:
    """Start a release: of a version that is registered, or of one that is trained first.

    Parameters
    ----------
    deployment
        A started deployment.
    version
        The candidate; None trains one.
    reason
        Why, kept in the decision record.
    forced
        Go to canary even when the gate is not met; the gate is judged and recorded all the same.

    Raises
    ------
    NotFound
        No such deployment or version, or it was never started.
    Conflict
        A release of this deployment is under way, or the version serves already.
    """
    project.deployment(deployment)
    ledger = Ledger.open(project)
    try:
        served = base.current(ledger, deployment)
        if version is not None:
            from loopwright import registry

            registry.version(project, served.model, version)
            if served.variants[0].version == version:
                raise Conflict(f"{served.model}/{version} is what {deployment!r} serves already.")
        return _start(project, ledger, served, reason=reason, version=version, forced=forced)
    finally:
        ledger.close()


def _start(
    project: Project,
    ledger: Ledger,
    served: Deployment,
    *,
    reason: str,
    version: int | None = None,
    run_id: str = "",
    forced: bool = False,
    cause: int = 0,
) -> Release:
    before = ledger.get("release", served.name)
    if before is not None and not before.read(Release).state.ended:
        under_way = before.read(Release)
        raise Conflict(
            f"The release {under_way.id} of {served.name!r} is under way: it is {under_way.state}.",
            hint=f"loopwright release show {served.name}",
        )
    started = now()
    release = Release(
        id=f"r{started:%Y%m%d%H%M%S}{secrets.token_hex(2)}",
        model=served.model,
        deployment=served.name,
        state=ReleaseState.training if version is None else ReleaseState.evaluating,
        trigger=reason,
        started=started,
        changed=started,
        trigger_event=cause,
        run_id=run_id,
        champion=served.variants[0].version,
        candidate=version,
        steps=project.deployment(served.name).release.steps,
        forced=forced,
    )
    expect = before.revision if before else 0
    ledger.put("release", served.name, release, expect=expect, event="release.started", cause=cause or None)
    return release


def look(project: Project, ledger: Ledger, store: PredictionStore) -> None:
    """Start what is due: one release per deployment at a time, with a pause between two that the system starts."""
    for state in ledger.states("deployment"):
        served = state.read(Deployment)
        config = project.config.monitor.get(served.model)
        if config is None or served.name not in project.config.deployment:
            continue
        last = ledger.get("release", served.name)
        release = last.read(Release) if last else None
        if release is not None and not release.state.ended:
            continue
        _propose(ledger, served)
        if release is not None and now() - release.changed < config.cooldown:
            continue
        try:
            if not _on_alert(project, ledger, served, config.retrain_on):
                _on_schedule(project, ledger, served, release) or _on_labels(
                    project, ledger, store, served, config.retrain_on, release
                )
        except Conflict:
            continue  # somebody else has started one meanwhile


def _open_alerts(ledger: Ledger, deployment: str) -> list[Alert]:
    alerts = [
        state.read(Alert) for state in ledger.states("alert") if state.value["deployment"] == deployment
    ]
    return [alert for alert in alerts if alert.state != "resolved"]


def _on_alert(project: Project, ledger: Ledger, served: Deployment, triggers: tuple[str, ...]) -> bool:
    champion = served.variants[0].version
    for alert in _open_alerts(ledger, served.name):
        if alert.check in triggers and alert.id.startswith(f"{served.name}/{champion}/"):
            event = ledger.append(
                "training.requested",
                served.model,
                {"reason": alert.message, "alert": alert.id},
                cause=alert.event,
            )
            _start(project, ledger, served, reason=f"{alert.check} alert", cause=event.id)
            return True
    return False


def _propose(ledger: Ledger, served: Deployment) -> None:
    """Say once per drift alert that a training may be worth it; drift alone does not start one."""
    drifted = [alert for alert in _open_alerts(ledger, served.name) if alert.check == "drift"]
    if not drifted:
        return
    said = {event.cause for event in ledger.events("training.proposed", served.model, newest=True, limit=500)}
    for alert in drifted:
        if alert.event not in said:
            ledger.append("training.proposed", served.model, {"reason": alert.message}, cause=alert.event)


def _on_schedule(project: Project, ledger: Ledger, served: Deployment, last: Release | None) -> bool:
    """Take up the newest version that a scheduled run has registered since."""
    event = ledger.last("model.registered", served.model)
    version = event.read(ModelVersion) if event else None
    if event is None or version is None or version.version <= served.variants[0].version:
        return False
    if last is not None and (last.candidate or 0) >= version.version:
        return False
    state = ledger.get("pipeline_run", version.run_id)
    if state is None or not state.read(PipelineRun).trigger.startswith("schedule"):
        return False
    _start(
        project,
        ledger,
        served,
        reason="schedule",
        version=version.version,
        run_id=version.run_id,
        cause=event.id,
    )
    return True


def _on_labels(
    project: Project,
    ledger: Ledger,
    store: PredictionStore,
    served: Deployment,
    triggers: tuple[str, ...],
    last: Release | None,
) -> bool:
    wanted = [int(trigger.partition(":")[2]) for trigger in triggers if trigger.startswith("labels")]
    if not wanted:
        return False
    since: datetime = last.started if last else served.changed
    if now() - since < timedelta(seconds=5):
        return False
    found = store.count(deployment=served.name, since=since, labelled=True)
    if found < min(wanted):
        return False
    _start(project, ledger, served, reason=f"{found} new labels")
    return True
