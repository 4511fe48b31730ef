"""From facts to levels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from loopwright.config import Project
from loopwright.ledger import Ledger
from loopwright.maturity import creation, integration, people, releasing
from loopwright.maturity.facts import DIMENSIONS, Fact
from loopwright.maturity.observed import Observed

__all__ = ["Assessment", "assess", "level_of"]

HIGHEST = 4


@dataclass(frozen=True, slots=True)
class Assessment:
    """A level and what it rests on. `dimensions` has the level of each of the four dimensions alone."""

    level: int
    facts: tuple[Fact, ...]
    dimensions: dict[str, int]

    @property
    def missing(self) -> tuple[Fact, ...]:
        """The facts that stand in the way of the next level."""
        return tuple(fact for fact in self.facts if fact.level == self.level + 1 and fact.ok is not True)


def level_of(facts: Iterable[Fact]) -> int:
    """Return the highest level whose facts, and those of all lower levels, were observed; 0 to 4."""
    held = list(facts)
    for level in range(1, HIGHEST + 1):
        if any(fact.ok is not True for fact in held if fact.level == level):
            return level - 1
    return HIGHEST


def assess(project: Project, ledger: Ledger) -> Assessment:
    """Judge all facts. Takes some milliseconds: about thirty small queries and five calls of git.

    A level needs all facts of its own and of all lower levels in all four dimensions; what is unknown is not granted.
    """
    observed = Observed.of(project, ledger)
    found = [
        *people.facts(observed),
        *creation.facts(observed),
        *releasing.facts(observed),
        *integration.facts(observed),
    ]
    facts = tuple(sorted(found, key=lambda fact: (fact.level, fact.id)))
    dimensions: dict[str, int] = {
        name: level_of(fact for fact in facts if fact.dimension == name) for name in DIMENSIONS
    }
    return Assessment(min(dimensions.values()), facts, dimensions)
