"""MLflow's and Prefect's stores in one PostgreSQL database, each in a schema of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import sqlalchemy as sa

from loopwright.errors import Unavailable
from loopwright.tracking import schema

__all__ = ["SCHEMAS", "make_schemas", "prepare"]

SCHEMAS = ("mlflow", "prefect")
#: Whoever makes a store in a database holds this advisory lock meanwhile.
_LOCK = 7136210


@contextlib.contextmanager
def _locked(url: str) -> Iterator[sa.Connection]:
    try:
        engine = sa.create_engine(url, poolclass=sa.pool.NullPool, isolation_level="AUTOCOMMIT")
    except ModuleNotFoundError as error:
        raise Unavailable(
            f"PostgreSQL needs the driver {error.name}.", hint="pip install 'loopwright[postgres]'"
        ) from error
    try:
        with engine.connect() as connection:
            connection.execute(sa.text(f"SELECT pg_advisory_lock({_LOCK})"))
            yield connection
    except sa.exc.OperationalError as error:
        raise Unavailable(
            f"The database {engine.url!r} does not answer: {str(error.orig).strip()}.",
            hint="check [server] database in loopwright.toml, or LOOPWRIGHT_DATABASE",
        ) from error


def make_schemas(url: str) -> None:
    """Create the two schemas in a database where they are missing.

    Raises
    ------
    Unavailable
        The database does not answer, or there is no driver.
    """
    with _locked(url) as connection:
        for name in SCHEMAS:
            known = sa.text("SELECT 1 FROM pg_namespace WHERE nspname = :name")
            if connection.execute(known, {"name": name}).first() is None:
                connection.execute(sa.text(f"CREATE SCHEMA {name}"))


def prepare(url: str) -> None:
    """Create MLflow's tables where an address leads to, or migrate them, once for all processes that open it."""
    from mlflow.store.db.utils import create_sqlalchemy_engine_with_retry

    with _locked(url):
        engine = create_sqlalchemy_engine_with_retry(url)
        try:
            schema.make(engine)
        finally:
            engine.dispose()
