"""Datasets out of a database: the rows of one SQL query, read in a transaction that cannot write."""

from __future__ import annotations

import contextlib
import decimal
import uuid
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy import event as sa_event

from loopwright.config import Project
from loopwright.errors import Denied, InvalidConfig, InvalidInput, NotFound, Unavailable
from loopwright.lineage.addresses import expand
from loopwright.lineage.files import Found
from loopwright.lineage.progress import counted

__all__ = ["read"]

#: Rows fetched at a time through a cursor of the server.
_BATCH = 20_000
_QUERY, _TABLE = "query=", "table="
_DENIED = {"42501", "28000", "28P01"}
_ABSENT = {"3D000", "42P01", "3F000", "42703"}
#: PostgreSQL's numbers of types, for columns whose values do not say their type: all missing, or none.
_TYPES = {
    16: pa.bool_(),
    **dict.fromkeys((20, 21, 23), pa.int64()),
    **dict.fromkeys((700, 701, 1700), pa.float64()),
    **dict.fromkeys((25, 1042, 1043), pa.string()),
    1082: pa.date32(),
    1114: pa.timestamp("us"),
    1184: pa.timestamp("us", tz="UTC"),
}


def read(project: Project, source: str) -> Found:
    """Read the rows of a query or a table.

    Parameters
    ----------
    source
        ``postgresql://user:${PASSWORD}@host/database?query=select ...`` or ``sqlite:///file.db?query=select ...``;
        ``?table=name`` for all rows of a table. Relative files start at the project's folder.

    Raises
    ------
    InvalidInput
        The address says neither a query nor a table, or the database does not understand the query.
    NotFound, Denied, Unavailable
        There is no such database, table or column; it may not be read; it does not answer.
    """
    base, sql = _query(source)
    with _speaking(source):
        engine = _engine(project, base)
        try:
            return Found(_rows(engine, sql, source), source)
        finally:
            engine.dispose()


def _query(source: str) -> tuple[str, str]:
    """Split the query off. It is the last parameter and goes to the end, whatever signs it has."""
    base, _, rest = source.partition("?")
    for word in (_QUERY, _TABLE):
        before, found, value = rest.partition(word)
        if found and value and (not before or before.endswith("&")):
            # Typed by a person it has blanks, and is meant as it stands; else it was escaped.
            value = value if " " in value else unquote(value)
            address = base + (f"?{before.rstrip('&')}" if before else "")
            return address, value if word == _QUERY else f"select * from {_quoted(value)}"
    raise InvalidInput(
        f"The address {source} does not say which rows.",
        valid=f"{base}?query=select ... or {base}?table=NAME",
        hint=f'loopwright.dataset(name, sql="select ...", source="{base}")',
    )


def _quoted(table: str) -> str:
    return ".".join('"' + part.replace('"', '""') + '"' for part in table.split("."))


def _engine(project: Project, base: str) -> sa.Engine:
    scheme, _, rest = expand(base).partition("://")
    if scheme.startswith("sqlite"):
        path = project.root / rest.removeprefix("/")
        if not path.is_file():
            # SQLite would make an empty database of a misspelled name.
            known = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
            raise NotFound.among("database", path.name, sorted(known))
        engine = sa.create_engine(f"sqlite:///{path}", connect_args={"timeout": 30})
        sa_event.listen(engine, "connect", lambda connection, _: connection.execute("PRAGMA query_only=ON"))
        return engine
    try:
        return sa.create_engine(sa.make_url(f"postgresql+psycopg://{rest}"), poolclass=sa.NullPool)
    except ModuleNotFoundError as error:
        raise InvalidConfig(
            f"{base} needs the package {error.name!r}, which is not installed.",
            hint="uv add 'loopwright[postgres]'",
        ) from error
    except (sa.exc.ArgumentError, ValueError) as error:
        raise InvalidInput(
            f"{base} is no address of a database.", valid="postgresql://user@host:5432/database"
        ) from error


def _rows(engine: sa.Engine, sql: str, source: str) -> pa.Table:
    # Without parameters a driver takes a percent sign in the query for what it is.
    options: dict[str, Any] = {"stream_results": True, "max_row_buffer": _BATCH, "no_parameters": True}
    if engine.dialect.name == "postgresql":
        options["postgresql_readonly"] = True
    with engine.connect() as connection:
        # Not `text`, for which a colon in the query would be a parameter.
        result = connection.execution_options(**options).exec_driver_sql(sql)
        if not result.returns_rows:
            raise InvalidInput(
                f"The query of {source} returns no rows.", valid="A query starts with select or with."
            )
        names = list(result.keys())
        kinds = [_TYPES.get(facts[1]) for facts in result.cursor.description or ()]
        columns: list[list[Any]] = [[] for _ in names]
        for batch in counted(result.partitions(_BATCH), f"Reading {source.partition('?')[0]}"):
            for column, values in zip(columns, zip(*batch, strict=True), strict=True):
                column.extend(values)
    arrays = [_array(name, values, kind) for name, values, kind in zip(names, columns, kinds, strict=True)]
    return pa.Table.from_arrays(arrays, names=names)


def _array(name: str, values: list[Any], kind: pa.DataType | None) -> pa.Array:
    """Return a column; decimals become doubles, as pandas reads them, and UUIDs text."""
    first = next((value for value in values if value is not None), None)
    if isinstance(first, decimal.Decimal):
        values, kind = [None if value is None else float(value) for value in values], pa.float64()
    elif isinstance(first, uuid.UUID):
        values = [None if value is None else str(value) for value in values]
    try:
        return pa.array(values, type=kind)
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise InvalidInput(
            f"The column {name!r} of the query mixes types: {error}.",
            hint=f"cast it in the query: cast({name} as text) as {name}",
        ) from error


@contextlib.contextmanager
def _speaking(source: str) -> Iterator[None]:
    """Turn a database's errors into ours."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        text = " ".join(str(error.orig).split())
        code, lower = getattr(error.orig, "sqlstate", None) or "", text.lower()
        if code in _DENIED or any(
            word in lower for word in ("permission denied", "authentication", "readonly")
        ):
            raise Denied(
                f"{source}: no permission: {text}.", hint="grant select to the user in the address"
            ) from error
        if code in _ABSENT or "does not exist" in lower or "no such" in lower:
            raise NotFound(f"{source}: {text}.") from error
        # SQLite calls a query that it does not understand an operational error too.
        if isinstance(error, sa.exc.OperationalError) and "syntax" not in lower:
            raise Unavailable(
                f"{source} does not answer: {text}.", hint="check that the database runs and is reachable"
            ) from error
        raise InvalidInput(f"{source}: {text}.") from error
