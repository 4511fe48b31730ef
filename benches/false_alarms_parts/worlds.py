"""A model with thirty inputs whose rows are drawn from distributions that are known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loopwright.config import MonitorConfig
from loopwright.errors import NotFound
from loopwright.ledger import Ledger
from loopwright.monitor.base import ALL, Context, Segment
from loopwright.monitor.blocks import Block, Plan
from loopwright.monitor.metrics import Labelled
from loopwright.monitor.results import Results
from loopwright.records import Column, Mode, Signature, Task, Window
from loopwright.registry.profile import Profile, profile_of

__all__ = ["CARDINALITIES", "KINDS", "NUMERIC", "START", "Rows", "World", "context_of"]

START = datetime(2026, 3, 2, tzinfo=UTC)
NUMERIC = 20
CARDINALITIES = (2, 5, 10, 20, 50, 100, 200, 500, 1000, 1000)
#: The numeric columns take turns.
KINDS = ("normal", "lognormal", "gamma", "rounded uniform")
SIGNATURE = Signature(
    (
        *(Column(f"n{place}", "double", required=False) for place in range(NUMERIC)),
        *(Column(f"c{place}", "string") for place in range(len(CARDINALITIES))),
    ),
    Task.classification,
    "outcome",
    ("no", "yes"),
)


@dataclass
class Rows:
    """The rows of one window as a check sees them; columns have the log's names."""

    plan: Plan
    columns: Mapping[str, Any]
    truth: Labelled | None = None
    blocks: dict[Segment, Block] = field(default_factory=dict)

    @cached_property
    def _rows(self) -> int:
        return len(next(iter(self.columns.values()))) if self.columns else len(self.truth or ())

    @property
    def versions(self) -> Mapping[int, int]:
        """All rows are of version 1."""
        return {1: self._rows}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The inputs."""
        return tuple(name.removeprefix("input_") for name in self.columns if name.startswith("input_"))

    @cached_property
    def types(self) -> Mapping[str, str]:
        """The DuckDB types that the log would have."""
        return {
            name: "DOUBLE" if isinstance(values, np.ndarray) else "VARCHAR"
            for name, values in self.columns.items()
        }

    def rows(self, version: int | None = None, segment: Segment = ALL) -> int:
        """How many there are."""
        return self._rows

    def segments(self) -> tuple[Segment, ...]:
        """None are declared."""
        return ()

    def counts(self, version: int | None = None, segment: Segment = ALL) -> Block:
        """Count once for all checks."""
        if segment not in self.blocks:
            self.blocks[segment] = self.plan.count(self.columns)
        return self.blocks[segment]

    def values(self, column: str, version: int | None = None, segment: Segment = ALL) -> NDArray[Any]:
        """One column."""
        if column not in self.columns:
            raise NotFound.among("column", column, sorted(self.columns))
        values = self.columns[column]
        return values if isinstance(values, np.ndarray) else np.array(values.to_pylist(), object)

    def labelled(self, version: int | None = None, segment: Segment = ALL) -> Labelled:
        """Return the rows whose label has come."""
        return self.truth or Labelled(np.empty(0), np.empty(0))

    def query(self, sql: str, timeout_s: float) -> Any:
        """No KPI is declared."""
        raise NotImplementedError(sql)

    def table(self) -> Any:
        """No KPI is declared."""
        raise NotImplementedError


class World:
    """Thirty features: twenty numeric, four of them with gaps, and ten categorical with long tails."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self._words = [np.array([f"w{one}" for one in range(size)], object) for size in CARDINALITIES]
        self._arrow = [pa.array(words) for words in self._words]
        weights = [1 / np.arange(1, size + 1) for size in CARDINALITIES]
        self._sums = [np.cumsum(one / one.sum()) for one in weights]

    def numbers(self, rows: int) -> list[NDArray[np.float64]]:
        """Draw the numeric columns."""
        made = []
        for place in range(NUMERIC):
            kind = KINDS[place % 4]
            if kind == "normal":
                values = self.random.normal(size=rows)
            elif kind == "lognormal":
                values = self.random.lognormal(size=rows)
            elif kind == "gamma":
                values = self.random.gamma(2.0, size=rows)
            else:
                values = np.round(self.random.uniform(0, 100, rows))
            if place % 5 == 4:
                values[self.random.random(rows) < 0.02] = np.nan
            made.append(values)
        return made

    def places(self, rows: int) -> list[NDArray[np.int32]]:
        """Draw the categories, as numbers."""
        return [
            np.minimum(np.searchsorted(sums, self.random.random(rows)), len(sums) - 1).astype(np.int32)
            for sums in self._sums
        ]

    def reference(self, rows: int) -> Profile:
        """Draw training rows, and return their profile."""
        columns: dict[str, NDArray[Any]] = {
            f"n{place}": values for place, values in enumerate(self.numbers(rows))
        }
        for place, (words, drawn) in enumerate(zip(self._words, self.places(rows), strict=True)):
            columns[f"c{place}"] = words[drawn]
        chance = self.random.beta(2, 4, min(rows, 10_000))
        words = np.array(["no", "yes"], object)
        answers = words[(chance > 0.5).astype(np.int64)]
        actual = words[(self.random.random(len(chance)) < chance).astype(np.int64)]
        return profile_of(
            columns,
            SIGNATURE,
            answers,
            performance={"accuracy": float(np.mean(answers == actual))},
            probability=np.column_stack([1 - chance, chance]),
            actual=actual,
        )

    def window(self, plan: Plan, rows: int, *, shifted: int | None = None, shift: float = 0.0) -> Rows:
        """Draw a window; one numeric column may be shifted by so many of its standard deviations."""
        numbers = self.numbers(rows)
        if shifted is not None:
            deviation = {"normal": 1.0, "lognormal": 2.161, "gamma": 1.414, "rounded uniform": 28.87}
            numbers[shifted] = numbers[shifted] + shift * deviation[KINDS[shifted % 4]]
        columns: dict[str, Any] = {f"input_n{place}": values for place, values in enumerate(numbers)}
        for place, (words, drawn) in enumerate(zip(self._arrow, self.places(rows), strict=True)):
            columns[f"input_c{place}"] = pa.DictionaryArray.from_arrays(pa.array(drawn), words)
        chance = self.random.beta(2, 4, rows)
        answers = pa.array((chance > 0.5).astype(np.int32))
        columns["prediction"] = pa.DictionaryArray.from_arrays(answers, pa.array(["no", "yes"]))
        columns["probability"] = np.column_stack([1 - chance, chance])
        columns["latency_ms"] = self.random.lognormal(size=rows)
        return Rows(plan, columns)


def context_of(
    profile: Profile | None,
    data: Rows,
    ledger: Ledger,
    *,
    config: MonitorConfig,
    day: int = 0,
    deployment: str = "simulation",
) -> Context:
    """Return what checks are given for a window of one day."""
    start = START + timedelta(days=day)
    return Context(
        model="simulated",
        deployment=deployment,
        mode=Mode.batch,
        window=Window(start, start + timedelta(days=1)),
        config=config,
        champion=1,
        signature=SIGNATURE,
        metric="accuracy",
        data=data,
        profile=lambda version: profile,
        results=Results(ledger),
        at=start + timedelta(days=1),
    )
