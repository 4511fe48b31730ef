"""What a story of the demo is made of: project files, candidates to train, and rows that arrive with late labels."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from loopwright.records import Scalar

__all__ = ["Row", "Scenario"]


@dataclass(frozen=True, slots=True)
class Row:
    """One request to come: its fields, what will turn out to be true, and who asks."""

    fields: dict[str, Any]
    actual: Scalar
    entity: str


class Scenario(Protocol):
    """One story: what differs between the digits and anybody's table.

    Attributes
    ----------
    metric, higher
        The figure the story follows, and whether more of it is better.
    rate
        Requests per second.
    baseline_s
        Seconds of quiet traffic before the world changes.
    """

    model: str
    deployment: str
    metric: str
    higher: bool
    rate: float
    baseline_s: float
    runs: tuple[dict[str, Any], ...]

    def write(self, root: Path) -> None:
        """Write the project's files below `root`."""

    def rows(self) -> Iterator[Row]:
        """Yield rows for ever; `shift` and `fresh` change what comes next."""

    def shift(self) -> str:
        """Change the world; return one sentence that says what happened."""

    def fresh(self) -> None:
        """From now on, yield only rows that no training can have seen."""

    def score(self, answers: list[tuple[Scalar, Scalar]]) -> float:
        """Return the metric over (prediction, actual) pairs."""

    def recovered(
        self, root: Path, before: float, after: float, rows: list[tuple[Row, Scalar]]
    ) -> tuple[bool, str]:
        """Judge whether the new champion made good what the change had broken, with a sentence for people."""
