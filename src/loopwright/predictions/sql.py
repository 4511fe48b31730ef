"""One DuckDB connection over one moment of the log: sealed segments, open tails, labels joined.

A connection is made for each query and can do nothing but read the segments it was made for: every other file, the
network, extensions and changes of its settings are shut off before a caller's SQL runs.
"""

from __future__ import annotations

import re
import secrets
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from loopwright.errors import InvalidInput, listing
from loopwright.predictions import label_join
from loopwright.predictions.files import Segment
from loopwright.predictions.labels import ENTITY_LABELS, LABELS
from loopwright.predictions.schema import BASE
from loopwright.predictions.snapshots import Snapshot, Unreadable

__all__ = [
    "LABEL_SLACK_US",
    "EntityLabels",
    "Selection",
    "View",
    "asks_shadows",
    "text",
]

#: Labels cannot arrive before their prediction; this much is allowed for clocks that disagree.
LABEL_SLACK_US = 24 * 3600 * 1_000_000
_LAST = ("prediction", "probability")
_WHOLE, _DECIMAL = frozenset({"INTEGER", "BIGINT", "UTINYINT"}), frozenset({"FLOAT", "DOUBLE"})
#: What DuckDB says of a file can name it, and a path is long.
_LONG = 1000
_FILES = re.compile("parquet|decompress|corrupt|magic bytes|thrift|zstd", re.IGNORECASE)
_SHADOWS = re.compile(r"\bshadows\b", re.IGNORECASE)


