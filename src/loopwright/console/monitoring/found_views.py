"""What checks found, as plain records that all answers are made of."""

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

__all__ = ["Bin", "Found", "Marker", "Tone", "WindowLine"]

#: What a thing means, told by colour and sign.
Tone = Literal["good", "warn", "bad", "info", "plain"]


@dataclass(frozen=True, slots=True)
class Found:
    """What one check said of one window: `value` against `limit` over `rows` rows, with its 95 % interval."""

    check: str
    subject: str
    segment: str
    version: int
    start: datetime
    end: datetime
    value: float | None
    lower: float | None
    upper: float | None
    limit: float | None
    rows: int
    fired: bool


@dataclass(frozen=True, slots=True)
class WindowLine:
    """One window of one phase of checks: ``inputs`` as soon as it is over, ``labels`` when they are due."""

    start: datetime
    end: datetime
    phase: Literal["inputs", "labels"]
    state: Literal["judged", "immature", "overdue", "empty"]
    version: int
    rows: int
    labelled: int
    maturity: float | None
    fired: int
    failed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Bin:
    """A bin or category: the share of rows in the reference and now."""

    label: str
    reference: float
    current: float


@dataclass(frozen=True, slots=True)
class Marker:
    """A moment to mark in the charts."""

    at: datetime
    text: str
    tone: Tone
