"""Dimension "application integration": builds, tests, and what is known of the running application."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from fnmatch import fnmatchcase

from loopwright.maturity.facts import Dimension, Fact
from loopwright.maturity.observed import Observed
from loopwright.monitor.results import Results
from loopwright.records import Mode

__all__ = ["facts"]

_DIMENSION: Dimension = "application integration"
_BUILDS = (".github/workflows/", ".gitlab-ci.yml", ".circleci/", "Jenkinsfile", "azure-pipelines.yml")
_LOCKS = ("uv.lock", "poetry.lock", "pdm.lock", "requirements.txt", "conda-lock.yml")
#: A monitor is alive when its last window is not older than so many windows.
PERIODS = 3


def facts(seen: Observed) -> Iterator[Fact]:
    """Yield the facts about the application."""
    yield _repository(seen)
    yield _build(seen)
    yield _tests(seen)
    yield _scored(seen)
    yield _locked(seen)
    yield _parity(seen)
    yield _watched(seen)


def _fact(name: str, level: int, statement: str, ok: bool | None, evidence: str, command: str) -> Fact:
    return Fact(name, level, _DIMENSION, statement, ok, evidence, command)


def _repository(seen: Observed) -> Fact:
    found = seen.repository
    evidence = (
        f"{found.commits} commits, newest {found.commit[:12]}"
        if found.commit
        else "no git repository with a commit"
    )
    command = "git init && git add -A && git commit -m 'Start'"
    return _fact(
        "L1.1", 1, "The project is a git repository with history", bool(found.commit), evidence, command
    )


def _build(seen: Observed) -> Fact:
    found = sorted(name for name in seen.repository.files if name.startswith(_BUILDS))
    evidence = found[0] if found else "no workflow in git"
    command = "git add .github/workflows/test.yml && git commit -m 'Build on each commit'"
    return _fact(
        "L1.2", 1, "A build that runs by itself is declared in the repository", bool(found), evidence, command
    )


def _tests(seen: Observed) -> Fact:
    names = {name: name.rpartition("/")[2] for name in seen.repository.files}
    found = [
        name for name, last in names.items() if fnmatchcase(last, "test_*.py") or last.endswith("_test.py")
    ]
    command = "git add tests && git commit -m 'Test the pipelines'"
    return _fact(
        "L1.3",
        1,
        "Tests of the project are versioned",
        bool(found),
        f"{len(found)} test files in git",
        command,
    )


def _scored(seen: Observed) -> Fact:
    statement = "Each version in service was loaded and has scored real rows before it served"
    if not seen.live:
        return _fact(
            "L1.6", 1, statement, None, "nothing is in service", f"loopwright deployment start {seen.example}"
        )
    without = []
    for live in seen.live:
        events = seen.ledger.events("scorer.prepared", live.deployment.model, newest=True, limit=500)
        rows = [
            event.payload.get("replay_rows") or 0
            for event in events
            if event.payload.get("version") == live.number
        ]
        if not rows or not max(rows):
            without.append(live.ref)
    evidence = (
        f"no rows were replayed for {', '.join(dict.fromkeys(without))}"
        if without
        else "rows replayed for each"
    )
    return _fact("L1.6", 1, statement, not without, evidence, f"loopwright deployment start {seen.example}")


def _locked(seen: Observed) -> Fact:
    found = [name for name in _LOCKS if name in seen.repository.files]
    evidence = found[0] if found else "no lock file in git"
    command = "uv lock && git add uv.lock && git commit -m 'Lock the packages'"
    return _fact(
        "L2.6", 2, "The packages are locked, and the lock is versioned", bool(found), evidence, command
    )


def _parity(seen: Observed) -> Fact:
    statement = "The version in service gives the same answers in every mode"
    command = f"loopwright parity {seen.model}"
    if not seen.live:
        return _fact("L3.3", 3, statement, None, "nothing is in service", command)
    results: dict[str, bool] = {}
    for event in seen.ledger.events("parity.measured", newest=True, limit=200):
        version = event.payload.get("version")
        results[f"{event.subject}/{version}"] = bool(event.payload.get("ok"))
    refs = list(dict.fromkeys(live.ref for live in seen.live))
    unknown = [ref for ref in refs if ref not in results]
    differ = [ref for ref in refs if results.get(ref) is False]
    if differ:
        return _fact("L3.3", 3, statement, False, f"answers differ: {', '.join(differ)}", command)
    if unknown:
        return _fact("L3.3", 3, statement, None, f"not measured: {', '.join(unknown)}", command)
    return _fact("L3.3", 3, statement, True, f"measured for {', '.join(refs)}", command)


def _watched(seen: Observed) -> Fact:
    """Whether what serves online is being watched at this moment, inputs and labelled performance both."""
    statement = "Drift and labelled performance of what serves online are judged at this moment"
    online = [live for live in seen.live if live.deployment.mode is Mode.online]
    if not online:
        return _fact(
            "L4.1",
            4,
            statement,
            None,
            "nothing is in service online",
            f"loopwright deployment start {seen.example}",
        )
    unwatched = []
    for live in online:
        monitor = seen.project.config.monitor.get(live.deployment.model)
        if monitor is None:
            unwatched.append(f"{live.deployment.name} has no [monitor.{live.deployment.model}]")
            continue
        oldest = seen.at - PERIODS * monitor.window - monitor.performance.label_delay - timedelta(seconds=30)
        judged = Results(seen.ledger).checks(live.deployment.name, oldest)
        missing = [check for check in ("drift", "performance") if check not in judged]
        if missing:
            unwatched.append(
                f"{live.deployment.name}: no {' and no '.join(missing)} since {oldest:%H:%M:%S} UTC"
            )
    evidence = "; ".join(unwatched) or ", ".join(live.deployment.name for live in online)
    return _fact("L4.1", 4, statement, not unwatched, evidence, "loopwright up")