#: Strings, quoted names and comments, to leave them alone; then the word `at`, unless it is of `at time zone`.
_AT = re.compile(
    r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/|\bat\b(?!\s+time\s+zone)""",
    re.IGNORECASE | re.DOTALL,
)


def _quote_at(query: str) -> str:
    """Quote the column `at` in a caller's SQL: DuckDB reserves the word for time travel, which the log has not."""
    return _AT.sub(lambda found: f'"{found[0]}"' if found[0].lower() == "at" else found[0], query)


def asks_shadows(query: str) -> bool:
    """Whether a query may read the view `shadows`, which is only made for those that do."""
    return _SHADOWS.search(query) is not None


def text(value: str) -> str:
    """Return a value as an SQL literal."""
    return "'" + value.replace("'", "''") + "'"


def _name(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'


@dataclass(frozen=True, slots=True)
class Selection:
    """Which predictions are looked at: of a deployment or model, in a span of microseconds, end excluded, or one."""

    deployment: str | None = None
    model: str | None = None
    since_us: int | None = None
    until_us: int | None = None
    prediction_id: str | None = None

    @property
    def bounded(self) -> bool:
        """Whether it is one row or a span of time, so that most labels belong to other rows."""
        return any(limit is not None for limit in (self.since_us, self.until_us, self.prediction_id))

    @property
    def where(self) -> str:
        """The condition on the rows."""
        parts = ["true"]
        parts += [f"deployment = {text(self.deployment)}"] if self.deployment is not None else []
        parts += [f"model = {text(self.model)}"] if self.model is not None else []
        parts += [f'"at" >= make_timestamptz({self.since_us})'] if self.since_us is not None else []
        parts += [f'"at" < make_timestamptz({self.until_us})'] if self.until_us is not None else []
        parts += [f"prediction_id = {text(self.prediction_id)}"] if self.prediction_id is not None else []
        return " and ".join(parts)


@dataclass(frozen=True, slots=True)
class EntityLabels:
    """Labels that name an entity and a moment, and where to look for their predictions.

    `rows` is asked for the predictions of a span [since, until) of microseconds, None for no end.
    """

    labels: Snapshot
    rows: Callable[[int | None, int | None], Snapshot]


def _reads(segments: list[Segment]) -> list[str]:
    """Return one DuckDB table function call for each group of files with the same columns."""
    groups: dict[str, list[str]] = {}
    for segment in segments:
        groups.setdefault(segment.schema, []).append(text(str(segment.path)))
    return [f"read_parquet([{', '.join(paths)}], hive_partitioning = false)" for paths in groups.values()]


def common_types(parts: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Return the type that each column gets whose type changed from one part of a log to another.

    Parameters
    ----------
    parts
        Names of columns and their DuckDB types, of each part.

    Returns
    -------
    dict
        Whole numbers, and booleans beside numbers, widen as DuckDB does it by itself and are left out, and so are lists;
        whole numbers beside decimals become doubles, and all else becomes text.
    """
    kinds: dict[str, set[str]] = {}
    for part in parts:
        for column, kind in part.items():
            kinds.setdefault(column, set()).add(kind)
    found = {}
    for column, several in kinds.items():
        if len(several) == 1 or all(kind.endswith("[]") for kind in several):
            continue
        if several <= _WHOLE | {"BOOLEAN"}:
            continue
        found[column] = "DOUBLE" if several <= _WHOLE | _DECIMAL | {"BOOLEAN"} else "VARCHAR"
    return found


class View:
    """A locked DuckDB connection with the views `predictions`, `labels` and, where they are given, `shadows`.

    `selected_predictions` has the rows of `predictions` without their labels, whose join costs more than the rest.

    Parameters
    ----------
    predictions, labels, shadows
        What to read.
    empty
        Schema of `predictions`, and of `shadows`, when there is nothing in it at all.
    selection
        Which rows of both are in the views.
    by_entity
        Labels that name an entity, where there are any.
    """

    def __init__(
        self,
        predictions: Snapshot,
        labels: Snapshot,
        empty: Any,
        selection: Selection,
        shadows: Snapshot | None = None,
        by_entity: EntityLabels | None = None,
    ) -> None:
        import duckdb

        self._duckdb = duckdb
        self._predictions = predictions
        #: The columns of `predictions`, for messages: when files are gone DuckDB cannot be asked any more.
        self._shown: list[str] = []
        self._read = [one for one in (predictions, labels, shadows) if one is not None]
        settings = {
            "threads": 2,
            "memory_limit": "512MB",
            # Its default would be a folder in the working directory, which is the project. Made only when a query
            # needs it, and one for each connection, because its files have the same names in all.
            "temp_directory": str(Path(tempfile.gettempdir()) / f"loopwright-duckdb-{secrets.token_hex(8)}"),
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "python_enable_replacements": "false",
        }
        self._connection = duckdb.connect(":memory:", config=settings)
        try:
            self._build(predictions, labels, empty, selection, shadows, by_entity)
        except duckdb.Error as error:
            self._connection.close()
            raise self._unreadable(error) from error

    def _build(
        self,
        predictions: Snapshot,
        labels: Snapshot,
        empty: Any,
        selection: Selection,
        shadows: Snapshot | None,
        by_entity: EntityLabels | None,
    ) -> None:
        self._execute("SET TimeZone = 'UTC'")
        self._execute("SET parquet_metadata_cache = true")
        whose = self._rows_of_entities(by_entity, selection) if by_entity is not None else None
        given = by_entity.labels if by_entity is not None else None
        self._read += [one for one in (given, whose) if one is not None]
        paths = {str(segment.path): None for one in self._read for segment in one.segments}
        if paths:
            self._execute(f"SET allowed_paths = [{', '.join(text(path) for path in paths)}]")
        self._execute("SET enable_external_access = false")
        self._source("logged", predictions, empty)
        self._source(label_join.BY_ID, labels, LABELS)
        if whose is not None:
            self._source(label_join.ROWS, whose, pa.schema(BASE))
        self._execute(f"create view labels as {self._labels(whose is not None, selection)}")
        self._join("predictions", "logged", selection)
        if shadows is not None:
            self._source("shadowed", shadows, empty)
            self._join("shadows", "shadowed", selection)
        self._shown = list(self.columns())
        self._execute("SET lock_configuration = true")

    def _rows_of_entities(self, given: EntityLabels, selection: Selection) -> Snapshot:
        """Make the labels by entity known, and return the predictions that are as old as any of them allows."""
        self._source(label_join.BY_ENTITY, given.labels, ENTITY_LABELS)
        last, within = self._connection.execute(
            f'select epoch_us(max("at")), max(within_us) from {label_join.BY_ENTITY}'
        ).fetchall()[0]
        until = [] if last is None else [last + 1]
        if selection.until_us is not None and within is not None:
            until.append(selection.until_us + within)
        return given.rows(selection.since_us, min(until, default=None))

    def _labels(self, by_entity: bool, selection: Selection) -> str:
        found = label_join.Columns(
            frozenset(self.columns(label_join.BY_ID)),
            frozenset(self.columns(label_join.BY_ENTITY)) if by_entity else frozenset(),
        )
        return label_join.all_labels(
            found, text(selection.deployment) if selection.deployment is not None else None
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def _execute(self, statement: str) -> None:
        self._connection.execute(statement)

    def _source(self, name: str, snapshot: Snapshot, empty: Any) -> None:
        tables = snapshot.tables
        if not tables and not snapshot.segments:
            tables = [pa.Table.from_batches([], schema=empty)]
        parts = []
        for number, table in enumerate(tables):
            self._connection.register(f"{name}_tail_{number}", table)
            parts.append(f"{name}_tail_{number}")
        # Files of the same columns together: DuckDB then looks at one of them to plan a query, where it would open
        # every file with union_by_name (300 files: 0.9 s a query).
        parts += _reads(snapshot.segments)
        types = [self.columns(f"select * from {part}") for part in parts] if len(parts) > 1 else [{}]
        changed = common_types(types)
        selected = []
        for part, own in zip(parts, types, strict=True):
            casts = ", ".join(
                f"{_name(column)}::{kind} as {_name(column)}"
                for column, kind in changed.items()
                if column in own
            )
            selected.append(f"select *{f' replace ({casts})' if casts else ''} from {part}")
        self._execute(f"create view {name} as {' union all by name '.join(selected)}")

    def columns(self, name: str = "predictions") -> dict[str, str]:
        """Return the columns of a view, or of the result of a SELECT, with their DuckDB types."""
        rows = self._connection.sql(f"select column_name, column_type from (describe {name})").fetchall()
        return dict(rows)

    def _join(self, view: str, source: str, selection: Selection) -> None:
        """Create a view of the selected rows of a source with their labels."""
        found = self.columns(source)
        # Segments of an earlier release may lack a column that all have today.
        base = [name for name, _ in BASE if name in found]
        names = [*base, *(name for name in found if name not in {*base, *_LAST}), *_LAST]
        selected = f"selected_{view}"
        # A row that is about nobody else is its own entity; to store its id twice would double a segment.
        whose = f"coalesce({selected}.entity, {selected}.prediction_id) as entity"
        shown = [whose if name == "entity" else f"{selected}.{_name(name)}" for name in names]
        self._execute(f"create view {selected} as select * from {source} where {selection.where}")
        few = f"semi join {selected} using (prediction_id)" if selection.bounded else ""
        self._execute(f"""
            create view {view} as
            select {", ".join(shown)}, label.actual, label.labelled_at, label.actual_at
            from {selected} {label_join.last_labels(found["prediction"], few, selected)}
        """)

    def table(self, query: str) -> Any:
        """Return the result of one of our own queries as an Arrow table.

        Raises
        ------
        Damaged
            A segment cannot be read.
        """
        try:
            return self._connection.sql(query).to_arrow_table()
        except self._duckdb.Error as error:
            raise self._unreadable(error) from error

    def batches(self, query: str, rows: int = 131_072) -> Iterator[Any]:
        """Yield the result of one of our own queries as record batches of at most so many rows, one even without rows."""
        try:
            reader = self._connection.sql(query).to_arrow_reader(rows)
            empty = True
            for batch in reader:
                empty = False
                yield batch
            if empty:
                arrays = [pa.nulls(0, field.type) for field in reader.schema]
                yield pa.RecordBatch.from_arrays(arrays, schema=reader.schema)
        except (self._duckdb.Error, OSError) as error:
            raise self._unreadable(error) from error

    def relation(self) -> Any:
        """Return the predictions as a relation, which keeps the connection open as long as it lives."""
        return self._connection.sql("select * from predictions")

    def _unreadable(self, error: Exception) -> Unreadable:
        return Unreadable(_short(str(error), _LONG), self._read)

    def locate(self, prediction_id: str) -> Snapshot | None:
        """Return the one tail or segment that holds a prediction, which has its model's own columns; None if none."""
        where = f"where prediction_id = {text(prediction_id)} limit 1"
        for number, table in enumerate(self._predictions.tables):
            if self.table(f"select 1 from logged_tail_{number} {where}").num_rows:
                return Snapshot(tables=[table])
        for read in _reads(self._predictions.segments):
            found = self.table(f"select filename from {read} {where}")
            if found.num_rows:
                path = found.column(0)[0].as_py()
                return Snapshot(
                    [segment for segment in self._predictions.segments if str(segment.path) == path],
                    homes=self._predictions.homes,
                )
        return None

    def register(self, name: str, table: Any) -> None:
        """Make an Arrow table known to `table` under a name."""
        self._connection.register(name, table)

    def ask(self, query: str, timeout_s: float | None = None, *, limit_rows: int | None = None) -> Any:
        """Return the result of a caller's query as an Arrow table, at most `limit_rows` of it.

        Parameters
        ----------
        timeout_s
            After so many seconds it is interrupted; > 0. None waits.

        Raises
        ------
        InvalidInput
            It is not one SELECT, or DuckDB refuses it, or it took longer than `timeout_s` seconds.
        """
        query = _quote_at(query)
        try:
            self._check(query)
            with self._limited(timeout_s):
                return self._run(query, limit_rows)
        except self._duckdb.InterruptException as error:
            raise InvalidInput(
                f"The query was stopped: it took longer than {timeout_s:g} s.",
                valid="Ask for a shorter span of time, for fewer columns, or for aggregates instead of rows.",
                query=query,
                timeout_s=timeout_s,
            ) from error
        except self._duckdb.Error as error:
            wrong = InvalidInput(
                f"The query does not work: {_short(str(error))}",
                valid=f"Columns of predictions: {listing(self._shown, most=40)}.",
                query=query,
            )
            if self._of_files(error):
                raise Unreadable(_short(str(error), _LONG), self._read, wrong) from error
            raise wrong from error

    @contextmanager
    def _limited(self, timeout_s: float | None) -> Iterator[None]:
        """Interrupt the connection's query when it takes longer."""
        if timeout_s is None:
            yield
            return
        timer = threading.Timer(timeout_s, self._connection.interrupt)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()
            timer.join()

    def _of_files(self, error: Exception) -> bool:
        """Whether what DuckDB says may be about a file and not about the query."""
        theirs = (self._duckdb.BinderException, self._duckdb.CatalogException, self._duckdb.ParserException)
        if isinstance(error, theirs):
            return False
        if isinstance(error, self._duckdb.PermissionException):
            # So it says of one of ours that is gone: it then looks for a folder of the name.
            words = str(error)
            return any(str(segment.path) in words for one in self._read for segment in one.segments)
        plain = type(error) is self._duckdb.Error
        return plain or isinstance(error, self._duckdb.IOException) or _FILES.search(str(error)) is not None

    def _check(self, query: str) -> None:
        kinds = [statement.type.name for statement in self._connection.extract_statements(query)]
        if kinds != ["SELECT"]:
            raise InvalidInput(
                f"The log is only read, with one SELECT; this is {' and '.join(kinds) or 'empty'}: {_short(query)}",
                valid="It may start with WITH. Views: predictions, shadows, labels.",
                query=query,
            )

    def _run(self, query: str, limit_rows: int | None) -> Any:
        try:
            return self._result(query, limit_rows)
        except self._duckdb.BinderException as error:
            if "avg(BOOLEAN)" not in str(error):
                raise
        # avg(actual = prediction) is how people write an accuracy, and DuckDB has no average of booleans. Not defined
        # from the start, because a macro takes no DISTINCT and no FILTER.
        self._execute("create macro avg(x boolean) as mean(x::int), (x) as mean(x)")
        return self._result(query, limit_rows)

    def _result(self, query: str, limit_rows: int | None) -> Any:
        relation = self._connection.sql(query)
        return (relation if limit_rows is None else relation.limit(limit_rows)).to_arrow_table()


def _short(words: str, most: int = 300) -> str:
    """Return at most so many characters on one line."""
    line = re.sub(r"\s+", " ", words).strip()
    return line if len(line) <= most else line[: most - 1] + "…"
