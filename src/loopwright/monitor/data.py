"""The rows of one window of the prediction log, read once for all checks and never more of them than a check asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from loopwright.errors import InvalidInput, NotFound
from loopwright.monitor.base import ALL, Segment
from loopwright.monitor.blocks import Block, Plan
from loopwright.monitor.metrics import Labelled
from loopwright.monitor.tables import array_of, labelled_rows, matrix_of
from loopwright.predictions import PredictionStore
from loopwright.predictions.columns import booleans
from loopwright.predictions.schema import INPUT
from loopwright.predictions.sql import View, text
from loopwright.records import Scalar, Window
from loopwright.registry.column_profile import MISSING

__all__ = ["MOST_ROWS", "LoggedWindow", "only_value"]

#: A window of more rows is counted in batches, and its single values are those of a sample of about so many rows.
MOST_ROWS = 2_000_000
#: Columns beside the inputs whose values are a part of a row that can be watched apart.
PARTS = ("variant", "entity")
_ROWS = "selected_predictions"
_BESIDE = ("version", "latency_ms", "at", "prediction", "probability")


def quoted(name: str) -> str:
    """Return a name of a column as SQL takes it."""
    return '"' + name.replace('"', '""') + '"'


def only_value(found: Any) -> Any:
    """Return the only value of a query's result, None where it has no row.

    Raises
    ------
    InvalidInput
        There are several.
    """
    if found.num_columns != 1 or found.num_rows > 1:
        raise InvalidInput(
            f"The query gives {found.num_rows} rows of {found.num_columns} columns.",
            valid="It must give one value, such as: select avg(prediction) from predictions",
        )
    return found.column(0)[0].as_py() if found.num_rows else None


class LoggedWindow:
    """One window of one deployment's prediction log; a context manager, for one thread.

    What is in the log when the window is opened is what all checks see. Inputs that the log does not keep as they came
    are not there: dropped they would look missing, hashed they would look unseen.

    A window of more than `MOST_ROWS` rows is counted in batches, exactly, in bounded memory. `values` and `labelled` of
    such a window are those of the rows whose ids hash to a fixed part of all, so that the same window always gives the
    same values.

    Parameters
    ----------
    plan
        The bins that `counts` counts into.
    classes
        The labels in the order of the probabilities.
    hidden
        The inputs whose values are not in the log.
    segments, most_segments
        Columns whose values are watched apart, and how many values of each.
    labelled
        Whether labels are read. Without, no row has one.
    """

    def __init__(
        self,
        store: PredictionStore,
        deployment: str,
        window: Window,
        *,
        plan: Plan,
        classes: tuple[Scalar, ...] = (),
        hidden: frozenset[str] = frozenset(),
        segments: Sequence[str] = (),
        most_segments: int = 10,
        labelled: bool = False,
        most_rows: int = MOST_ROWS,
    ) -> None:
        self._store = store
        self._deployment = deployment
        self._span = window
        self._plan = plan
        self._classes = classes
        self._hidden = frozenset(INPUT + name for name in hidden)
        self._declared = tuple(dict.fromkeys(segments))
        self._most_segments = most_segments
        self._labelled = labelled
        self._most_rows = most_rows
        self._blocks: dict[tuple[int | None, Segment], Block] = {}
        self._parts: dict[tuple[int | None, Segment], Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back what was read."""
        view = self.__dict__.pop("_view", None)
        if view is not None:
            view.__exit__()
        self._parts.clear()

    @cached_property
    def _view(self) -> View:
        return self._store.view(
            deployment=self._deployment,
            since=self._span.start,
            until=self._span.end,
            labels=self._labelled,
        )

    @cached_property
    def types(self) -> Mapping[str, str]:
        """The DuckDB type of each column of the window."""
        return {name: kind for name, kind in self._view.columns().items() if name not in self._hidden}

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The inputs that the log has columns of in this window, without their prefix."""
        return tuple(name.removeprefix(INPUT) for name in self.types if name.startswith(INPUT))

    @cached_property
    def versions(self) -> Mapping[int, int]:
        """How many rows each version answered; empty where the window has none."""
        found = self._view.table(f"select version, count(*) from {_ROWS} group by version order by version")
        return dict(zip(found.column(0).to_pylist(), found.column(1).to_pylist(), strict=True))

    @cached_property
    def labels(self) -> int:
        """How many rows have a label, be it one that cannot be used."""
        return int(self._view.table("select count(labelled_at) from predictions").column(0)[0].as_py())

    def rows(self, version: int | None = None, segment: Segment = ALL) -> int:
        """Return how many rows there are; exact for every size."""
        if segment == ALL:
            return sum(self.versions.values()) if version is None else self.versions.get(version, 0)
        if self._small:
            return int(self._part(version, segment).num_rows)
        found = self._view.table(f"select count(*) from {_ROWS} where {self._where(version, segment)}")
        return int(found.column(0)[0].as_py())

    @cached_property
    def _small(self) -> bool:
        return self.rows() <= self._most_rows

    def segments(self) -> tuple[Segment, ...]:
        """Return the declared segments that occur, each column's most frequent first; never `ALL`."""
        return self._segments

    @cached_property
    def _segments(self) -> tuple[Segment, ...]:
        if not self.rows():
            return ()
        found = []
        for name in self._declared:
            if self._source(name) is None:
                continue
            query = f"select {self._words(name)}, count(*) from {_ROWS} group by 1 order by 2 desc, 1"
            values = self._view.table(f"{query} limit {self._most_segments}").column(0).to_pylist()
            found += [Segment(name, value) for value in values]
        return tuple(found)

    def _source(self, name: str) -> str | None:
        """Return the log's column that a segment's name means: an input, or a column beside the inputs."""
        if INPUT + name in self.types:
            return INPUT + name
        return name if name in PARTS else None

    def _words(self, name: str) -> str:
        """Return the SQL of a segment column's value as text, as profiles write it."""
        source = self._source(name)
        assert source is not None
        column = quoted(source)
        if self.types[source] == "BOOLEAN":
            return f"case when {column} then 'True' when not {column} then 'False' else {text(MISSING)} end"
        return f"coalesce(cast({column} as varchar), {text(MISSING)})"

    def _where(self, version: int | None, segment: Segment) -> str:
        parts = ["true"]
        parts += [f"version = {int(version)}"] if version is not None else []
        parts += [f"{self._words(segment.column)} = {text(segment.value)}"] if segment.column else []
        return " and ".join(parts)

    def _select(self, columns: Sequence[str], segments: bool = True) -> str:
        names = [quoted(name) for name in columns if name in self.types]
        if segments:
            names += [self._places(name) for name in self._declared if self._ranked(name)]
        return ", ".join(names)

    def _ranked(self, column: str) -> list[str]:
        return [segment.value for segment in self.segments() if segment.column == column]

    def _places(self, column: str) -> str:
        """Return the SQL of which of a column's segments a row is in, from 1 on, and 0 for none: a byte and no text."""
        values = ", ".join(text(value) for value in self._ranked(column))
        place = f"coalesce(list_position([{values}], {self._words(column)}), 0)"
        return f"cast({place} as utinyint) as {quoted(_mark(column))}"

    def _within(self, table: Any, version: int | None, segment: Segment) -> Any:
        """Return the rows of a table that are of a version and in a segment."""
        masks = []
        if version is not None and set(self.versions) != {version}:
            masks.append(array_of(table.column("version")) == version)
        if segment != ALL:
            ranked = self._ranked(segment.column)
            if segment.value not in ranked:
                return table.slice(0, 0)
            masks.append(array_of(table.column(_mark(segment.column))) == ranked.index(segment.value) + 1)
        return table.filter(booleans(np.logical_and.reduce(masks))) if masks else table

    @cached_property
    def _columns(self) -> list[str]:
        return list(dict.fromkeys([*(name for name in self._plan.sources if name in self.types), *_BESIDE]))

    @cached_property
    def _table(self) -> Any:
        """The rows of a window that is not large, without their labels."""
        return self._view.table(f"select {self._select(self._columns)} from {_ROWS}")

    @property
    def _sampled(self) -> str:
        """The condition that leaves about as many rows as may be read at once."""
        parts = -(-self.rows() // self._most_rows)
        return f"hash(prediction_id) % {parts} = 0" if parts > 1 else "true"

    def _part(self, version: int | None, segment: Segment) -> Any:
        key = (version, segment)
        if key not in self._parts:
            self._parts[key] = self._within(self._table, version, segment)
        return self._parts[key]

    def counts(self, version: int | None = None, segment: Segment = ALL) -> Block:
        """Return the additive counts of inputs, predictions and latency in the bins of the champion's profile."""
        key = (version, segment)
        if key not in self._blocks:
            if not self.rows():
                self._blocks[key] = self._plan.empty()
            elif self._small:
                self._blocks[key] = self._plan.count(self._part(version, segment))
            else:
                self._count_batches(version)
        if key not in self._blocks:
            self._blocks[key] = self._plan.empty()
        return self._blocks[key]

    def _count_batches(self, version: int | None) -> None:
        """Count a large window, with all its segments in the same pass."""
        wanted = (ALL, *self.segments())
        blocks = {segment: self._plan.empty() for segment in wanted}
        query = f"select {self._select(self._columns)} from {_ROWS} where {self._where(version, ALL)}"
        for batch in self._view.batches(query):
            table = pa.Table.from_batches([batch])
            for segment in wanted:
                part = self._within(table, version, segment)
                if part.num_rows:
                    blocks[segment].add(self._plan.count(part))
        self._blocks |= {(version, segment): block for segment, block in blocks.items()}

    def values(self, column: str, version: int | None = None, segment: Segment = ALL) -> NDArray[Any]:
        """Return a column of the log as an array: numbers with NaN for null, else objects with None.

        Times are ``datetime64[us]``, probabilities of one length a matrix of shape (n, k). Arrays of the same version
        and segment are row by row of the same predictions.

        Raises
        ------
        NotFound
            The window has no such column.
        """
        if column not in self.types:
            raise NotFound.among("column", column, sorted(self.types))
        if self._small and column in self._columns:
            found = self._part(version, segment).column(column)
        else:
            where = f"{self._sampled} and {self._where(version, segment)}"
            view = _ROWS if column in self._view.columns(_ROWS) else "predictions"
            found = self._view.table(f"select {quoted(column)} from {view} where {where}").column(0)
        if pa.types.is_nested(found.type):
            matrix = matrix_of(found)
            if matrix is not None:
                return matrix
        return array_of(found)

    @cached_property
    def _truths(self) -> Any:
        columns = self._select(("actual", "prediction", "probability", "version"))
        return self._view.table(
            f"select {columns} from predictions where actual is not null and {self._sampled}"
        )

    def labelled(self, version: int | None = None, segment: Segment = ALL) -> Labelled:
        """Return the rows whose label is known."""
        return labelled_rows(self._within(self._truths, version, segment), classes=self._classes)

    def query(self, sql: str, timeout_s: float) -> Any:
        """Run one SELECT over this window's `predictions` and return the only value of its result, None for none.

        Raises
        ------
        InvalidInput
            It is not one SELECT, does not work, took longer than `timeout_s`, or gives more than one value.
        """
        return only_value(self._view.ask(sql, timeout_s))

    def table(self) -> Any:
        """Return all rows with all columns as a pyarrow Table: for KPIs in Python, and for nothing else.

        Raises
        ------
        InvalidInput
            There are too many rows to hold them at once.
        """
        if self.rows() > 5 * self._most_rows:
            raise InvalidInput(
                f"The window has {self.rows()} rows, too many to be given to a function.",
                valid=f"At most {5 * self._most_rows}.",
                hint="write the KPI in SQL, or make the window shorter",
            )
        return self._view.table(
            f'select {self._select(list(self.types), False)} from predictions order by "at"'
        )

    def without(self) -> tuple[str, ...]:
        """Return the declared segment columns that the window has no column of."""
        return tuple(name for name in self._declared if self._source(name) is None)


def _mark(name: str) -> str:
    """Return what the column is called that says which segment of a column a row is in."""
    return f"segment {name}"
