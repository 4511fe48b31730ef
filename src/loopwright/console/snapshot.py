"""All that the pages show, computed from the ledger and the prediction log. Nothing here knows about pages.

Costs are bounded: the log is read over `traffic.SPAN_S` seconds, the ledger by newest events of exact kinds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

from loopwright import parts
from loopwright.config import Project
from loopwright.console import schedules, serving, traffic
from loopwright.console.links import Links
from loopwright.console.monitoring.health import health
from loopwright.console.monitoring.performance import PerformanceOf
from loopwright.console.monitoring.source import Source
from loopwright.console.monitoring.views import Health
from loopwright.console.releases import release_now
from loopwright.console.sentences import KINDS, entry
from loopwright.console.views import (
    Card,
    Entry,
    Glance,
    Link,
    Marker,
    MetricNow,
    Numbers,
    Point,
    ReleaseNow,
    Series,
    Share,
    Story,
)
from loopwright.deploy.overview import try_address
from loopwright.errors import Unavailable
from loopwright.ledger import Event, Ledger
from loopwright.predictions import files
from loopwright.records import (
    Alert,
    Deployment,
    Mode,
    ModelVersion,
    PipelineRun,
    Release,
    Signature,
    Variant,
    Verdict,
)

__all__ = ["Moment", "glance", "story"]

#: Lines in the timeline and in the table of alerts.
ENTRIES, ALERTS = 40, 20
#: Windows in the line of the metric.
_WINDOWS = 60
#: Kinds of event whose subject is the deployment; those of the model and of its pipeline.
_OF_MODEL = ("alert.", "training.", "model.", "scorer.", "alias.", "parity.")
#: How a deployment that was started gets its first prediction.
_FIRST = {
    Mode.online: "curl --json '{{...}}' {url}/predict/{name}",
    Mode.batch: "loopwright deployment run {name}",
    Mode.stream: "loopwright stream send {name} rows.jsonl",
    Mode.edge: "loopwright edge bundle {name}",
}


@dataclass(frozen=True, slots=True)
class Moment:
    """What all views of one refresh share: where it was read from, and the prediction log as it was then.

    `healths` is what the monitors of each deployment found. `signatures` has the models that are registered; None for one that was registered by hand, without a signature.
    `asleep` are the deployments whose model is unloaded until somebody asks.
    """

    source: Source
    signatures: Mapping[str, Signature | None]
    logs: Mapping[str, traffic.Traffic]
    alerts: tuple[Alert, ...]
    healths: Mapping[str, Health]
    asleep: frozenset[str] = frozenset()

    @classmethod
    def read(cls, source: Source) -> Moment:
        """Read what the monitors found, the alerts, and the log of what is deployed."""
        project, ledger = source.project, source.ledger
        newest: dict[str, ModelVersion] = {}
        for version in (state.read(ModelVersion) for state in ledger.states("model_version")):
            if version.model not in newest or version.version > newest[version.model].version:
                newest[version.model] = version
        signatures = {model: version.signature for model, version in newest.items()}
        alerts = [state.read(Alert) for state in ledger.states("alert")]
        healths = {name: health(source, name, alerts) for name in project.config.deployment}
        logs = _logs(source, signatures, healths)
        return cls(
            source, signatures, logs, tuple(alerts), healths, serving.asleep(project, ledger, source.at)
        )

    @property
    def project(self) -> Project:
        """The project."""
        return self.source.project

    @property
    def ledger(self) -> Ledger:
        """Its ledger."""
        return self.source.ledger

    @property
    def at(self) -> datetime:
        """When all of it was read."""
        return self.source.at

    def log(self, name: str) -> traffic.Traffic:
        """Return the traffic of a deployment."""
        return self.logs.get(name, traffic.NOTHING)


def _logs(
    source: Source, signatures: Mapping[str, Signature | None], healths: Mapping[str, Health]
) -> dict[str, traffic.Traffic]:
    """Return the traffic of all deployments.

    Of a busy one the live counts are read, else the log: it has more detail, and few rows cost little. Labels are only
    joined where no monitor judges them by windows.
    """
    project, store, at = source.project, source.store, source.at
    logs: dict[str, traffic.Traffic] = {}
    logged = files.deployments(project)
    by_model: dict[str, list[str]] = {}
    for name, declared in project.config.deployment.items():
        if name in logged:
            by_model.setdefault(declared.model, []).append(name)
    for model, names in by_model.items():
        counted = {name: traffic.counted(source.live, name, at) for name in names}
        logs |= {name: found for name, found in counted.items() if found is not None}
        left = [name for name in names if counted[name] is None]
        if all(healths[name].metric is not None for name in left):
            logs |= {name: traffic.read_unlabelled(store, name, at) for name in left}
            continue
        signature = signatures.get(model)
        metric, _ = traffic.metric_of(project, model, signature)
        found = traffic.read(store, model, metric, signature, traffic.metric_step_s(project, model), at)
        logs |= {name: found.get(name, traffic.NOTHING) for name in left}
    return logs


def glance(moment: Moment) -> Glance:
    """Return one card per declared deployment, the one with most trouble first."""
    names = sorted(moment.project.config.deployment, key=lambda name: -moment.healths[name].trouble)
    cards = tuple(_card(moment, name) for name in names)
    planned = schedules.lines(moment.project, moment.ledger, moment.at)
    return Glance(moment.project.name, moment.at, cards, planned)


def story(moment: Moment, name: str, links: Links | None = None) -> Story:
    """Return everything about one deployment.

    Raises
    ------
    NotFound
        No deployment of this name is declared.
    """
    moment.project.deployment(name)
    links = links or Links()
    card, log = _card(moment, name), moment.log(name)
    events = _events(moment, name)
    mine = [alert for alert in moment.alerts if alert.deployment == name]
    mine.sort(key=lambda alert: (alert.state == "resolved", alert.check == "drift", -alert.since.timestamp()))
    since = moment.at - timedelta(seconds=traffic.SPAN_S)
    return Story(
        project=moment.project.name,
        since=since,
        at=moment.at,
        card=card,
        links=_links(moment, card, links),
        traffic=log.ticks,
        metric=log.metric or _by_window(moment, name),
        markers=tuple(_markers(events, since)),
        alerts=tuple(mine[:ALERTS]),
        timeline=_folded(entry(event, links) for event in reversed(events))[:ENTRIES],
        serving=serving.read(moment.project, moment.ledger, name, moment.at),
    )


def _by_window(moment: Moment, name: str) -> tuple[Series, ...]:
    """Return the metric of each version as the monitors found it."""
    if moment.healths[name].metric is None:
        return ()
    points: dict[int, list[Point]] = {}
    for one in PerformanceOf(name, windows=_WINDOWS).answer(moment.source).points:
        if one.value is not None:
            points.setdefault(one.version, []).append(Point(one.start, one.value, one.rows))
    return tuple(Series(version, tuple(points[version])) for version in sorted(points))


def _card(moment: Moment, name: str) -> Card:
    declared, log = moment.project.deployment(name), moment.log(name)
    state = moment.ledger.get("deployment", name)
    served = state.read(Deployment).variants if state else ()
    # A shadow answers nobody.
    variants = tuple(one for one in served if not one.shadow)
    champion = _champion(variants)
    release = _release(moment, name)
    open_alerts = sum(alert.deployment == name and alert.state != "resolved" for alert in moment.alerts)
    # A bundle serves elsewhere: an edge deployment is known by the predictions that come back.
    started = bool(variants) or (declared.mode is Mode.edge and log.rows > 0)
    return Card(
        name=name,
        model=declared.model,
        mode=str(declared.mode),
        started=started,
        champion=champion,
        variants=tuple(Share(one.name, one.version, one.weight) for one in variants),
        numbers=_numbers(moment, name, champion),
        curve=tuple(tick.per_s for tick in log.ticks),
        open_alerts=open_alerts,
        release=release,
        state=_state(started, open_alerts, release, log, name in moment.asleep),
        hint=_hint(moment, name, started),
        shadows=tuple(one.version for one in served if one.shadow),
        logged=declared.log.sample,
        health=moment.healths[name],
    )


def _champion(variants: tuple[Variant, ...]) -> int | None:
    named = [one.version for one in variants if one.name == "champion"]
    return named[0] if named else (variants[0].version if variants else None)


def _state(started: bool, alerts: int, release: ReleaseNow | None, log: traffic.Traffic, asleep: bool) -> Any:
    if not started:
        return "not started"
    if alerts:
        return "alert"
    if release and not release.ended:
        return "releasing"
    return "asleep" if asleep else "healthy" if log.rows else "idle"


def _hint(moment: Moment, name: str, started: bool) -> str:
    """Return what fills an empty card: a command, or the line of Python that registers a model without a pipeline."""
    declared = moment.project.deployment(name)
    if moment.log(name).rows:
        return ""
    if not started and declared.model not in moment.signatures:
        trained = moment.project.model(declared.model).pipeline is not None
        return (
            f"loopwright pipeline run {declared.model}"
            if trained
            else f'lw.register("{declared.model}", model, table)'
        )
    if not started and declared.mode is not Mode.edge:
        return f"loopwright deployment start {name}"
    return _FIRST[declared.mode].format(name=name, url=_serving(moment.project))


def _serving(project: Project) -> str:
    try:
        return parts.url(project, "serving")
    except Unavailable:
        return "http://127.0.0.1:<port>"


def _release(moment: Moment, name: str) -> ReleaseNow | None:
    state = moment.ledger.get("release", name)
    if state is None:
        return None
    release = state.read(Release)
    look = moment.ledger.last("release.look", name)
    if look and not release.state.ended and look.at >= release.started:
        release = replace(release, verdict=look.read(Verdict))
    signature = moment.signatures.get(moment.project.deployment(name).model)
    return release_now(moment.project, release, signature.task if signature else None)


def _numbers(moment: Moment, name: str, champion: int | None) -> Numbers:
    model, log = moment.project.deployment(name).model, moment.log(name)
    metric, better = traffic.metric_of(moment.project, model, moment.signatures.get(model))
    return Numbers(
        rows=log.rows,
        labelled=log.labelled,
        span_s=traffic.SPAN_S,
        per_s=log.recent_rows / traffic.RATE_S,
        latency_p50_ms=log.recent_p50_ms,
        latency_p99_ms=log.recent_p99_ms,
        metric=_metric(moment, name, metric, better, champion),
        last=log.last,
    )


def _metric(
    moment: Moment, name: str, metric: str, better: Literal["higher", "lower"], champion: int | None
) -> MetricNow:
    """Return the newest value of the metric: as the monitors found it, else as the log has it."""
    held = moment.healths[name].metric
    if held is not None:
        return MetricNow(
            held.metric,
            held.better,
            held.value,
            held.version,
            held.rows,
            held.at,
            held.limit,
            held.lower,
            held.upper,
        )
    newest = _newest(moment.log(name).metric, champion)
    monitor = moment.project.config.monitor.get(moment.project.deployment(name).model)
    return MetricNow(
        name=metric,
        better=better,
        value=newest.points[-1].value if newest else None,
        version=newest.version if newest else None,
        rows=newest.points[-1].rows if newest else 0,
        at=newest.points[-1].start if newest else None,
        limit=monitor.performance.worse_than if monitor else None,
    )


def _newest(series: Iterable[Series], champion: int | None) -> Series | None:
    """Return the champion's line where it has points, else the one with the newest point."""
    known = [one for one in series if one.points]
    of_champion = [one for one in known if one.version == champion]
    return (of_champion or sorted(known, key=lambda one: one.points[-1].start))[-1] if known else None


