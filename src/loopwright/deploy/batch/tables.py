"""Database tables as sources and sinks: SQLite files, and PostgreSQL through psycopg."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy import event as sa_event
from sqlalchemy.dialects import postgresql, sqlite

from loopwright.deploy.batch.base import Address, Chunk, existing, select
from loopwright.deploy.batch.keys import column_keys, content_keys
from loopwright.errors import Conflict, Denied, InvalidConfig, InvalidInput, NotFound, Unavailable, listing
from loopwright.records import Signature

__all__ = ["TableSink", "TableSource"]

#: Values bound by one statement; SQLite takes at most 32,766 and PostgreSQL 65,535.
_BOUND = 8000
_ROWID = "loopwright_rowid"
#: PostgreSQL's codes for errors of permission and for things that are not there.
_DENIED = {"42501", "28000", "28P01"}
_ABSENT = {"3D000", "42P01", "3F000"}


@contextlib.contextmanager
def _opening(address: Address, engine: sa.Engine) -> Iterator[None]:
    """Give the connections back when what is being opened turns out not to be usable."""
    try:
        with _speaking(address):
            yield
    except BaseException:
        engine.dispose()
        raise


@contextlib.contextmanager
def _speaking(address: Address) -> Iterator[None]:
    """Turn a database's errors into ours."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        text = str(error.orig).strip()
        code = getattr(error.orig, "sqlstate", None) or ""
        lower = text.lower()
        if (
            code in _DENIED
            or "readonly" in lower
            or "permission denied" in lower
            or "authentication" in lower
        ):
            raise Denied(
                f"{address}: no permission: {text}.", hint="grant the rights to the user in the address"
            ) from error
        if code in _ABSENT or "does not exist" in lower:
            raise NotFound(f"{address} is not there: {text}.") from error
        if isinstance(error, sa.exc.OperationalError):
            raise Unavailable(
                f"{address} does not answer: {text}.", hint="check that the database runs and is reachable"
            ) from error
        raise InvalidInput(f"{address}: {text}.") from error


def _engine(address: Address, *, create: bool) -> sa.Engine:
    if address.kind == "sqlite":
        return _sqlite_engine(Path(address.place), create=create)
    try:
        return sa.create_engine(sa.make_url(address.place), pool_pre_ping=True)
    except ModuleNotFoundError as error:
        raise InvalidConfig(
            f"{address} needs the package {error.name!r}, which is not installed.",
            hint="uv add 'loopwright[postgres]'",
        ) from error
    except sa.exc.ArgumentError as error:
        raise InvalidConfig(
            f"{address} is no database URL: {error}.", valid="postgresql://user@host:5432/database?table=t"
        ) from error


def _sqlite_engine(path: Path, *, create: bool) -> sa.Engine:
    if create:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Denied(f"The folder {path.parent} cannot be made: {error.strerror}.") from error
    else:
        # SQLite would make an empty database of a misspelled name.
        existing(path, "database")
    engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": 30})

    @sa_event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA journal_mode=WAL" if create else "PRAGMA query_only=ON")

    return engine


def _split(table: str) -> tuple[str | None, str]:
    schema, _, name = table.rpartition(".")
    return schema or None, name


