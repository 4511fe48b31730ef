"""All that the pages show, computed from the ledger and the prediction log. Nothing here knows about pages.

Costs are bounded: the log is read over `traffic.SPAN_S` seconds, the ledger by newest events of exact kinds.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import msgspec

from loopwright.config import Project
from loopwright.console import traffic
from loopwright.console.links import Links
from loopwright.console.releases import release_now
from loopwright.console.sentences import KINDS, entry
from loopwright.console.views import (
    Card,
    Cell,
    Drift,
    Entry,
    Glance,
    Link,
    Marker,
    MetricNow,
    Numbers,
    ReleaseNow,
    Series,
    Share,
    Story,
)
from loopwright.ledger import Event, Ledger
from loopwright.predictions import PredictionStore
from loopwright.records import Alert, Deployment, Mode, ModelVersion, Release, Signal, Variant

__all__ = ["glance", "story"]

#: Windows and features in the drift heat map, lines in the timeline and in the table of alerts.
WINDOWS, FEATURES, ENTRIES, ALERTS = 36, 10, 60, 20
#: Kinds of event whose subject is the deployment; those of the model and of its pipeline.
_OF_MODEL = ("alert.", "training.", "model.", "scorer.", "alias.", "parity.")
_NEXT = {
    Mode.online: "loopwright deployment start {name}",
    Mode.batch: "loopwright deployment run {name}",
    Mode.stream: "loopwright stream send {name} rows.jsonl",
    Mode.edge: "loopwright edge bundle {name}",
}


def glance(project: Project, ledger: Ledger, store: PredictionStore, at: datetime) -> Glance:
    """Return one card per declared deployment, as of `at`."""
    alerts = _alerts(ledger)
    cards = [_card(project, ledger, store, name, alerts, at)[0] for name in project.config.deployment]
    return Glance(project.name, at, tuple(cards))


def story(
    project: Project,
    ledger: Ledger,
    store: PredictionStore,
    name: str,
    at: datetime,
    links: Links | None = None,
) -> Story:
    """Return everything about one deployment, as of `at`.

    Raises
    ------
    NotFound
        No deployment of this name is declared.
    """
    project.deployment(name)
    links = links or Links()
    card, log, version = _card(project, ledger, store, name, _alerts(ledger), at)
    events = _events(ledger, project, name)
    signals = _windows(ledger, name)
    mine = [alert for alert in _alerts(ledger) if alert.deployment == name]
    mine.sort(key=lambda alert: (alert.state == "resolved", -alert.since.timestamp()))
    since = at - timedelta(seconds=traffic.SPAN_S)
    return Story(
        project=project.name,
        since=since,
        at=at,
        card=card,
        links=_links(card, version, links),
        traffic=log.ticks,
        metric=log.metric,
        markers=tuple(_markers(events, since)),
        drift=_drift(signals, version),
        checks=_checks(signals),
        alerts=tuple(mine[:ALERTS]),
        timeline=_folded(entry(event, links) for event in reversed(events))[:ENTRIES],
    )


def _card(
    project: Project, ledger: Ledger, store: PredictionStore, name: str, alerts: list[Alert], at: datetime
) -> tuple[Card, traffic.Traffic, ModelVersion | None]:
    declared = project.deployment(name)
    state = ledger.get("deployment", name)
    variants = state.read(Deployment).variants if state else ()
    champion = _champion(variants)
    version = _version(ledger, declared.model, champion)
    signature = version.signature if version else None
    metric, _ = traffic.metric_of(project, declared.model, version)
    step_s = traffic.metric_step_s(project, declared.model)
    log = traffic.read(store, name, metric, signature, step_s, at)
    release = _release(project, ledger, name, version)
    numbers = _numbers(project, ledger, name, log, version, champion)
    open_alerts = sum(alert.deployment == name and alert.state != "resolved" for alert in alerts)
    card = Card(
        name=name,
        model=declared.model,
        mode=str(declared.mode),
        started=bool(variants) or declared.mode is Mode.edge and log.rows > 0,
        champion=champion,
        variants=tuple(Share(one.name, one.version, one.weight) for one in variants),
        numbers=numbers,
        curve=tuple(tick.per_s for tick in log.ticks),
        open_alerts=open_alerts,
        release=release,
        state=_state(bool(variants), open_alerts, release, log),
        hint=_hint(project, ledger, name, bool(variants), log.rows),
    )
    return card, log, version


def _champion(variants: tuple[Variant, ...]) -> int | None:
    named = [one.version for one in variants if one.name == "champion"]
    return named[0] if named else (variants[0].version if variants else None)


def _version(ledger: Ledger, model: str, number: int | None) -> ModelVersion | None:
    state = ledger.get("model_version", f"{model}/{number}") if number is not None else None
    return state.read(ModelVersion) if state else None


def _state(started: bool, alerts: int, release: ReleaseNow | None, log: traffic.Traffic) -> Any:
    if not started:
        return "not started"
    if alerts:
        return "alert"
    if release and not release.ended:
        return "releasing"
    return "healthy" if log.rows else "idle"


def _hint(project: Project, ledger: Ledger, name: str, started: bool, rows: int) -> str:
    """Return the command that fills an empty card."""
    declared = project.deployment(name)
    if rows:
        return ""
    known = any(state.value.get("model") == declared.model for state in ledger.states("model_version"))
    if not known:
        return f"loopwright pipeline run {declared.model}"
    if started and declared.mode is Mode.online:
        return f"curl -d '<JSON>' http://<serving>/predict/{name}"
    if not started and declared.mode in {Mode.batch, Mode.stream}:
        return f"loopwright deployment start {name}"
    return _NEXT[declared.mode].format(name=name)


def _release(project: Project, ledger: Ledger, name: str, version: ModelVersion | None) -> ReleaseNow | None:
    state = ledger.get("release", name)
    if state is None:
        return None
    signature = version.signature if version else None
    return release_now(project, state.read(Release), signature.task if signature else None)


def _numbers(
    project: Project,
    ledger: Ledger,
    name: str,
    log: traffic.Traffic,
    version: ModelVersion | None,
    champion: int | None,
) -> Numbers:
    model = project.deployment(name).model
    metric, better = traffic.metric_of(project, model, version)
    newest = _newest(log.metric, champion)
    return Numbers(
        rows=log.rows,
        labelled=log.labelled,
        span_s=traffic.SPAN_S,
        per_s=log.recent_rows / traffic.RATE_S,
        latency_p50_ms=log.recent_p50_ms,
        latency_p99_ms=log.recent_p99_ms,
        metric=MetricNow(
            name=metric,
            better=better,
            value=newest.points[-1].value if newest else None,
            version=newest.version if newest else None,
            rows=newest.points[-1].rows if newest else 0,
            at=newest.points[-1].start if newest else None,
            limit=_limit(project, ledger, name, metric, champion),
        ),
        last=log.last,
    )


def _newest(series: Iterable[Series], champion: int | None) -> Series | None:
    """Return the champion's line where it has points, else the one with the newest point."""
    known = [one for one in series if one.points]
    of_champion = [one for one in known if one.version == champion]
    return (of_champion or sorted(known, key=lambda one: one.points[-1].start))[-1] if known else None


