"""Alerts about schedules: opened once for what is wrong, resolved when it is well again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from datetime import datetime

from loopwright.config import Project
from loopwright.ledger import Ledger
from loopwright.pipelines import watch
from loopwright.pipelines.watch import Problem
from loopwright.records import Alert

__all__ = ["tick"]

PREFIX = "schedule/"


def tick(project: Project, ledger: Ledger, now: datetime) -> list[Alert]:
    """Judge all schedules and return the alerts that were opened now.

    An alert and its event are one transaction: a process that is killed in between neither loses nor doubles one.
    """
    known = {
        state.key: state
        for state in ledger.states("alert")
        if state.key.startswith(PREFIX) and state.value["state"] != "resolved"
    }
    problems = {_key(problem, known): problem for problem in watch.check(project, ledger, now)}
    for key, state in known.items():
        if key not in problems:
            resolved = dataclasses.replace(state.read(Alert), state="resolved")
            payload = dataclasses.asdict(resolved) | {"reason": "it is well again"}
            ledger.put("alert", key, resolved, expect=state.revision, event="alert.resolved", payload=payload)
    opened = [_alert(problem) for key, problem in problems.items() if key not in known]
    for alert in opened:
        ledger.put("alert", alert.id, alert, event="alert.opened")
    return opened


def _key(problem: Problem, known: Iterable[str]) -> str:
    """Return which alert a problem belongs to: a missed time stays missed while a runner that is back begins to work."""
    missed = dataclasses.replace(problem, kind="missed").key
    return missed if problem.kind == "late" and missed in known else problem.key


def _alert(problem: Problem) -> Alert:
    return Alert(
        id=problem.key,
        check=f"schedule {problem.kind}",
        model="",
        deployment="",
        state="open",
        since=problem.since,
        message=problem.message,
        value=problem.value,
        limit=problem.limit,
        subject=problem.schedule,
    )
