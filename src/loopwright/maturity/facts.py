"""One checkable fact, and the ways to state how it stands."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["ATTEST", "DIMENSIONS", "Dimension", "Fact"]

Dimension = Literal["people", "model creation", "model release", "application integration"]
DIMENSIONS: tuple[Dimension, ...] = ("people", "model creation", "model release", "application integration")
#: The evidence of a fact that no record can show.
ATTEST = "what leaves no trace is not granted"


@dataclass(frozen=True, slots=True)
class Fact:
    """One fact of one level.

    `ok` is True when it was observed, False when the opposite was, None when nothing is known; only True is granted.
    `evidence` says what was seen, `command` produces what is missing.
    """

    id: str
    level: int
    dimension: Dimension
    statement: str
    ok: bool | None
    evidence: str
    command: str
