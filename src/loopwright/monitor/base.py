"""What every check gets and gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from numpy.typing import NDArray

from loopwright.config import MonitorConfig
from loopwright.errors import InvalidInput
from loopwright.monitor.blocks import Block
from loopwright.monitor.metrics import Labelled
from loopwright.monitor.results import Results
from loopwright.records import Mode, Signal, Signature, Window
from loopwright.registry.profile import Profile

__all__ = ["ALL", "Check", "Context", "Incomplete", "Phase", "Segment", "WindowData"]

#: When a check can judge a window: as soon as it is over, or when its labels are due.
Phase = Literal["inputs", "labels"]


@dataclass(frozen=True, slots=True)
class Segment:
    """A part of a window's rows: those whose `column` has a `value`; without a column all of them."""

    column: str = ""
    value: str = ""

    def __str__(self) -> str:
        return f"{self.column}={self.value}" if self.column else ""


#: All rows of a window.
ALL = Segment()


class WindowData(Protocol):
    """The rows of one window, read once and shared by all checks; what no check asks for is not read.

    `version` None means all versions. Inputs that the log does not keep as they came are not there.
    """

    @property
    def versions(self) -> Mapping[int, int]:
        """How many rows each version answered; empty where the window has none."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """The inputs that the log has columns of in this window, without their prefix."""
        ...

    @property
    def types(self) -> Mapping[str, str]:
        """The DuckDB type of each column of the window."""
        ...

    def rows(self, version: int | None = None, segment: Segment = ALL) -> int:
        """Return how many rows there are."""
        ...

    def segments(self) -> tuple[Segment, ...]:
        """Return the declared segments that occur, each column's most frequent first; never `ALL`."""
        ...

    def counts(self, version: int | None = None, segment: Segment = ALL) -> Block:
        """Return the additive counts of inputs, predictions and latency in the bins of the champion's profile."""
        ...

    def values(self, column: str, version: int | None = None, segment: Segment = ALL) -> NDArray[Any]:
        """Return a column of the log as an array: numbers with NaN for null, else objects with None."""
        ...

    def labelled(self, version: int | None = None, segment: Segment = ALL) -> Labelled:
        """Return the rows whose label is known."""
        ...

    def query(self, sql: str, timeout_s: float) -> Any:
        """Run one SELECT over this window's `predictions` and return the only value of its result, None for none.

        Raises
        ------
        InvalidInput
            It is not one SELECT, does not work, took longer than `timeout_s`, or gives more than one value.
        """
        ...

    def table(self) -> Any:
        """Return all rows with all columns as a pyarrow Table: for KPIs in Python, and for nothing else."""
        ...


@dataclass(frozen=True, slots=True)
class Context:
    """One window of one deployment.

    Attributes
    ----------
    champion
        The version that is being watched.
    signature
        The champion's, None where it has none.
    metric
        The metric that the model is judged by.
    profile
        Returns the reference profile of a version, or None where it has none.
    results
        What was found in earlier windows.
    at
        The present moment.
    hidden
        The inputs whose values the log does not keep as they came, and `data` has no columns of.
    root
        The project's folder: what KPIs in Python are imported from, and what online workers count lies below it.
    """

    model: str
    deployment: str
    mode: Mode
    window: Window
    config: MonitorConfig
    champion: int
    signature: Signature | None
    metric: str
    data: WindowData
    profile: Callable[[int], Profile | None]
    results: Results
    at: datetime
    hidden: frozenset[str] = frozenset()
    root: Path = Path()


class Incomplete(InvalidInput):
    """A part of what a check looks at could not be judged; `signals` are those of the rest, which count."""

    def __init__(self, problems: Sequence[str], signals: Sequence[Signal], *, hint: str = "") -> None:
        super().__init__(" ".join(problems), hint=hint)
        self.signals = tuple(signals)


class Check(Protocol):
    """One check, in a file of its own. `phase` says when it can judge a window.

    A check with an attribute `empty` that is true is run on windows without a row as well.
    """

    name: str
    phase: Phase

    def run(self, context: Context) -> list[Signal]:
        """Judge one window; no signals where there are too few rows to judge.

        Raises
        ------
        Incomplete
            Some of it cannot be judged; the reasons are kept with the window, and so are the signals of the rest.
        LoopwrightError
            It cannot be judged; the reason is kept with the window, and the other checks go on.
        """
        ...
