"""Questions to the prediction log in SQL: one SELECT, a bounded answer, a bounded time."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from loopwright.console.monitoring.source import Source
from loopwright.predictions.columns import rows_of

__all__ = ["EXAMPLES", "ROWS", "TIMEOUT_S", "Answered", "ask", "chart_of"]

#: Rows of an answer that are shown or sent, and how long a query may take.
ROWS, TIMEOUT_S = 1000, 10.0
#: What people ask first.
EXAMPLES: tuple[tuple[str, str], ...] = (
    (
        "Predictions per hour",
        """select time_bucket(interval '1 hour', at) as hour, count(*) as predictions
from predictions group by hour order by hour""",
    ),
    (
        "Right answers by version",
        """select version, avg(actual = prediction) as accuracy, count(actual) as labelled
from predictions where actual is not null group by version order by version""",
    ),
    (
        "Slowest predictions",
        """select at, prediction_id, version, latency_ms
from predictions order by latency_ms desc limit 20""",
    ),
    (
        "What is predicted",
        """select prediction, count(*) as n
from predictions group by prediction order by n desc limit 50""",
    ),
)


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to a query: at most `ROWS` of its rows, in `columns` of DuckDB's or Arrow's types."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    truncated: bool
    seconds: float


def ask(
    source: Source, sql: str, deployment: str | None, since: datetime | None, until: datetime | None
) -> Answered:
    """Answer one SELECT over the prediction log.

    Raises
    ------
    InvalidInput
        It is not one SELECT, does not work, or took longer than `TIMEOUT_S`.
    NotFound
        There is no such deployment.
    """
    started = time.monotonic()
    found = source.store.query(
        sql, deployment=deployment, since=since, until=until, limit_rows=ROWS + 1, timeout_s=TIMEOUT_S
    )
    columns = [[plain(value) for value in values] for values in _lists(found.slice(0, ROWS))]
    return Answered(
        columns=tuple(found.column_names),
        types=tuple(str(kind) for kind in found.schema.types),
        rows=tuple(zip(*columns, strict=True)),
        truncated=found.num_rows > ROWS,
        seconds=round(time.monotonic() - started, 4),
    )


def _lists(table: Any) -> list[list[Any]]:
    """Return the columns of an Arrow table as lists; names may be there twice."""
    numbered = table.rename_columns([str(place) for place in range(table.num_columns)])
    rows = rows_of(numbered)
    return [[row[name] for row in rows] for name in numbered.column_names]


def plain(value: Any) -> Any:
    """Return a value as JSON has it: numbers that JSON lacks are None, what it has no type for is text."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    return str(value)


@dataclass(frozen=True, slots=True)
class Drawn:
    """How an answer can be drawn: one column across, one up."""

    across: int
    up: int
    time: bool


def chart_of(found: Answered) -> Drawn | None:
    """Return how to draw an answer that has one time or category and one number (the first); None for others.

    Examples
    --------
    >>> chart_of(Answered(("day", "n"), ("date32[day]", "int64"), (("2026-11-01", 3), ("2026-11-02", 4)), False, 0.1))
    Drawn(across=0, up=1, time=True)
    """
    if not 2 <= len(found.rows) <= ROWS or len(found.columns) < 2:
        return None
    number = [place for place, kind in enumerate(found.types) if _numeric(kind)]
    times = [place for place, kind in enumerate(found.types) if kind.startswith(("timestamp", "date"))]
    if times and number:
        return Drawn(times[0], number[0], True)
    texts = [place for place, kind in enumerate(found.types) if kind in {"string", "large_string", "bool"}]
    if texts and number:
        across, up = texts[0], number[0]
    elif len(number) >= 2:
        across, up = number[0], number[1]
    else:
        return None
    distinct = {row[across] for row in found.rows}
    return Drawn(across, up, False) if len(distinct) == len(found.rows) <= 200 else None


def _numeric(kind: str) -> bool:
    return kind.startswith(("int", "uint", "float", "double", "halffloat", "decimal"))
