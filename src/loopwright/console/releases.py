"""A release as stages: training, gate, canary steps, and how it ended."""

from __future__ import annotations

from typing import Literal

from loopwright.config import Project
from loopwright.console.views import ReleaseNow, Stage
from loopwright.records import Release, ReleaseState, Task

__all__ = ["as_percent", "bounded", "release_now"]

_ENDS = {
    ReleaseState.promoted: "Promoted",
    ReleaseState.rolled_back: "Rolled back",
    ReleaseState.rejected: "Rejected",
    ReleaseState.failed: "Failed",
}
_GATE, _CANARY = 1, 2


def as_percent(value: float) -> str:
    """Write a percentage of 0 to 100 without needless digits, such as ``25 %`` or ``0.5 %``."""
    return f"{value:g} %"


def bounded(lower: float, upper: float) -> bool:
    """Whether an interval says anything: before there is evidence, its bounds are beyond any loss."""
    return -1e9 < lower <= upper < 1e9


def release_now(project: Project, release: Release, task: Task | None) -> ReleaseNow:
    """Return what the pages show of a release; `task` decides the loss where the project names none."""
    declared = project.config.deployment.get(release.deployment)
    loss = declared.release.metric if declared else ""
    return ReleaseNow(
        id=release.id,
        state=str(release.state),
        ended=release.state.ended,
        summary=_summary(release),
        trigger=release.trigger,
        reason=release.reason,
        started=release.started,
        changed=release.changed,
        champion=release.champion,
        candidate=release.candidate,
        stages=_stages(release),
        gate=release.gate,
        verdict=release.verdict,
        loss=loss or ("absolute_error" if task is Task.regression else "error"),
        forced=release.forced,
        run_id=release.run_id,
        flow_run_id=release.flow_run_id,
    )


def _summary(release: Release) -> str:
    who = f"Version {release.candidate}" if release.candidate else "A new version"
    against = f" in place of version {release.champion}" if release.champion else ""
    share = as_percent(release.steps[_step(release)]) if release.steps else "a part"
    return {
        ReleaseState.training: "A new version is being trained.",
        ReleaseState.evaluating: f"{who} is compared with the champion on the same labelled rows.",
        ReleaseState.canary: f"{who} answers {share} of all entities; its errors are compared with the champion's.",
        ReleaseState.promoted: f"{who} was promoted{against}.",
        ReleaseState.rolled_back: f"{who} was rolled back; version {release.champion} serves alone again.",
        ReleaseState.rejected: f"{who} was rejected and answered no request.",
        ReleaseState.failed: "The release failed before a decision.",
    }[release.state]


def _step(release: Release) -> int:
    """Return the place of the present canary step in `steps`."""
    return min(max(release.step, 0), len(release.steps) - 1)


def _place(release: Release) -> int:
    """Return how far a release came: 0 training, 1 gate, from 2 on the canary steps."""
    in_canary = {ReleaseState.canary, ReleaseState.promoted, ReleaseState.rolled_back}
    if release.state in in_canary or release.verdict is not None:
        return _CANARY + (_step(release) if release.steps else 0)
    known = release.gate is not None or release.candidate is not None
    return _GATE if known or release.state in {ReleaseState.evaluating, ReleaseState.rejected} else 0


def _stages(release: Release) -> tuple[Stage, ...]:
    names = ["Training", "Gate", *(f"Canary {as_percent(share)}" for share in release.steps)]
    here, ended = _place(release), release.state.ended
    promoted = release.state is ReleaseState.promoted
    present: Literal["done", "now", "failed"] = "now" if not ended else ("done" if promoted else "failed")
    later: Literal["skipped", "next"] = "skipped" if ended else "next"
    details = {0: _training_detail(release), _GATE: _gate_detail(release)}
    if release.verdict is not None:
        details[here] = f"{release.verdict.candidate_rows:,} labelled rows"
    stages = [
        Stage(name, "done" if place < here else present if place == here else later, details.get(place, ""))
        for place, name in enumerate(names)
    ]
    if here > 0 and not release.flow_run_id and not release.run_id:
        stages[0] = Stage("Training", "skipped", "existing version")
    return (*stages, Stage(_ENDS.get(release.state, "Promoted"), present if ended else "next", ""))


def _training_detail(release: Release) -> str:
    if release.candidate:
        return f"version {release.candidate}"
    return f"run {release.run_id[:8]}" if release.run_id else ""


def _gate_detail(release: Release) -> str:
    gate = release.gate
    if gate is None:
        return ""
    against = "" if gate.champion is None else f" vs {gate.champion:.4g}"
    forced = ", forced" if release.forced and not gate.passed else ""
    return f"{gate.metric} {gate.candidate:.4g}{against}, {gate.rows:,} rows{forced}"
