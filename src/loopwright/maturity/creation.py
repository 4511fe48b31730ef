"""Dimension "model creation": data, training runs and what is recorded of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

from loopwright.maturity.facts import Dimension, Fact
from loopwright.maturity.observed import Live, Observed
from loopwright.records import ModelVersion, PipelineRun
from loopwright.reproduction.verdict import KIND, Reproduction

__all__ = ["facts"]

_DIMENSION: Dimension = "model creation"
#: So many of the newest trainings must have been started by the system.
TRAININGS = 3
#: For so long a reproduction speaks for the model.
REPRODUCED = timedelta(days=30)


def facts(seen: Observed) -> Iterator[Fact]:
    """Yield the facts about model creation."""
    run = f"loopwright pipeline run {seen.model}"
    yield _each(
        seen, "L1.4", 1, "The data of each version in service was read by a pipeline run", _by_pipeline, run
    )
    yield _each(
        seen,
        "L2.1",
        2,
        "Each version in service has its commit, data, packages and Python on record",
        _recorded,
        run,
    )
    yield _each(seen, "L2.4", 2, "No version is in service without a tracked run", _has_run, run)
    yield _each(
        seen,
        "L2.5",
        2,
        "Each version in service is registered with its signature and digest",
        _registered,
        run,
    )
    yield _automatic(seen)
    yield _reproduced(seen)
    yield _on_signal(seen)


def _each(
    seen: Observed, name: str, level: int, statement: str, problem: Callable[[Live], str], command: str
) -> Fact:
    """Return a fact that must hold for every version in service; `problem` says what is wrong with one, or nothing."""
    if not seen.live:
        return Fact(
            name,
            level,
            _DIMENSION,
            statement,
            None,
            "nothing is in service",
            f"loopwright deployment start {seen.example}",
        )
    problems = [f"{live.ref}: {found}" for live in seen.live if (found := problem(live))]
    refs = ", ".join(dict.fromkeys(live.ref for live in seen.live))
    return Fact(
        name, level, _DIMENSION, statement, not problems, "; ".join(dict.fromkeys(problems)) or refs, command
    )


def _by_pipeline(live: Live) -> str:
    if live.version is None or live.version.training is None:
        return "its training data is not on record"
    return "" if live.run is not None and live.run.datasets else "no run read its data"


def _recorded(live: Live) -> str:
    run = live.run
    if run is None:
        return "no run"
    missing = [
        name
        for name, there in (
            ("commit", run.git_commit),
            ("clean tree or kept diff", not run.git_dirty or run.diff_digest),
            ("dataset", run.datasets),
            ("packages", run.lock_digest),
            ("Python", run.python),
        )
        if not there
    ]
    return f"no {', no '.join(missing)}" if missing else ""


def _has_run(live: Live) -> str:
    return "" if live.run is not None and live.run.status == "completed" else "no completed run"


def _registered(live: Live) -> str:
    version = live.version
    if version is None:
        return "not registered here"
    return (
        "" if version.signature and version.signature.inputs and version.digest else "no signature or digest"
    )


def _automatic(seen: Observed) -> Fact:
    wanted = {model.pipeline for model in seen.project.config.model.values()}
    runs = [state.read(PipelineRun) for state in seen.ledger.states("pipeline_run")]
    mine = [run for run in runs if run.status == "completed" and run.pipeline in wanted]
    newest = sorted(mine, key=lambda run: run.started)[-TRAININGS:]
    by_hand = [run for run in newest if not seen.by_system(run)]
    enough = len(newest) == TRAININGS
    evidence = f"{len(newest) - len(by_hand)} of the last {len(newest)} trainings, of {TRAININGS} needed"
    return Fact(
        "L2.2",
        2,
        _DIMENSION,
        f"The last {TRAININGS} trainings were started by a schedule or an event",
        (not by_hand if enough else None) if newest else None,
        evidence if newest else "no training on record",
        "loopwright up",
    )


def _reproduced(seen: Observed) -> Fact:
    """Whether some run of each model in service was repeated lately, with the same results the last time."""
    statement = f"A run of each model in service was reproduced in the last {REPRODUCED.days} days"
    serving = list(dict.fromkeys(live.deployment.model for live in seen.live))
    command = f"loopwright reproduce {seen.live[0].ref if seen.live else f'{seen.model}/VERSION'}"
    if not serving:
        return Fact("L2.3", 2, _DIMENSION, statement, None, "nothing is in service", command)
    makers = {
        version.run_id: version.model
        for version in (state.read(ModelVersion) for state in seen.ledger.states("model_version"))
    }
    newest: dict[str, Reproduction] = {}
    for state in sorted(seen.ledger.states(KIND), key=lambda state: state.changed):
        if seen.at - state.changed <= REPRODUCED and state.key in makers:
            newest[makers[state.key]] = state.read(Reproduction)
    differ = [
        f"{model}: run {newest[model].run_id[:8]} was not"
        for model in serving
        if model in newest and not newest[model].ok
    ]
    unknown = [model for model in serving if model not in newest]
    if differ:
        return Fact("L2.3", 2, _DIMENSION, statement, False, "; ".join(differ), command)
    if unknown:
        return Fact("L2.3", 2, _DIMENSION, statement, None, f"not tried: {', '.join(unknown)}", command)
    evidence = ", ".join(f"{model}: run {newest[model].run_id[:8]}" for model in serving)
    return Fact("L2.3", 2, _DIMENSION, statement, True, evidence, command)


def _on_signal(seen: Observed) -> Fact:
    """Whether a signal from production led to a training that ended in a decision; a failed release decided nothing."""
    decided = [record for _, record in seen.decisions if record.decision != "failed"]
    for record in reversed(decided):
        event = seen.ledger.event(record.trigger_event) if record.trigger_event else None
        if event and event.kind in {"training.requested", "alert.opened"} and record.run_id:
            evidence = f"release {record.release}, {record.decision.replace('_', ' ')}, from event {event.id} ({event.kind})"
            return Fact("L4.2", 4, _DIMENSION, _SIGNAL, True, evidence, "loopwright up")
    return Fact(
        "L4.2",
        4,
        _DIMENSION,
        _SIGNAL,
        False if decided else None,
        "no such decision on record",
        "loopwright up",
    )


_SIGNAL = "A signal from production led to a retraining that ended in a decision"
