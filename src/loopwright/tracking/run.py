"""A tracked run, and what belongs to it, as they are read."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from datetime import UTC, datetime

__all__ = ["BUCKETS", "Dataset", "History", "Run", "moment"]

#: The course of a metric is kept as the means of so many parts at most.
BUCKETS = 40


@dataclass(frozen=True, slots=True)
class Run:
    """One tracked run as MLflow has it. `ended` is None while it runs; metrics are the last values."""

    run_id: str
    name: str
    status: str
    started: datetime
    ended: datetime | None
    experiment_id: str
    artifact_uri: str
    metrics: dict[str, float] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class History:
    """How one metric went: number of points, lowest and highest value, and the means of its parts in order."""

    metric: str
    points: int
    low: float
    high: float
    course: tuple[float, ...]

    @classmethod
    def of(cls, metric: str, values: list[float]) -> History:
        """Describe values in their order; there is at least one. Parts are cut as SQL's ``ntile`` does."""
        number = min(BUCKETS, len(values))
        size, more = divmod(len(values), number)
        edges = [part * size + min(part, more) for part in range(number + 1)]
        parts = [values[first:last] for first, last in itertools.pairwise(edges)]
        return cls(
            metric, len(values), min(values), max(values), tuple(sum(part) / len(part) for part in parts)
        )


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset that a run has read, as MLflow shows it."""

    name: str
    digest: str
    source: str


def moment(milliseconds: int) -> datetime:
    """Return a time of MLflow's."""
    return datetime.fromtimestamp(milliseconds / 1000, tz=UTC)
