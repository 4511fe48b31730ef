"""The statistics of a snapshot: computed once, with DuckDB, and kept beside it."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from loopwright.config import Project
from loopwright.lineage.snapshots import path_of, read_snapshot
from loopwright.lineage.values import Kind, kind_of, plain_table, type_name

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["QUANTILES", "ColumnStatistics", "Statistics", "statistics", "statistics_of"]

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
TOP = 8
#: From so many rows on, distinct values and quantiles are estimated (to about 2 %): exactly, they want a sort each.
EXACT_ROWS = 1_000_000


@dataclass(frozen=True, slots=True)
class ColumnStatistics:
    """One column. `quantiles` are those of `QUANTILES`; times are seconds since 1970; `top` are values with counts.

    A column of another kind has only what can be said of it: text has no mean, lists have only `nulls`.
    """

    name: str
    type: str
    kind: Kind
    nulls: int
    distinct: int | None = None
    minimum: float | str | bool | None = None
    maximum: float | str | bool | None = None
    mean: float | None = None
    std: float | None = None
    quantiles: tuple[float, ...] = ()
    top: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Statistics:
    """All columns of one snapshot. `exact` is False where distinct values and quantiles are estimates."""

    rows: int
    exact: bool
    columns: tuple[ColumnStatistics, ...]


def statistics(project: Project, digest: str) -> Statistics:
    """Return the statistics of a snapshot, computing them when they are asked for the first time.

    Raises
    ------
    NotFound, Damaged
        There is no such snapshot, or its content has another fingerprint.
    """
    path = path_of(project, digest).with_suffix(".statistics.json")
    with contextlib.suppress(OSError, msgspec.DecodeError):
        return msgspec.json.decode(path.read_bytes(), type=Statistics)
    found = statistics_of(read_snapshot(project, digest))
    # They can be computed again: a full disk or a folder that cannot be written only costs the time.
    with contextlib.suppress(OSError):
        temporary = path.with_name(f".{path.name}")
        temporary.write_bytes(msgspec.json.encode(found))
        temporary.replace(path)
    return found


def statistics_of(table: pa.Table) -> Statistics:
    """Compute the statistics of a table."""
    import duckdb

    exact = table.num_rows <= EXACT_ROWS
    with duckdb.connect() as connection:
        connection.register("snapshot", plain_table(table))
        columns = tuple(
            _column(connection, field.name, field.type, table.num_rows, exact=exact) for field in table.schema
        )
    return Statistics(table.num_rows, exact, columns)


def _column(connection: Any, name: str, kind: pa.DataType, rows: int, *, exact: bool) -> ColumnStatistics:
    column, what = '"' + name.replace('"', '""') + '"', kind_of(kind)
    distinct = f"count(distinct {column})" if exact else f"approx_count_distinct({column})"
    wanted = [f"count({column})", distinct]
    if what != "other":
        wanted += [f"min({column})", f"max({column})"]
    if what in {"number", "time"}:
        quantile = "quantile_cont" if exact else "approx_quantile"
        number = f"{column}::double"
        wanted += [
            f"avg({number})",
            f"stddev_samp({number})",
            f"{quantile}({number}, {list(QUANTILES)})",
        ]
    facts = list(connection.execute(f"select {', '.join(wanted)} from snapshot").fetchone())
    facts += [None] * (7 - len(facts))
    counted, different, minimum, maximum, mean, std, quantiles = facts
    return ColumnStatistics(
        name,
        type_name(kind),
        what,
        rows - counted,
        different if what != "other" else None,
        minimum,
        maximum,
        mean,
        std,
        tuple(quantiles or ()),
        _top(connection, column) if what in {"text", "boolean"} else (),
    )


def _top(connection: Any, column: str) -> tuple[tuple[str, int], ...]:
    rows = connection.execute(
        f"select {column}::varchar, count(*) from snapshot where {column} is not null "
        f"group by 1 order by 2 desc, 1 limit {TOP}"
    ).fetchall()
    return tuple((str(value), int(count)) for value, count in rows)
