"""Windows of arrays in memory, for checks that look at counts: the same plan and the same blocks as those of the log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loopwright.config import MonitorConfig
from loopwright.ledger import Ledger
from loopwright.monitor.base import ALL, Context, Segment
from loopwright.monitor.blocks import Block, Plan
from loopwright.monitor.metrics import Labelled
from loopwright.monitor.results import Results
from loopwright.records import Column, Mode, Signature, Window
from loopwright.registry.profile import Profile

START = datetime(2026, 3, 1, tzinfo=UTC)


@dataclass
class CountedWindow:
    """The rows of one window; `columns` have the log's names."""

    plan: Plan
    columns: Mapping[str, NDArray[Any]]
    declared: tuple[str, ...] = ()
    version: int = 1
    kinds: Mapping[str, str] = field(default_factory=dict)

    @property
    def versions(self) -> Mapping[int, int]:
        """All rows are of one version."""
        return {self.version: self.rows()}

    @property
    def names(self) -> tuple[str, ...]:
        """The inputs there are."""
        return tuple(name.removeprefix("input_") for name in self.columns if name.startswith("input_"))

    @property
    def types(self) -> Mapping[str, str]:
        """DuckDB types, as far as they were given."""
        return self.kinds

    def _own(self, segment: Segment) -> Any:
        if segment == ALL:
            return slice(None)
        return np.array([str(value) == segment.value for value in self.columns[f"input_{segment.column}"]])

    def rows(self, version: int | None = None, segment: Segment = ALL) -> int:
        """How many rows there are."""
        first = next(iter(self.columns.values()), np.empty(0))
        return len(first[self._own(segment)])

    def segments(self) -> tuple[Segment, ...]:
        """Return the declared segments that occur."""
        return tuple(
            Segment(name, str(value))
            for name in self.declared
            for value in sorted(set(self.columns[f"input_{name}"].tolist()))
        )

    def counts(self, version: int | None = None, segment: Segment = ALL) -> Block:
        """Count the rows."""
        own = self._own(segment)
        return self.plan.count({name: values[own] for name, values in self.columns.items()})

    def values(self, column: str, version: int | None = None, segment: Segment = ALL) -> NDArray[Any]:
        """One column."""
        return np.asarray(self.columns[column][self._own(segment)])

    def labelled(self, version: int | None = None, segment: Segment = ALL) -> Labelled:
        """No row has a label."""
        return Labelled(np.empty(0), np.empty(0))

    def query(self, sql: str, timeout_s: float) -> Any:
        """There is no SQL here."""
        raise NotImplementedError

    def table(self) -> Any:
        """There is no table here."""
        raise NotImplementedError


def signature_of(columns: Mapping[str, NDArray[Any]], **facts: Any) -> Signature:
    """Return a signature that fits arrays: text is text, times are times, all else is a number."""
    kinds = {"O": "string", "M": "datetime", "b": "boolean"}
    inputs = tuple(
        Column(name, kinds.get(values.dtype.kind, "double"), required=False)  # type: ignore[arg-type]
        for name, values in columns.items()
    )
    return Signature(inputs, **facts)


def context_of(
    profile: Profile | None,
    signature: Signature,
    columns: Mapping[str, NDArray[Any]],
    ledger: Ledger,
    *,
    config: MonitorConfig | None = None,
) -> Context:
    """Return the context of one window of inputs, and of predictions under the name ``prediction``."""
    config = config or MonitorConfig()
    beside = {"prediction", "probability", "latency_ms"}
    logged = {name if name in beside else f"input_{name}": values for name, values in columns.items()}
    data = CountedWindow(Plan.of(profile, signature), logged, config.segments)
    return Context(
        model="m",
        deployment="d",
        mode=Mode.online,
        window=Window(START, START + timedelta(hours=1)),
        config=config,
        champion=1,
        signature=signature,
        metric="accuracy",
        data=data,
        profile=lambda version: profile,
        results=Results(ledger),
        at=START + timedelta(hours=1),
        root=Path(),
    )
