"""When enough labels have arrived: at a declared age."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Self

from loopwright.config import MonitorConfig
from loopwright.predictions import PredictionStore

__all__ = ["LabelDelay", "Maturity"]


@dataclass(frozen=True, slots=True)
class Maturity:
    """How far the labels of one window have come; shares are 0 to 1, None while they are not known."""

    expected: float | None
    arrived: float
    value: float | None
    mature: bool
    overdue: bool


@dataclass(frozen=True, slots=True)
class LabelDelay:
    """A window is mature at an age of `label_delay_s` seconds."""

    label_delay_s: float

    @classmethod
    def read(cls, store: PredictionStore, deployment: str, now: datetime, config: MonitorConfig) -> Self:
        """Return what is declared."""
        return cls(config.performance.label_delay.total_seconds())

    def maturity(self, age_s: float, labelled: int, rows: int) -> Maturity:
        """Return whether a window of an age in seconds is mature."""
        arrived = labelled / rows if rows else 0.0
        return Maturity(None, arrived, None, age_s >= self.label_delay_s, False)