def _links(moment: Moment, card: Card, links: Links) -> tuple[Link, ...]:
    """Return the header's links; without an address where a server is not running."""
    made = []
    if card.mode == Mode.online:
        made.append(Link("Try it", try_address(moment.project, card.name)))
    made.append(links.model(card.model))
    if card.champion is not None:
        made.append(links.version(card.model, card.champion))
    state = moment.ledger.get("model_version", f"{card.model}/{card.champion}")
    if state:
        version = state.read(ModelVersion)
        made += [links.run(version.run_id)] if version.run_id else []
        run = moment.ledger.get("pipeline_run", version.run_id)
        flow_run_id = run.read(PipelineRun).flow_run_id if run else ""
        made += [links.flow_run(flow_run_id)] if flow_run_id else []
    return tuple(made)


def _events(moment: Moment, name: str) -> list[Event]:
    """Return the newest events of a deployment, its model and its pipeline, oldest first."""
    model = moment.project.deployment(name).model
    entrypoint = moment.project.model(model).pipeline or ""
    found: list[Event] = []
    for kind in KINDS:
        subject = name
        if kind.startswith("pipeline."):
            subject = entrypoint
        elif kind.startswith(_OF_MODEL):
            subject = model
        found += moment.ledger.events(kind, subject, limit=20, newest=True)
    # The model's alerts and trainings may belong to another deployment of it.
    mine = [event for event in found if event.payload.get("deployment", name) in {name, ""}]
    # The split of a canary is told by its step already.
    told = [
        event for event in mine if not (event.payload.get("release") and event.kind == "deployment.changed")
    ]
    return sorted(told, key=lambda event: event.id)


def _markers(events: list[Event], since: datetime) -> Iterable[Marker]:
    for event in events:
        if event.at < since:
            continue
        if event.kind == "alert.opened" and event.payload.get("check") != "drift":
            yield Marker(event.at, "alert", "bad")
        elif event.kind == "decision":
            decision = str(event.payload.get("decision", "")).replace("_", " ")
            yield Marker(event.at, decision, "good" if decision == "promoted" else "warn")


def _folded(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Fold what is alike and follows each other into the newest, so that nothing drowns the rest; newest first."""
    made: list[Entry] = []
    for one in entries:
        if made and one.group and one.group == made[-1].group:
            made[-1] = replace(made[-1], repeats=made[-1].repeats + 1)
        else:
            made.append(one)
    return tuple(made)
