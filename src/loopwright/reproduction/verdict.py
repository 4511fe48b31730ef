"""What came of repeating a run, as it is kept in the ledger: one line for everything that was compared."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from loopwright.records import now

__all__ = [
    "KIND",
    "Cause",
    "DatasetCheck",
    "MetricCheck",
    "ModelCheck",
    "Outcome",
    "Problem",
    "Reproduction",
    "StepCheck",
]

#: The kind of the ledger's state, by run id, and of its events.
KIND = "reproduction"

Outcome = Literal["reproduced", "within tolerance", "not reproduced"]
Problem = Literal["", "calls", "code", "inputs", "outputs"]
Cause = Literal["", "data", "code", "environment", "nondeterministic step", "unknown"]


@dataclass(frozen=True, slots=True)
class MetricCheck:
    """One metric, then and now; None where one side has none. `difference` is relative, None when it cannot be told."""

    name: str
    then: float | None
    now: float | None
    difference: float | None
    ok: bool


@dataclass(frozen=True, slots=True)
class ModelCheck:
    """A registered version and the one made now, asked the same rows.

    `difference` is the largest one of any answer, None when the two could not be compared: see `problem`. `flips` are
    labels that changed.
    """

    version: str
    rows: int
    difference: float | None
    flips: int
    ok: bool
    problem: str = ""


@dataclass(frozen=True, slots=True)
class StepCheck:
    """All calls of one step. `problem` is empty when code, inputs and outputs have the same fingerprints.

    `tables` counts the tables that came out; a step that returns none has nothing that was on record.
    """

    name: str
    calls: int
    tables: int
    problem: Problem


@dataclass(frozen=True, slots=True)
class DatasetCheck:
    """A dataset of the run by its fingerprint then and now; empty where one side has none."""

    name: str
    then: str
    now: str

    @property
    def ok(self) -> bool:
        """Whether both are the same."""
        return self.then == self.now


@dataclass(frozen=True, slots=True)
class Reproduction:
    """The verdict on one run, and what it rests on.

    `cause` and `reason` say why a run was not reproduced, by the first thing that differs. `notes` are what could not
    be proven or was not the same, whatever the verdict.
    """

    run_id: str
    pipeline: str
    outcome: Outcome
    cause: Cause
    reason: str
    tolerance: float
    code: str
    packages: str
    python: str
    seconds: float
    metrics: tuple[MetricCheck, ...] = ()
    models: tuple[ModelCheck, ...] = ()
    steps: tuple[StepCheck, ...] = ()
    datasets: tuple[DatasetCheck, ...] = ()
    notes: tuple[str, ...] = ()
    at: datetime = field(default_factory=now)

    @property
    def ok(self) -> bool:
        """Whether the run was reproduced, if only within the tolerance."""
        return self.outcome != "not reproduced"
