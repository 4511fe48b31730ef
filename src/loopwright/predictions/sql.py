"""One DuckDB connection over one moment of the log: sealed segments, open tails, labels joined.

A connection is made for each query and can do nothing but read the segments it was made for: every other file, the
network, extensions and changes of its settings are shut off before a caller's SQL runs.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from loopwright.errors import InvalidInput, listing
from loopwright.predictions.files import LogFolder
from loopwright.predictions.labels import LABELS
from loopwright.predictions.schema import BASE
from loopwright.predictions.tail import read_batches

__all__ = ["LABEL_SLACK_US", "Selection", "Snapshot", "View", "read_snapshot", "text"]

#: Labels cannot arrive before their prediction; this much is allowed for clocks that disagree.
LABEL_SLACK_US = 24 * 3600 * 1_000_000
#: How a label, stored as `number` and `text`, becomes a value of the prediction's type.
_ACTUAL = {
    "BOOLEAN": "coalesce(label.given.number <> 0, try_cast(label.given.text as boolean))",
    "BIGINT": "coalesce(try_cast(label.given.text as bigint), try_cast(label.given.number as bigint))",
    "DOUBLE": "coalesce(label.given.number, try_cast(label.given.text as double))",
    "VARCHAR": "label.given.text",
}
_LAST = ("prediction", "probability")


#: Strings, quoted names and comments, to leave them alone; then the word `at`, unless it is of `at time zone`.
_AT = re.compile(
    r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|--[^\n]*|/\*.*?\*/|\bat\b(?!\s+time\s+zone)""",
    re.IGNORECASE | re.DOTALL,
)


def _quote_at(query: str) -> str:
    """Quote the column `at` in a caller's SQL: DuckDB reserves the word for time travel, which the log has not."""
    return _AT.sub(lambda found: f'"{found[0]}"' if found[0].lower() == "at" else found[0], query)


def text(value: str) -> str:
    """Return a value as an SQL literal."""
    return "'" + value.replace("'", "''") + "'"


