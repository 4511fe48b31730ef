"""Events of the ledger as plain sentences.

Each kind has one function from payload to sentence. An event whose payload is not what its kind promises is shown by
its kind alone: a page must not fail because of one row of the ledger.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from loopwright.console.links import Links
from loopwright.console.monitoring.words import name_of
from loopwright.console.releases import as_percent, bounded
from loopwright.console.views import Entry, Link, Tone
from loopwright.errors import Damaged
from loopwright.ledger import Event
from loopwright.records import (
    Alert,
    DecisionRecord,
    Deployment,
    ModelVersion,
    PipelineRun,
    Release,
    Verdict,
)

__all__ = ["KINDS", "entry"]

Said: TypeAlias = "tuple[Tone, str, tuple[Link, ...]]"
Say: TypeAlias = "Callable[[Event, Links], Said]"
#: What reading a payload that is not as promised can raise.
_UNREADABLE = (KeyError, TypeError, ValueError, AttributeError, IndexError)


def entry(event: Event, links: Links) -> Entry:
    """Return an event as a line of the timeline."""
    try:
        tone, text, where = KINDS[event.kind](event, links)
    except (*_UNREADABLE, Damaged):
        tone, text, where = "plain", f"{event.kind} of {event.subject}", ()
    links_there = tuple(link for link in where if link.url)
    return Entry(event.id, event.at, event.kind, tone, text, links_there, _group(event))


def _group(event: Event) -> str:
    """Return what makes events alike, so that many in a row are one line: looks at a test, drifted inputs."""
    if (
        event.kind in {"release.look", "training.proposed", "monitor.failed"}
        or event.payload.get("check") == "drift"
    ):
        return event.kind
    return ""


def _sentence(text: str) -> str:
    """End a text with one full stop."""
    text = text.strip()
    return text if not text or text[-1] in ".!?" else f"{text}."


def _opened(event: Event, _: Links) -> Said:
    return "bad", f"Alert opened: {_sentence(event.read(Alert).message)}", ()


def _resolved(event: Event, _: Links) -> Said:
    alert = event.read(Alert)
    reason = str(event.payload.get("reason") or "it is fine again")
    return "good", f"Alert on {alert.subject or alert.check} resolved: {_sentence(reason)}", ()


def _acknowledged(event: Event, _: Links) -> Said:
    alert = event.read(Alert)
    note = str(event.payload.get("note") or "")
    said = f"{alert.by or 'Somebody'} looks after the alert on {alert.subject or alert.check}"
    return "info", _sentence(f"{said}: {note}" if note else said), ()


def _escalated(event: Event, _: Links) -> Said:
    alert = event.read(Alert)
    return (
        "warn",
        f"Nobody looked after the alert on {alert.subject or alert.check}: it was told further.",
        (),
    )


def _not_judged(event: Event, _: Links) -> Said:
    facts = event.payload
    return (
        "warn",
        f"{name_of(str(facts['check']))} could not be judged: {_sentence(str(facts['reason']))}",
        (),
    )


def _expired(event: Event, _: Links) -> Said:
    return "plain", f"{event.payload['rows']:,} rows of the log were older than is kept and deleted.", ()


def _quarantined(event: Event, _: Links) -> Said:
    facts = event.payload
    text = f"A damaged segment of the log with {facts['rows']:,} rows was set aside: {facts['reason']}"
    return "bad", _sentence(text), ()


def _proposed(event: Event, _: Links) -> Said:
    return "plain", f"Training proposed, not started: {_sentence(str(event.payload['reason']))}", ()


def _requested(event: Event, _: Links) -> Said:
    if event.payload.get("alert"):
        return "info", "Training requested because of the alert.", ()
    return "info", f"Training requested: {_sentence(str(event.payload['reason']))}", ()


def _run_links(run: PipelineRun, links: Links) -> tuple[Link, ...]:
    mlflow = (links.run(run.run_id),) if run.run_id else ()
    return (*mlflow, links.flow_run(run.flow_run_id)) if run.flow_run_id else mlflow


def _pipeline(run: PipelineRun) -> str:
    """Name a pipeline by its function: the module is the same for all pipelines of most projects."""
    return f"Pipeline {run.pipeline.rpartition(':')[2]}"


def _run_started(event: Event, links: Links) -> Said:
    run = event.read(PipelineRun)
    trigger = f" (trigger: {run.trigger})" if run.trigger else ""
    return "info", f"{_pipeline(run)} started{trigger}.", _run_links(run, links)


def _run_completed(event: Event, links: Links) -> Said:
    run = event.read(PipelineRun)
    steps = f" in {len(run.steps)} steps" if run.steps else ""
    return (
        "good",
        f"{_pipeline(run)} finished{steps} after {run.seconds:.1f} s.",
        _run_links(run, links),
    )


def _run_failed(event: Event, links: Links) -> Said:
    run = event.read(PipelineRun)
    return (
        "bad",
        f"{_pipeline(run)} failed: {_sentence(run.error or 'no reason given')}",
        _run_links(run, links),
    )


def _registered(event: Event, links: Links) -> Said:
    version = event.read(ModelVersion)
    rows = f", trained on {version.training.rows:,} rows" if version.training else ""
    return (
        "info",
        f"Version {version.version} registered{rows}.",
        (links.version(version.model, version.version),),
    )


def _prepared(event: Event, _: Links) -> Said:
    facts = event.payload
    proof = ""
    if facts.get("replay_rows"):
        proof = (
            f": {facts['replay_rows']:,} rows replayed, largest difference {facts['max_difference']:.1g}, "
            f"{facts['label_flips']} label flips"
        )
    elif facts.get("reason"):
        proof = f": {facts['reason']}"
    return "plain", f"Version {facts['version']} runs as {facts['runtime']}{_sentence(proof or '.')}", ()


def _alias(event: Event, links: Links) -> Said:
    facts = event.payload
    before = f" from version {facts['previous']}" if facts.get("previous") else ""
    text = f"Alias {facts['alias']} moved{before} to version {facts['version']}."
    return "plain", text, (links.version(event.subject, facts["version"]),)


def _alias_removed(event: Event, _: Links) -> Said:
    facts = event.payload
    return "plain", f"Alias {facts['alias']} taken from version {facts['previous']}.", ()


def _followed(event: Event, links: Links) -> Said:
    facts = event.payload
    text = f"Version {facts['version']} put into service: it was made {facts['alias']} in the registry."
    return "good", text, (links.version(facts["model"], facts["version"]),)


def _not_followed(event: Event, links: Links) -> Said:
    facts = event.payload
    text = f"Version {facts['version']} was made {facts['alias']} in the registry and is not served: {_sentence(facts['reason'])}"
    return "bad", text, (links.version(facts["model"], facts["version"]),)


def _found(event: Event, links: Links) -> Said:
    version = event.payload["version"]
    return "info", f"Version {version} registered in MLflow.", (links.version(event.subject, version),)


def _incomplete(event: Event, links: Links) -> Said:
    facts = event.payload
    text = f"Version {facts['version']} cannot be served yet: {_sentence(facts['reason'])}"
    return "warn", text, (links.version(event.subject, facts["version"]),)


def _deleted(event: Event, _: Links) -> Said:
    return "plain", f"Version {event.payload['version']} deleted from the registry.", ()


def _changed(event: Event, _: Links) -> Said:
    variants = event.read(Deployment).variants
    beside = "".join(
        f" Version {one.version} scores the same rows as a shadow." for one in variants if one.shadow
    )
    # One that gets no share answers only callers who name it.
    answering = [one for one in variants if not one.shadow and one.weight] or list(variants)
    if len(answering) == 1:
        return "plain", f"Version {answering[0].version} answers everything.{beside}", ()
    shares = " and ".join(f"version {one.version} {as_percent(100 * one.weight)}" for one in answering)
    return "info", f"Traffic split: {shares}.{beside}", ()


def _loaded(event: Event, _: Links) -> Said:
    facts = event.payload
    return "plain", f"{facts.get('worker', 'A worker')} loaded version {facts['version']}.", ()


def _refused(event: Event, _: Links) -> Said:
    facts = event.payload
    return (
        "bad",
        f"{facts.get('worker', 'A worker')} refused version {facts['version']}: {_sentence(facts['reason'])}",
        (),
    )


def _release_started(event: Event, links: Links) -> Said:
    release = event.read(Release)
    where = (links.flow_run(release.flow_run_id),) if release.flow_run_id else ()
    return "info", f"Release started: {_sentence(release.trigger)}", where


def _retried(event: Event, _: Links) -> Said:
    release = event.read(Release)
    reason = f": {_sentence(release.reason)}" if release.reason else "."
    return "warn", f"The release tries again{reason}", ()


def _gate(event: Event, links: Links) -> Said:
    release = event.read(Release)
    gate = release.gate
    if gate is None:
        return "plain", "The gate was asked and gave no answer.", ()
    against = "" if gate.champion is None else f" against {gate.champion:.4g}"
    text = f"{gate.metric} {gate.candidate:.4g}{against} on {gate.rows:,} rows"
    where = (links.run(release.run_id),) if release.run_id else ()
    if gate.passed:
        return "good", f"Gate met: {text}.", where
    reasons = f" ({'; '.join(gate.reasons)})" if gate.reasons else ""
    forced = " The release was forced past it." if release.forced else ""
    return ("warn" if release.forced else "bad"), f"Gate not met: {text}{reasons}.{forced}", where


def _step(event: Event, _: Links) -> Said:
    release = event.read(Release)
    place = min(max(release.step, 0), len(release.steps) - 1)
    share = as_percent(release.steps[place])
    text = f"Canary step {place + 1} of {len(release.steps)}: version {release.candidate} gets {share}."
    return "info", text, ()


def _look(event: Event, _: Links) -> Said:
    verdict = event.read(Verdict)
    bounds = f" [{verdict.lower:+.3g}, {verdict.upper:+.3g}]" if bounded(verdict.lower, verdict.upper) else ""
    text = (
        f"Look {verdict.looks}: loss difference {verdict.estimate:+.3g}{bounds} after "
        f"{verdict.candidate_rows:,} labelled rows of the candidate: {verdict.decision}."
    )
    return "plain", text, ()


def _decision(event: Event, links: Links) -> Said:
    record = event.read(DecisionRecord)
    tones: dict[str, Tone] = {"promoted": "good", "rolled_back": "warn", "rejected": "warn", "failed": "bad"}
    what = record.decision.replace("_", " ")
    text = _sentence(
        f"Decision: version {record.candidate} {what}" + (f": {record.reason}" if record.reason else "")
    )
    where = (links.run(record.run_id),) if record.run_id else ()
    return tones[record.decision], text, where


def _batch(event: Event, _: Links) -> Said:
    facts = event.payload
    return (
        "good",
        f"Batch done: {facts['rows']:,} rows read, {facts['new_rows']:,} new predictions in {facts['seconds']:.1f} s.",
        (),
    )


def _dead(event: Event, _: Links) -> Said:
    return "warn", f"{event.payload['messages']} messages could not be answered and were put aside.", ()


def _bundled(event: Event, _: Links) -> Said:
    facts = event.payload
    return (
        "good",
        f"Edge bundle of version {facts['version']} written, {facts['bytes'] / 1e6:.2f} MB, signed.",
        (),
    )


def _parity(event: Event, _: Links) -> Said:
    facts = event.payload
    good = bool(facts.get("ok", True))
    names = ", ".join(str(mode["mode"]) for mode in facts["modes"])
    text = (
        f"Parity of {names} on {facts['rows']:,} rows: {'all answers agree' if good else 'answers differ'}."
    )
    return ("good" if good else "bad"), text, ()


#: Every kind of event that is part of a model's story, and how it is told. What windows found is in the charts.
KINDS: dict[str, Say] = {
    "alert.opened": _opened,
    "alert.resolved": _resolved,
    "alert.acknowledged": _acknowledged,
    "alert.escalated": _escalated,
    "monitor.failed": _not_judged,
    "predictions.expired": _expired,
    "predictions.quarantined": _quarantined,
    "training.proposed": _proposed,
    "training.requested": _requested,
    "pipeline.started": _run_started,
    "pipeline.completed": _run_completed,
    "pipeline.failed": _run_failed,
    "model.registered": _registered,
    "scorer.prepared": _prepared,
    "model.found": _found,
    "model.incomplete": _incomplete,
    "model.deleted": _deleted,
    "alias.set": _alias,
    "alias.removed": _alias_removed,
    "deployment.followed": _followed,
    "deployment.refused": _not_followed,
    "deployment.changed": _changed,
    "worker.loaded": _loaded,
    "worker.refused": _refused,
    "release.started": _release_started,
    "release.retried": _retried,
    "release.gate": _gate,
    "release.step": _step,
    "release.look": _look,
    "decision": _decision,
    "batch.completed": _batch,
    "stream.dead": _dead,
    "edge.bundled": _bundled,
    "parity.measured": _parity,
}