def _limit(project: Project, ledger: Ledger, name: str, metric: str, champion: int | None) -> float | None:
    """Return what the monitor holds the metric against: as it last did, else as it is declared."""
    for event in reversed(ledger.events("monitor.window", name, limit=6, newest=True)):
        for signal in _signals(event):
            if (
                signal.check == "performance"
                and signal.subject in {"", metric}
                and signal.version in {0, champion}
            ):
                return signal.limit
    monitor = project.config.monitor.get(project.deployment(name).model)
    return monitor.performance.worse_than if monitor else None


def _alerts(ledger: Ledger) -> list[Alert]:
    return [state.read(Alert) for state in ledger.states("alert")]


def _links(card: Card, version: ModelVersion | None, links: Links) -> tuple[Link, ...]:
    """Return the header's links; without an address where a server is not running."""
    made = [links.model(card.model)]
    if version:
        made.append(links.version(card.model, version.version))
        made += [links.run(version.run_id)] if version.run_id else []
    if card.release and card.release.flow_run_id:
        made.append(links.flow_run(card.release.flow_run_id))
    return tuple(made)


def _events(ledger: Ledger, project: Project, name: str) -> list[Event]:
    """Return the newest events of a deployment, its model and its pipeline, oldest first."""
    declared = project.deployment(name)
    entrypoint = project.model(declared.model).pipeline or ""
    found: list[Event] = []
    for kind in KINDS:
        if kind.startswith("pipeline."):
            subjects = {entrypoint, entrypoint.partition(":")[2]} - {""}
        else:
            subjects = {declared.model if kind.startswith(_OF_MODEL) else name}
        for subject in subjects:
            found += ledger.events(kind, subject, limit=20, newest=True)
    # The model's alerts and trainings may belong to another deployment of it.
    mine = [event for event in found if event.payload.get("deployment", name) in {name, ""}]
    return sorted(mine, key=lambda event: event.id)