class TableSource:
    """The rows of one table or view.

    Without a `key` a row is known by the table's primary key; a SQLite table without one by its row number and content.
    """

    def __init__(
        self, address: Address, signature: Signature, key: str | None, entity: str | None = None
    ) -> None:
        self._address = address
        self._where = f"table {address.table}"
        self._engine = _engine(address, create=False)
        with _opening(address, self._engine):
            self._keys, self._inputs, self._query = self._plan(signature, key, entity)

    def _plan(
        self, signature: Signature, key: str | None, entity: str | None
    ) -> tuple[list[str], list[str], sa.Select[Any]]:
        """Return the key columns, the inputs, and the query that reads both."""
        address = self._address
        schema, name = _split(address.table)
        inspector = sa.inspect(self._engine)
        views = inspector.get_view_names(schema)
        known = [*inspector.get_table_names(schema), *views]
        if name not in known:
            raise NotFound.among(f"table in {address.place.rpartition('/')[2]}", name, known)
        names = [str(column["name"]) for column in inspector.get_columns(name, schema)]
        inputs, read = select(names, signature, key, entity, self._where)
        keys = [key] if key else list(inspector.get_pk_constraint(name, schema)["constrained_columns"])
        columns: list[Any] = [sa.column(name) for name in dict.fromkeys([*read, *keys])]
        if not keys:
            if address.kind != "sqlite" or name in views:
                raise InvalidConfig(
                    f"The {self._where} has no primary key, so its rows cannot be told apart in the next run.",
                    valid=f"Columns: {listing(names)}.",
                    hint='set key = "<a column with a different value in each row>" in the deployment',
                )
            columns.append(sa.literal_column("rowid").label(_ROWID))
        return keys, inputs, sa.select(*columns).select_from(sa.table(name, schema=schema))

    @property
    def rows(self) -> int | None:
        """How many rows there are now."""
        with _speaking(self._address), self._engine.connect() as connection:
            counted = sa.select(sa.func.count()).select_from(self._query.get_final_froms()[0])
            return int(connection.execute(counted).scalar_one())

    def chunks(self, size: int) -> Generator[Chunk]:
        """Give all rows, at most `size` at a time; the table is read through a cursor and never held as a whole."""
        first = 0
        with _speaking(self._address), self._engine.connect() as connection:
            streaming = connection.execution_options(stream_results=True, max_row_buffer=size)
            with streaming.execute(self._query) as result:
                names = list(result.keys())
                for partition in result.partitions(size):
                    columns = zip(*partition, strict=True)
                    rows = pa.RecordBatch.from_arrays(
                        [_array(list(values)) for values in columns], names=names
                    )
                    yield Chunk(rows, self._row_keys(rows, first), first)
                    first += rows.num_rows

    def _row_keys(self, rows: pa.RecordBatch, first: int) -> list[str]:
        if self._keys:
            return column_keys(rows, self._keys, first, self._where)
        places = [f"rowid {number}" for number in rows.column(_ROWID).to_pylist()]
        return content_keys(rows, self._inputs, places)

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()


def _array(values: list[Any]) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        # SQLite keeps any type in any column: as text, the one value that does not fit is found and named later.
        return pa.array([None if value is None else str(value) for value in values])


class TableSink:
    """A table of predictions, made when it is missing, whose primary key is the prediction id."""

    def __init__(self, address: Address, signature: Signature) -> None:
        self._address = address
        self._engine = _engine(address, create=True)
        schema, name = _split(address.table)
        self._table = sa.Table(
            name,
            sa.MetaData(),
            sa.Column("prediction_id", sa.String(32), primary_key=True),
            sa.Column("key", sa.Text, nullable=False),
            sa.Column("prediction", _prediction_type(signature)),
            sa.Column("probability", sa.Text),
            sa.Column("model", sa.Text, nullable=False),
            sa.Column("version", sa.Integer, nullable=False),
            sa.Column("at", sa.DateTime(timezone=True), nullable=False),
            schema=schema,
        )
        with _opening(address, self._engine):
            self._table.create(self._engine, checkfirst=True)
            self._check(schema, name)

    def _check(self, schema: str | None, name: str) -> None:
        """Refuse a table of that name that is not ours: the primary key is what keeps rows from coming twice."""
        inspector = sa.inspect(self._engine)
        found = {str(column["name"]) for column in inspector.get_columns(name, schema)}
        missing = [column.name for column in self._table.columns if column.name not in found]
        primary = inspector.get_pk_constraint(name, schema)["constrained_columns"]
        if missing or primary != ["prediction_id"]:
            what = f"has no column {missing[0]!r}" if missing else f"has the primary key {listing(primary)}"
            raise Conflict(
                f"The table {self._address.table} is no table of predictions: it {what}.",
                valid="A table of predictions has the primary key prediction_id and the columns "
                f"{listing(column.name for column in self._table.columns)}.",
                hint="name a table that does not exist yet; it is made",
            )

    def known(self, ids: Sequence[str]) -> set[str]:
        """Return those of `ids` that are already written."""
        found: set[str] = set()
        column = self._table.c.prediction_id
        with _speaking(self._address), self._engine.connect() as connection:
            for start in range(0, len(ids), _BOUND):
                query = sa.select(column).where(column.in_(ids[start : start + _BOUND]))
                found.update(connection.execute(query).scalars())
        return found

    def write(self, rows: pa.RecordBatch) -> None:
        """Write predictions in one transaction."""
        if not rows.num_rows:
            return
        insert = (sqlite if self._address.kind == "sqlite" else postgresql).insert(self._table)
        statement = insert.on_conflict_do_nothing(index_elements=["prediction_id"])
        with _speaking(self._address), self._engine.begin() as connection:
            connection.execute(statement, rows.to_pylist())

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()


def _prediction_type(signature: Signature) -> sa.types.TypeEngine[Any]:
    """Return the column type of the predictions: that of the class labels, else a double."""
    kinds = {type(label) for label in signature.classes}
    if not kinds:
        return sa.Double()
    if kinds == {bool}:
        return sa.Boolean()
    if kinds == {int}:
        return sa.BigInteger()
    return sa.Double() if kinds <= {int, float} else sa.Text()