def _name(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'


@dataclass(frozen=True, slots=True)
class Selection:
    """Which predictions are looked at: a deployment, a model, and a span of time in microseconds, end excluded."""

    deployment: str | None = None
    model: str | None = None
    since_us: int | None = None
    until_us: int | None = None

    @property
    def where(self) -> str:
        """The condition on the rows."""
        parts = ["true"]
        parts += [f"deployment = {text(self.deployment)}"] if self.deployment is not None else []
        parts += [f"model = {text(self.model)}"] if self.model is not None else []
        parts += [f'"at" >= make_timestamptz({self.since_us})'] if self.since_us is not None else []
        parts += [f'"at" < make_timestamptz({self.until_us})'] if self.until_us is not None else []
        return " and ".join(parts)


@dataclass(slots=True)
class Snapshot:
    """The rows of one or more logs at one moment: paths of sealed segments, and tables read from open tails."""

    segments: list[Path] = field(default_factory=list)
    tables: list[Any] = field(default_factory=list)


def read_snapshot(
    folders: list[LogFolder], since_us: int | None = None, until_us: int | None = None
) -> Snapshot:
    """Return what is in some logs now: every row that was acknowledged before the call, each once.

    The order matters while writers seal: tails are read first and segments listed afterwards, so a tail that vanished
    in between is found as a segment, and one that was read is left out when its segment is there by now. Segments
    outside [since, until) are left out; one is kept for its columns when nothing else is left.
    """
    snapshot = Snapshot()
    outside: Path | None = None
    for folder in folders:
        tails: dict[str, list[Any]] = {}
        for path in folder.tails():
            try:
                tails[path.stem] = list(read_batches(path))
            except FileNotFoundError:
                continue
        segments = folder.segments()
        sealed = {segment.stem for segment in segments}
        batches = [batch for stem, found in tails.items() if stem not in sealed for batch in found]
        snapshot.tables += _tables(batches)
        within = [segment.path for segment in segments if segment.overlaps(since_us, until_us)]
        snapshot.segments += within
        if segments and not within:
            outside = segments[-1].path
    if outside and not snapshot.segments and not snapshot.tables:
        snapshot.segments = [outside]
    return snapshot


def _tables(batches: list[Any]) -> list[Any]:
    """Put batches of the same schema together."""
    found: dict[str, list[Any]] = {}
    for batch in batches:
        found.setdefault(batch.schema.to_string(), []).append(batch)
    return [pa.Table.from_batches(same) for same in found.values()]


class View:
    """A locked DuckDB connection with the views `predictions` and `labels`.

    Parameters
    ----------
    predictions, labels
        What to read.
    empty
        Schema of `predictions` when there is nothing in it at all.
    selection
        Which rows of it are in the view.
    """

    def __init__(self, predictions: Snapshot, labels: Snapshot, empty: Any, selection: Selection) -> None:
        import duckdb

        self._duckdb = duckdb
        self._predictions = predictions
        settings = {
            "threads": 2,
            "memory_limit": "512MB",
            # Its default would be a folder in the working directory, which is the project.
            "temp_directory": str(Path(tempfile.gettempdir()) / "loopwright-duckdb"),
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "python_enable_replacements": "false",
        }
        self._connection = duckdb.connect(":memory:", config=settings)
        self._execute("SET TimeZone = 'UTC'")
        paths = [*predictions.segments, *labels.segments]
        if paths:
            self._execute(f"SET allowed_paths = [{', '.join(text(str(path)) for path in paths)}]")
        self._execute("SET enable_external_access = false")
        self._source("logged", predictions, empty)
        self._source("labels", labels, LABELS)
        self._join(selection)
        self._execute("SET lock_configuration = true")

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
            parts.append(f"select * from {name}_tail_{number}")
        if snapshot.segments:
            files = ", ".join(text(str(path)) for path in snapshot.segments)
            parts.append(
                f"select * from read_parquet([{files}], union_by_name = true, hive_partitioning = false)"
            )
        self._execute(f"create view {name} as {' union all by name '.join(parts)}")

    def columns(self, name: str = "predictions") -> dict[str, str]:
        """Return the columns of a view with their DuckDB types."""
        rows = self._connection.sql(f"select column_name, column_type from (describe {name})").fetchall()
        return dict(rows)

    def _join(self, selection: Selection) -> None:
        found = self.columns("logged")
        base = [name for name, _ in BASE]
        names = [*base, *(name for name in found if name not in {*base, *_LAST}), *_LAST]
        actual = _ACTUAL.get(found["prediction"], _ACTUAL["VARCHAR"])
        self._execute(f"""
            create view predictions as
            select {", ".join("logged." + _name(name) for name in names)},
                   {actual} as actual, label.received_at as labelled_at
            from (select * from logged where {selection.where}) as logged
            left join (
                select prediction_id, max(received_at) as received_at,
                       arg_max(struct_pack(number := number, text := text), received_at) as given
                from labels group by prediction_id
            ) as label using (prediction_id)
        """)

    def table(self, query: str) -> Any:
        """Return the result of one of our own queries as an Arrow table."""
        return self._connection.sql(query).to_arrow_table()

    def locate(self, prediction_id: str) -> Snapshot | None:
        """Return the one tail or segment that holds a prediction, which has its model's own columns; None if none."""
        where = f"where prediction_id = {text(prediction_id)} limit 1"
        for number, table in enumerate(self._predictions.tables):
            if self.table(f"select 1 from logged_tail_{number} {where}").num_rows:
                return Snapshot(tables=[table])
        if not self._predictions.segments:
            return None
        files = ", ".join(text(str(path)) for path in self._predictions.segments)
        found = self.table(
            f"select filename from read_parquet([{files}], filename = true, union_by_name = true) {where}"
        )
        return Snapshot(segments=[Path(found.column(0)[0].as_py())]) if found.num_rows else None

    def register(self, name: str, table: Any) -> None:
        """Make an Arrow table known to `table` under a name."""
        self._connection.register(name, table)

    def ask(self, query: str) -> Any:
        """Return the result of a caller's query as an Arrow table.

        Raises
        ------
        InvalidInput
            It is not one SELECT, or DuckDB refuses it.
        """
        query = _quote_at(query)
        try:
            statements = self._connection.extract_statements(query)
            kinds = [statement.type.name for statement in statements]
            if kinds != ["SELECT"]:
                raise InvalidInput(
                    f"The log is only read, with one SELECT; this is {' and '.join(kinds) or 'empty'}: {_short(query)}",
                    valid="It may start with WITH. Views: predictions, labels.",
                )
            return self.table(query)
        except self._duckdb.Error as error:
            raise InvalidInput(
                f"The query does not work: {_short(str(error))}",
                valid=f"Columns of predictions: {listing(self.columns(), most=40)}.",
                query=query,
            ) from error


def _short(words: str) -> str:
    """Return at most 300 characters on one line."""
    line = re.sub(r"\s+", " ", words).strip()
    return line if len(line) <= 300 else line[:299] + "…"