def _folded(entries: Iterable[Entry]) -> tuple[Entry, ...]:
    """Fold looks at the same test into the newest one, and equal sentences in a row into one; newest first."""
    made: list[Entry] = []
    for one in entries:
        last = made[-1] if made else None
        looks = last is not None and one.kind == last.kind == "release.look"
        if last is not None and (looks or one.text == last.text):
            made[-1] = replace(last, repeats=last.repeats + 1)
        else:
            made.append(one)
    return tuple(made)


def _markers(events: list[Event], since: datetime) -> Iterable[Marker]:
    for event in events:
        if event.at < since:
            continue
        if event.kind == "alert.opened":
            yield Marker(event.at, "alert", "bad")
        elif event.kind == "decision":
            decision = str(event.payload.get("decision", "")).replace("_", " ")
            yield Marker(event.at, decision, "good" if decision == "promoted" else "warn")


def _signals(event: Event) -> list[Signal]:
    """Return the signals of a window; one that is not readable is left out."""
    found = []
    for raw in event.payload.get("signals", ()):
        try:
            found.append(msgspec.convert(raw, Signal))
        except msgspec.ValidationError:
            continue
    return found


def _windows(ledger: Ledger, name: str) -> list[list[Signal]]:
    """Return the signals of the newest windows, oldest first. A window has one event per phase of its checks."""
    return [
        _signals(event) for event in ledger.events("monitor.window", name, limit=2 * WINDOWS, newest=True)
    ]


def _drift(windows: list[list[Signal]], version: ModelVersion | None) -> Drift:
    by_end: dict[datetime, dict[str, Signal]] = {}
    for signals in windows:
        for signal in signals:
            if signal.check == "drift" and signal.subject:
                by_end.setdefault(signal.window.end, {})[signal.subject] = signal
    ends = sorted(by_end)[-WINDOWS:]
    recent = [by_end[end] for end in ends[-6:]]
    worst: dict[str, float] = {}
    for signals in recent:
        for feature, signal in signals.items():
            worst[feature] = max(worst.get(feature, 0.0), signal.value / (signal.limit or 1.0))
    features = sorted(worst, key=lambda feature: (-worst[feature], feature))[:FEATURES]
    place = {feature: number for number, feature in enumerate(features)}
    cells = [
        Cell(number, place[feature], signal.value, signal.limit, signal.rows, signal.fired)
        for number, end in enumerate(ends)
        for feature, signal in by_end[end].items()
        if feature in place
    ]
    signature = version.signature if version else None
    inputs = len(signature.inputs) if signature else len(worst)
    fired = sum(signal.fired for signal in by_end[ends[-1]].values()) if ends else 0
    return Drift(tuple(ends), tuple(features), tuple(cells), inputs, fired)


def _checks(windows: list[list[Signal]]) -> tuple[Signal, ...]:
    """Return the newest signal of each check but drift, of the versions in the newest window that has any."""
    newest: dict[tuple[str, str, int], Signal] = {}
    for signals in windows:
        for signal in signals:
            if signal.check != "drift":
                newest[signal.check, signal.subject, signal.version] = signal
    if not newest:
        return ()
    last = max(signal.window.end for signal in newest.values())
    return tuple(newest[key] for key in sorted(newest) if newest[key].window.end == last)
