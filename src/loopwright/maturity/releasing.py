"""Dimension "model release": how a version gets into service, and back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta

from loopwright.lineage.environment import git
from loopwright.maturity.facts import Dimension, Fact
from loopwright.maturity.observed import Live, Observed
from loopwright.records import DecisionRecord, Deployment, Mode

__all__ = ["facts"]

_DIMENSION: Dimension = "model release"
#: A rollback that was exercised counts for so long.
ROLLBACK_DAYS = 90


def facts(seen: Observed) -> Iterator[Fact]:
    """Yield the facts about releases."""
    yield _versioned(seen)
    yield _one_action(seen)
    yield _by_release(seen)
    yield _traced(seen)
    yield _tested_live(seen)
    yield _rolled_back(seen)
    yield _by_policy(seen)


def _fact(name: str, level: int, statement: str, ok: bool | None, evidence: str, command: str) -> Fact:
    return Fact(name, level, _DIMENSION, statement, ok, evidence, command)


def _versioned(seen: Observed) -> Fact:
    missing = [name for name in seen.code if name not in seen.repository.files]
    statement = "Pipelines and loopwright.toml are versioned in git"
    commit = seen.repository.commit
    command = f"git add {' '.join(missing or seen.code)} && git commit -m 'Version the project'"
    if not commit:
        return _fact("L1.5", 1, statement, False, "no commit", f"git init && {command}")
    evidence = f"not tracked: {', '.join(missing)}" if missing else f"commit {commit[:12]}"
    return _fact("L1.5", 1, statement, not missing, evidence, command)


def _one_action(seen: Observed) -> Fact:
    statement = "What serves is changed by one recorded action, with its author"
    event = seen.ledger.last("deployment.changed")
    command = f"loopwright deployment start {seen.example}"
    if event is None:
        return _fact("L2.8", 2, statement, None, "no deployment was ever changed", command)
    return _fact(
        "L2.8", 2, statement, bool(event.actor), f"event {event.id} by {event.actor or 'nobody'}", command
    )


def _released(seen: Observed) -> list[tuple[Live, DecisionRecord | None]]:
    """Return the versions that serve online or stream, with the promotion that put each there."""
    newest = {(record.deployment, record.candidate): record for record in seen.promoted()}
    return [
        (live, newest.get((live.deployment.name, live.number)))
        for live in seen.live
        if live.deployment.mode in {Mode.online, Mode.stream}
    ]


def _by_release(seen: Observed) -> Fact:
    statement = "What serves online was put there by the release pipeline, after a gate that it met"
    found = _released(seen)
    command = f"loopwright release start {seen.example}"
    if not found:
        return _fact("L3.1", 3, statement, None, "nothing is in service online", command)
    bad = [
        live.ref
        for live, record in found
        if record is None or record.forced or record.gate is None or not record.gate.passed
    ]
    evidence = (
        f"by hand, forced or without a gate: {', '.join(bad)}"
        if bad
        else ", ".join(live.ref for live, _ in found)
    )
    return _fact("L3.1", 3, statement, not bad, evidence, command)


def _traced(seen: Observed) -> Fact:
    statement = "From each deployment the records lead back to the commit, the packages and the source data"
    if not seen.live:
        return _fact(
            "L3.2", 3, statement, None, "nothing is in service", f"loopwright deployment start {seen.example}"
        )
    broken = [f"{live.ref}: {link}" for live in seen.live if (link := _broken_link(seen, live))]
    refs = ", ".join(dict.fromkeys(live.ref for live in seen.live))
    command = "loopwright trace PREDICTION-ID"
    return _fact("L3.2", 3, statement, not broken, "; ".join(dict.fromkeys(broken)) or refs, command)


def _broken_link(seen: Observed, live: Live) -> str:
    version, run = live.version, live.run
    if version is None or not version.digest:
        return "no registered files"
    if run is None or not run.git_commit or not run.lock_digest:
        return "no run with commit and packages"
    if git(seen.project.root, "cat-file", "-e", f"{run.git_commit}^{{commit}}") is None:
        return f"commit {run.git_commit[:12]} is not in the repository"
    datasets = [*run.datasets, *([version.training] if version.training else [])]
    return "" if any(dataset.digest and dataset.source for dataset in datasets) else "no source data"


def _tested_live(seen: Observed) -> Fact:
    statement = "The last promotion was decided by a test on live traffic, with its sample size"
    promoted = seen.promoted()
    command = f"loopwright release start {seen.example}"
    if not promoted:
        return _fact("L3.4", 3, statement, None, "nothing was promoted yet", command)
    verdict = promoted[-1].verdict
    rows = verdict.candidate_rows if verdict else 0
    return _fact(
        "L3.4",
        3,
        statement,
        rows > 0,
        f"release {promoted[-1].release}: {rows:,} rows of the candidate",
        command,
    )


def _rolled_back(seen: Observed) -> Fact:
    statement = f"A rollback was exercised within {ROLLBACK_DAYS} days"
    since = seen.at - timedelta(days=ROLLBACK_DAYS)
    command = f"loopwright deployment rollback {seen.example}"
    for event, record in reversed(seen.decisions):
        if record.decision == "rolled_back" and event.at >= since:
            return _fact(
                "L3.6", 3, statement, True, f"release {record.release} on {event.at:%Y-%m-%d}", command
            )
    for live in seen.live:
        events = seen.ledger.events(
            "deployment.changed", live.deployment.name, since=since, newest=True, limit=200
        )
        served = [event.read(Deployment).variants[0].version for event in events]
        changes = [
            version for place, version in enumerate(served) if place == 0 or served[place - 1] != version
        ]
        if any(changes[place] == changes[place - 2] for place in range(2, len(changes))):
            return _fact(
                "L3.6",
                3,
                statement,
                True,
                f"deployment {live.deployment.name} went back to an earlier version",
                command,
            )
    return _fact("L3.6", 3, statement, False if seen.live else None, "none on record", command)


def _by_policy(seen: Observed) -> Fact:
    statement = "The last promotion followed the declared policy, started and decided without a person"
    promoted = seen.promoted()
    if not promoted:
        return _fact("L4.4", 4, statement, None, "nothing was promoted yet", "loopwright up")
    last = promoted[-1]
    ok = last.release in seen.automatic and not last.forced and last.verdict is not None
    how = "forced" if last.forced else f"trigger: {last.trigger}"
    return _fact("L4.4", 4, statement, ok, f"release {last.release}, {how}", "loopwright up")
