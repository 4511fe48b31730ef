"""``loopwright dataset``: what was read, as it was when it was read."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import cyclopts
from cyclopts import Parameter

from loopwright.cli.output import COMMON, Common, console, emit, emit_table, when, working

if TYPE_CHECKING:
    from loopwright.lineage.comparison import ColumnMove, Comparison
    from loopwright.lineage.statistics import ColumnStatistics

__all__ = ["app"]

app = cyclopts.App(name="dataset", help="Look at datasets and compare them.")

_BLOCKS = " ▁▂▃▄▅▆▇█"


@app.command(name="list")
def list_(*, common: Common = COMMON) -> None:
    """List the datasets: how many snapshots each has, and the newest.

    For example:

        loopwright dataset list
    """
    from loopwright.lineage.history import names

    known = names(common.open())
    if common.json:
        emit([{"name": name, "snapshots": refs} for name, refs in known.items()])
        return
    emit_table(
        "",
        [
            {
                "dataset": name,
                "snapshots": len(refs),
                "rows": refs[-1].rows,
                "columns": len(refs[-1].columns),
                "newest": refs[-1].digest[:12],
                "read": refs[-1].created,
                "source": refs[-1].source or None,
            }
            for name, refs in known.items()
        ],
        empty='No dataset was read yet. Try, in a pipeline: loopwright.dataset("orders", "data/orders.parquet")',
    )


@app.command
def show(dataset: str, /, *, common: Common = COMMON) -> None:
    """Show a snapshot: its columns with their statistics, and who used it.

    A dataset is its name, `name@2` for its second snapshot, or the first digits of a fingerprint.

    For example:

        loopwright dataset show orders
        loopwright dataset show orders@2
    """
    from loopwright.lineage.history import history, resolve, users
    from loopwright.lineage.statistics import statistics

    project = common.open()
    ref = resolve(project, dataset)
    with working(f"Counting {ref.rows:,} rows"):
        found = statistics(project, ref.digest)
    used = users(project, ref.digest)
    taken = history(project, ref.name)
    if common.json:
        emit({"dataset": ref, "statistics": found, "used_by": used, "snapshots": taken})
        return
    number = max(place for place, item in enumerate(taken, 1) if item.digest == ref.digest)
    console.print(
        f"{ref.name}@{number} of {len(taken)}, read {when(ref.created)}", style="bold", markup=False
    )
    console.print(
        f"{ref.rows:,} rows, {len(ref.columns)} columns, from {ref.source or 'a table in memory'}",
        markup=False,
    )
    console.print(
        f"fingerprint {ref.digest}\nsnapshot    {project.root / ref.snapshot}\n",
        highlight=False,
        markup=False,
    )
    emit_table("", [_statistics(column, found.rows) for column in found.columns], empty="no columns")
    if not found.exact:
        console.print(
            "\nDistinct values and quantiles are estimates: the dataset has more than a million rows."
        )
    console.print(f"\nmodel versions: {', '.join(used.versions) or '-'}", highlight=False, markup=False)
    runs = ", ".join(f"{run} ({pipeline})" for run, pipeline in used.runs)
    console.print(f"runs:           {runs or '-'}", highlight=False, markup=False)


def _statistics(column: ColumnStatistics, rows: int) -> dict[str, Any]:
    return {
        "column": column.name,
        "type": column.type,
        "missing": f"{column.nulls / rows:.1%}" if column.nulls else "-",
        "distinct": column.distinct,
        "min": _value(column.minimum, column),
        "mean": _value(column.mean, column),
        "median": _value(column.quantiles[2], column) if column.quantiles else None,
        "max": _value(column.maximum, column),
        "most frequent": ", ".join(f"{value[:20]} ({count / rows:.0%})" for value, count in column.top[:3])
        or None,
    }


def _value(value: Any, column: ColumnStatistics) -> Any:
    if value is not None and column.kind == "time":
        return f"{datetime.fromtimestamp(value, UTC):%Y-%m-%d %H:%M}"
    return value[:20] if isinstance(value, str) else value


@app.command
def diff(
    before: str,
    after: str,
    /,
    *,
    key: Annotated[str, Parameter(help="Columns that name a row, such as id or shop,day.")] = "",
    common: Common = COMMON,
) -> None:
    """Say what changed from one snapshot to another: columns, rows, and how the values of each column moved.

    The effect is between 0 and 1: the largest gap between the cumulative shares of two columns of numbers, or the
    share of rows that are in other categories.

    For example:

        loopwright dataset diff orders@1 orders --key id
    """
    from loopwright.lineage.comparison import compare
    from loopwright.lineage.history import resolve

    project = common.open()
    refs = resolve(project, before), resolve(project, after)
    with working(f"Comparing {refs[0].rows:,} with {refs[1].rows:,} rows"):
        found = compare(project, *refs, [name.strip() for name in key.split(",") if name.strip()])
    if common.json:
        emit(found)
        return
    _print(found, (before, after))


def _print(found: Comparison, names: tuple[str, str]) -> None:
    for name, ref in zip(names, (found.before, found.after), strict=True):
        console.print(
            f"{name}: {ref.rows:,} rows, {len(ref.columns)} columns, {ref.digest[:12]}, read {when(ref.created)}",
            highlight=False,
            markup=False,
        )
    if found.same:
        console.print("\n[bold]The same[/bold]: every value of every row, in the same order.")
        return
    if found.reordered:
        console.print("\n[bold]The same rows in another order.[/bold]")
        return
    for what, columns in (("added", found.columns_added), ("removed", found.columns_removed)):
        if columns:
            console.print(f"\ncolumns {what}: {', '.join(columns)}", highlight=False, markup=False)
    for column, (mine, theirs) in found.types_changed.items():
        console.print(f"\ntype of {column}: {mine} -> {theirs}", highlight=False, markup=False)
    rows = found.rows
    by_key = f"{rows.changed:,} changed, " if rows.key else ""
    told = (
        f"by {', '.join(rows.key)}"
        if rows.key
        else "a changed row counts as removed and added; --key tells them apart"
    )
    console.print(
        f"\nrows: {rows.added:,} added, {rows.removed:,} removed, {by_key}{rows.same:,} alike   ({told})\n",
        highlight=False,
        markup=False,
    )
    moved = [move for move in found.moves if move.effect > 0 or rows.by_column.get(move.name)]
    table = [_moved(move, rows.by_column if rows.key else None) for move in moved]
    emit_table("", table, empty="The values of every column are spread alike.")
    if alike := len(found.moves) - len(moved):
        console.print(f"\n{alike} more columns are spread alike.")


def _moved(move: ColumnMove, by_column: dict[str, int] | None) -> dict[str, Any]:
    one, other = move.before, move.after
    row: dict[str, Any] = {"column": move.name, "effect": f"{move.effect:.3f}"}
    if by_column is not None:
        row["changed"] = by_column.get(move.name, 0)
    row["before"] = _bars(move.shares_before, move.shares_after)
    row["after"] = _bars(move.shares_after, move.shares_before)
    row["bars"] = _legend(move)
    row["mean"] = _arrow(_value(one.mean, one), _value(other.mean, other))
    row["missing"] = _arrow(*(f"{share:.1%}" for share in move.missing))
    return row


def _arrow(before: Any, after: Any) -> str | None:
    if before is None or after is None:
        return None
    texts = [f"{value:.4g}" if isinstance(value, float) else str(value) for value in (before, after)]
    return texts[0] if texts[0] == texts[1] else " -> ".join(texts)


def _bars(shares: tuple[float, ...], others: tuple[float, ...]) -> str:
    """Draw shares as blocks, to one scale with the other's."""
    most = max((*shares, *others), default=0.0) or 1.0
    return "".join(_BLOCKS[min(8, math.ceil(8 * share / most))] for share in shares)


def _legend(move: ColumnMove) -> str | None:
    """Say what the bars are: a range of numbers, or the categories from left to right."""
    if not move.labels:
        return None
    if move.before.kind in {"number", "time"}:
        low, high = (_value(float(move.labels[place]), move.before) for place in (0, -1))
        return f"{low} .. {high}" if isinstance(low, str) else f"{low:.4g} .. {high:.4g}"
    return " ".join(move.labels[:4])[:40] + (" .." if len(move.labels) > 4 else "")
