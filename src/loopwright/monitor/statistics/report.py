"""Two tables compared column by column, exactly: from all values, not from bins.

For a report on demand. Windows are judged by counts in fixed bins (`loopwright.monitor.drift`), which costs a tenth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from loopwright.errors import NotFound, SchemaMismatch
from loopwright.monitor.counting import numbers, tally
from loopwright.monitor.statistics.chi_square import chi_square, pooled
from loopwright.monitor.statistics.jensen_shannon import jensen_shannon
from loopwright.monitor.statistics.kolmogorov_smirnov import kolmogorov_smirnov, kolmogorov_smirnov_p
from loopwright.monitor.statistics.psi import psi
from loopwright.monitor.statistics.wasserstein import wasserstein

__all__ = ["STATISTICS", "Difference", "compare"]

STATISTICS = ("chi_square", "jensen_shannon", "kolmogorov_smirnov", "psi", "wasserstein")
#: From so many reference rows on the default is a distance, below it a test: distances of few rows are noise, and tests
#: of many rows call everything different.
LARGE = 1000
#: Columns compared at once. NumPy sorts without holding the interpreter.
THREADS = 2
#: Bins of a numeric column's PSI and Jensen-Shannon distance, at the reference's quantiles.
BINS = 20


@dataclass(frozen=True, slots=True)
class Difference:
    """How one column differs between two tables.

    Attributes
    ----------
    rows_reference, rows_current
        Values that are present and finite.
    missing_reference, missing_current
        Values that are missing or infinite.
    value
        By statistic: Wasserstein divided by the reference's standard deviation, Jensen-Shannon distance to base 2, PSI, the
        Kolmogorov-Smirnov statistic, and for chi-square the p-value; NaN where a table has no values.
    p
        The p-values of the tests among them.
    """

    column: str
    kind: Literal["numeric", "categorical"]
    rows_reference: int
    rows_current: int
    missing_reference: int
    missing_current: int
    value: dict[str, float] = field(default_factory=dict)
    p: dict[str, float] = field(default_factory=dict)


def compare(
    reference: Any,
    current: Any,
    statistics: Sequence[str] | None = None,
    *,
    columns: Sequence[str] | None = None,
) -> list[Difference]:
    """Compare two tables column by column.

    Parameters
    ----------
    reference, current
        pyarrow Tables, or mappings of arrays of shape (n,), NumPy or Arrow. Numbers and times are numeric columns, all
        others categorical.
    statistics
        Of `STATISTICS`. By default for more than 1,000 reference rows the Wasserstein distance of numbers and the
        Jensen-Shannon distance of categories, below that the Kolmogorov-Smirnov and the chi-square test.
    columns
        By default all that both tables have.

    Returns
    -------
    list of Difference
        In the reference's order.

    Raises
    ------
    NotFound
        There is no such statistic, or a table lacks a column that was asked for.
    SchemaMismatch
        A column is numeric in one table and not in the other.
    """
    for name in statistics or ():
        if name not in STATISTICS:
            raise NotFound.among("statistic", name, STATISTICS)
    before, now = _columns(reference), _columns(current)
    for name in columns or ():
        for table in (before, now):
            if name not in table:
                raise NotFound.among("column", name, list(table))
    names = list(columns) if columns is not None else [name for name in before if name in now]
    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(lambda name: _compared(name, before[name], now[name], statistics), names))


def _columns(table: Any) -> Mapping[str, Any]:
    if isinstance(table, Mapping):
        return table
    return dict(zip(table.column_names, table.columns, strict=True))


def _whole(column: Any) -> Any:
    return column.combine_chunks() if hasattr(column, "combine_chunks") else column


def _numeric(column: Any) -> bool:
    if isinstance(column, np.ndarray):
        return column.dtype.kind in "fiuM"
    import pyarrow.types as types

    kind = column.type
    return bool(
        types.is_integer(kind)
        or types.is_floating(kind)
        or types.is_timestamp(kind)
        or types.is_decimal(kind)
    )


def _compared(name: str, before: Any, now: Any, statistics: Sequence[str] | None) -> Difference:
    if _numeric(before) != _numeric(now):
        raise SchemaMismatch(
            f"The column {name!r} is a number in one table and none in the other.",
            valid="Columns of one type are compared.",
            field=name,
        )
    return (_numbers if _numeric(before) else _categories)(name, _whole(before), _whole(now), statistics)


def _sorted(column: Any) -> tuple[NDArray[np.float64], int]:
    """Return the finite values in ascending order, and how many others there are."""
    found = numbers(column)
    values = np.empty(len(found.values))
    found.into(values, 0)
    finite = np.isfinite(values)
    if not finite.all():
        values = values[finite]
    values.sort()
    return values, len(found.values) - len(values)


def _numbers(name: str, before: Any, now: Any, statistics: Sequence[str] | None) -> Difference:
    reference, missing_reference = _sorted(before)
    current, missing_current = _sorted(now)
    n, m = len(reference), len(current)
    wanted = statistics or (("wasserstein",) if n > LARGE else ("kolmogorov_smirnov",))
    value: dict[str, float] = {}
    p: dict[str, float] = {}
    counts = None
    for statistic in wanted:
        if not n or not m:
            value[statistic] = float("nan")
        elif statistic == "kolmogorov_smirnov":
            value[statistic] = kolmogorov_smirnov(reference, current)
            p[statistic] = kolmogorov_smirnov_p(value[statistic], n, m)
        elif statistic == "wasserstein":
            value[statistic] = _normalised(wasserstein(reference, current), float(reference.std()))
        else:
            counts = counts or _binned(reference, current)
            _of_counts(statistic, *counts, value, p)
    return Difference(name, "numeric", n, m, missing_reference, missing_current, value, p)


def _normalised(distance: float, std: float) -> float:
    """Return a distance in standard deviations; of a constant, 0 where it did not move and else infinity."""
    if std > 0:
        return distance / std
    return float("inf") if distance else 0.0


def _binned(
    reference: NDArray[np.float64], current: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    edges = np.unique(reference[(np.arange(1, BINS) * len(reference)) // BINS])
    return _between(reference, edges), _between(current, edges)


def _between(values: NDArray[np.float64], edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """Count sorted values between edges: those equal to an edge are below it."""
    places = np.searchsorted(values, edges, side="right")
    return np.diff(places, prepend=0, append=len(values)).astype(np.int64)


def _categories(name: str, before: Any, now: Any, statistics: Sequence[str] | None) -> Difference:
    counted = [_tallied(before), _tallied(now)]
    places = {text: place for place, text in enumerate(dict.fromkeys([*counted[0][0], *counted[1][0]]))}
    reference, current = (_placed(texts, places) for texts, _ in counted)
    n, m = int(reference.sum()), int(current.sum())
    wanted = statistics or (("jensen_shannon",) if n > LARGE else ("chi_square",))
    value: dict[str, float] = {}
    p: dict[str, float] = {}
    for statistic in wanted:
        if not n or not m:
            value[statistic] = float("nan")
        elif statistic in {"chi_square", "jensen_shannon", "psi"}:
            _of_counts(statistic, reference, current, value, p)
    return Difference(name, "categorical", n, m, counted[0][1], counted[1][1], value, p)


def _tallied(column: Any) -> tuple[dict[str, int], int]:
    values, counts = tally(column)
    texts: dict[str, int] = {}
    missing = 0
    for value, count in zip(values, counts.tolist(), strict=True):
        if value is None or value != value:
            missing += count
        else:
            texts[str(value)] = texts.get(str(value), 0) + count
    return texts, missing


def _placed(texts: Mapping[str, int], places: Mapping[str, int]) -> NDArray[np.int64]:
    counts = np.zeros(len(places), np.int64)
    for text, count in texts.items():
        counts[places[text]] = count
    return counts


def _of_counts(
    statistic: str,
    reference: NDArray[np.int64],
    current: NDArray[np.int64],
    value: dict[str, float],
    p: dict[str, float],
) -> None:
    if statistic == "psi":
        value[statistic] = psi(reference, current)
    elif statistic == "jensen_shannon":
        value[statistic] = jensen_shannon(reference, current)
    else:
        value[statistic] = p[statistic] = chi_square(*pooled(reference, current))
