"""What changed from one snapshot to another: columns, rows, and how each column's values are spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from loopwright.config import Project
from loopwright.errors import InvalidInput, NotFound
from loopwright.lineage.snapshots import read_snapshot
from loopwright.lineage.statistics import ColumnStatistics, Statistics, statistics
from loopwright.lineage.values import kind_of, plain, type_name
from loopwright.records import DatasetRef

if TYPE_CHECKING:
    import pyarrow as pa
    from numpy.typing import NDArray

__all__ = ["ColumnMove", "Comparison", "RowChanges", "compare"]

#: Bars of a column's histogram.
BARS = 12


@dataclass(frozen=True, slots=True)
class RowChanges:
    """Rows of B that A lacks, rows of A that B lacks, rows with the key of both and other values, and rows alike.

    Without a key a row that changed counts as one removed and one added, and equal rows are counted as often as they
    come. `by_column` says in how many of the changed rows a column differs.
    """

    key: tuple[str, ...]
    added: int
    removed: int
    changed: int
    same: int
    by_column: dict[str, int]


@dataclass(frozen=True, slots=True)
class ColumnMove:
    """How one column's values moved.

    `effect` is between 0 (spread alike) and 1: for numbers and times the largest gap between the two cumulative
    shares, for text and booleans the share of rows in other categories; the change of the share of missing values
    where that is larger. `missing` holds that share before and after. `labels` names the bars of the two histograms, which hold shares.
    """

    name: str
    effect: float
    before: ColumnStatistics
    after: ColumnStatistics
    missing: tuple[float, float]
    labels: tuple[str, ...] = ()
    shares_before: tuple[float, ...] = ()
    shares_after: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """What changed from `before` to `after`. `same` says that they are one content; `moves` has the largest first."""

    before: DatasetRef
    after: DatasetRef
    same: bool
    reordered: bool
    columns_added: tuple[str, ...]
    columns_removed: tuple[str, ...]
    types_changed: dict[str, tuple[str, str]]
    rows: RowChanges
    moves: tuple[ColumnMove, ...]


def compare(project: Project, before: DatasetRef, after: DatasetRef, key: Sequence[str] = ()) -> Comparison:
    """Compare two snapshots.

    Parameters
    ----------
    key
        The columns that say which row of the one is which of the other; none compares the rows as a multiset.

    Raises
    ------
    NotFound
        A key column is missing.
    InvalidInput
        The key does not tell the rows of a snapshot apart.
    Damaged
        A snapshot is not what was kept.
    """
    one, other = read_snapshot(project, before.digest), read_snapshot(project, after.digest)
    common = [name for name in one.column_names if name in other.column_names]
    types = {
        name: (type_name(one.schema.field(name).type), type_name(other.schema.field(name).type))
        for name in common
    }
    for name in key:
        for ref, table in ((before, one), (after, other)):
            if name not in table.column_names:
                raise NotFound.among(f"key column of {ref.name}", name, table.column_names)
    rows = _rows(one, other, common, tuple(key), before, after)
    same = before.digest == after.digest
    counts = (statistics(project, before.digest), statistics(project, after.digest))
    alike = common == one.column_names == other.column_names
    unchanged = alike and not (rows.added or rows.removed or rows.changed)
    return Comparison(
        before,
        after,
        same,
        not same and unchanged and all(mine == theirs for mine, theirs in types.values()),
        tuple(name for name in other.column_names if name not in common),
        tuple(name for name in one.column_names if name not in common),
        {name: pair for name, pair in types.items() if pair[0] != pair[1]},
        rows,
        () if same else tuple(_moves(one, other, common, counts)),
    )


# Rows.


def _rows(
    one: pa.Table,
    other: pa.Table,
    common: list[str],
    key: tuple[str, ...],
    before: DatasetRef,
    after: DatasetRef,
) -> RowChanges:
    import duckdb

    if not common:
        return RowChanges(key, other.num_rows, one.num_rows, 0, 0, {})
    with duckdb.connect() as connection:
        for name, table, partner in (("one", one, other), ("other", other, one)):
            connection.register(name, _comparable(table, partner, common))
        if not key:
            removed = _number(connection, "select * from one except all select * from other")
            added = _number(connection, "select * from other except all select * from one")
            return RowChanges(key, added, removed, 0, one.num_rows - removed, {})
        for name, ref in (("one", before), ("other", after)):
            _check_key(connection, name, ref, key)
        return _by_key(connection, common, key)


def _comparable(table: pa.Table, partner: pa.Table, names: list[str]) -> pa.Table:
    """Return the columns of `names`; one whose kind is another in the partner is compared as text."""
    import pyarrow as pa

    columns = {}
    for name in names:
        column = plain(table[name])
        kinds = {kind_of(table[name].type), kind_of(partner[name].type)}
        if kinds == {"number"}:
            whole = all(pa.types.is_integer(item[name].type) for item in (table, partner))
            columns[name] = column if whole else column.cast(pa.float64(), safe=False)
        else:
            columns[name] = column if len(kinds) == 1 else column.cast(pa.string())
    return pa.table(columns)


def _number(connection: Any, query: str) -> int:
    return int(connection.execute(f"select count(*) from ({query})").fetchone()[0])


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _check_key(connection: Any, table: str, ref: DatasetRef, key: tuple[str, ...]) -> None:
    columns = ", ".join(map(_quoted, key))
    twice = connection.execute(
        f"select {columns}, count(*) as n from {table} group by {columns} having n > 1 order by n desc limit 1"
    ).fetchone()
    if twice:
        values = ", ".join(f"{name}={value!r}" for name, value in zip(key, twice, strict=False))
        raise InvalidInput(
            f"The key {', '.join(key)} does not tell the rows of {ref.name} {ref.digest[:12]} apart: "
            f"{twice[-1]} rows have {values}.",
            valid="A key has another value in each row.",
            hint="name more columns, --key a,b, or compare without a key",
        )


def _by_key(connection: Any, common: list[str], key: tuple[str, ...]) -> RowChanges:
    match = " and ".join(f"a.{_quoted(name)} is not distinct from b.{_quoted(name)}" for name in key)
    others = [name for name in common if name not in key]
    differ = [f"a.{_quoted(name)} is distinct from b.{_quoted(name)}" for name in others]
    sums = ["count(*)", f"count(*) filter ({' or '.join(differ) or 'false'})"]
    sums += [f"count(*) filter ({one})" for one in differ]
    both, changed, *by = connection.execute(
        f"select {', '.join(sums)} from one a join other b on {match}"
    ).fetchone()
    removed = _number(connection, "select * from one") - both
    added = _number(connection, "select * from other") - both
    counts = {name: int(count) for name, count in zip(others, by, strict=True) if count}
    ordered = dict(sorted(counts.items(), key=lambda item: -item[1]))
    return RowChanges(key, added, removed, int(changed), both - int(changed), ordered)


# Columns.


def _moves(
    one: pa.Table, other: pa.Table, common: list[str], counts: tuple[Statistics, Statistics]
) -> list[ColumnMove]:
    known = [{column.name: column for column in item.columns} for item in counts]
    moves = [
        _move(name, plain(one[name]), plain(other[name]), known[0][name], known[1][name])
        for name in common
        if one.num_rows and other.num_rows
    ]
    return sorted(moves, key=lambda move: -move.effect)


def _move(
    name: str, one: pa.ChunkedArray, other: pa.ChunkedArray, before: ColumnStatistics, after: ColumnStatistics
) -> ColumnMove:
    missing = before.nulls / len(one), after.nulls / len(other)
    gap = abs(missing[0] - missing[1])
    if before.kind != after.kind or before.kind == "other" or None in {before.minimum, after.minimum}:
        return ColumnMove(name, round(gap, 4), before, after, missing)
    if before.kind in {"number", "time"}:
        effect, labels, shares = _numbers(_present(one), _present(other))
    else:
        effect, labels, shares = _categories(one, other)
    return ColumnMove(name, round(max(effect, gap), 4), before, after, missing, labels, *shares)


Spread = tuple[float, tuple[str, ...], tuple[tuple[float, ...], tuple[float, ...]]]


def _present(column: pa.ChunkedArray) -> NDArray[np.float64]:
    import pyarrow as pa

    return np.sort(column.drop_null().cast(pa.float64(), safe=False).to_numpy())


def _numbers(one: NDArray[np.float64], other: NDArray[np.float64]) -> Spread:
    """Return the Kolmogorov-Smirnov distance of two sorted samples, and both in bars of equal width."""
    values = np.concatenate([one, other])
    below = [np.searchsorted(item, values, side="right") / len(item) for item in (one, other)]
    effect = float(np.abs(below[0] - below[1]).max())
    # A single far value would put all others into one bar: the outer bars are open.
    low, high = np.quantile(values, [0.01, 0.99])
    if not np.isfinite(high - low) or high <= low:
        return effect, (), ((), ())
    edges = np.linspace(low, high, BARS + 1)
    counts = [np.histogram(np.clip(item, low, high), edges)[0] / len(item) for item in (one, other)]
    labels = tuple(f"{edge:.12g}" for edge in edges)
    return effect, labels, (tuple(counts[0].tolist()), tuple(counts[1].tolist()))


def _categories(one: pa.ChunkedArray, other: pa.ChunkedArray) -> Spread:
    """Return the total variation distance, and the shares of the categories that are most frequent in both together."""
    shares = [_shares(column) for column in (one, other)]
    names = sorted(
        set(shares[0]) | set(shares[1]),
        key=lambda value: (-(shares[0].get(value, 0.0) + shares[1].get(value, 0.0)), value),
    )
    effect = sum(abs(shares[0].get(name, 0.0) - shares[1].get(name, 0.0)) for name in names) / 2
    shown = names[:BARS]
    bars = [tuple(item.get(name, 0.0) for name in shown) for item in shares]
    return effect, tuple(shown), (bars[0], bars[1])


def _shares(column: pa.ChunkedArray) -> dict[str, float]:
    counted = column.drop_null().value_counts().to_pylist()
    total = sum(item["counts"] for item in counted) or 1
    return {str(item["values"]): item["counts"] / total for item in counted}
