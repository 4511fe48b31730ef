"""Reading and writing the ledger."""

import contextlib
import getpass
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import sqlalchemy as sa
from sqlalchemy import event as sa_event

from loopwright.config import Project
from loopwright.errors import Conflict, Damaged, Denied, Unavailable
from loopwright.ledger.schema import events, states
from loopwright.records import now

__all__ = ["Event", "Ledger", "State", "user"]

Record = TypeVar("Record")
#: The newest migration; a ledger at another revision is migrated when it is opened.
HEAD = "0002"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened. `cause` is the id of the event that led to it."""

    id: int
    at: datetime
    kind: str
    subject: str
    actor: str
    cause: int | None
    payload: dict[str, Any]

    def read(self, kind: type[Record]) -> Record:
        """Return the payload as a record of the given type."""
        return _convert(self.payload, kind, f"event {self.id}")


@dataclass(frozen=True, slots=True)
class State:
    """One current value. `revision` is needed to change it safely."""

    kind: str
    key: str
    revision: int
    changed: datetime
    value: Any

    def read(self, kind: type[Record]) -> Record:
        """Return the value as a record of the given type."""
        return _convert(self.value, kind, f"{self.kind} {self.key!r}")


def _convert(value: Any, kind: type[Record], what: str) -> Record:
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise Damaged(
            f"The ledger's {what} is no {kind.__name__}: {error}.", hint="loopwright --version"
        ) from error


class Ledger:
    """The ledger of one project. Safe to share between threads; open one per process.

    Parameters
    ----------
    url
        SQLAlchemy URL, ``sqlite:///...`` or ``postgresql+psycopg://...``.
    actor
        Who is written beside each event: the part's name, or the user.

    Examples
    --------
    >>> ledger = Ledger("sqlite://")
    >>> first = ledger.append("alert.opened", "digits", {"value": 0.71})
    >>> ledger.append("training.requested", "digits", {"reason": "performance"}, cause=first.id).cause == first.id
    True
    >>> revision = ledger.put("deployment", "digits-api", {"version": 1})
    >>> ledger.get("deployment", "digits-api").value
    {'version': 1}
    """

    def __init__(self, url: str, *, actor: str = "") -> None:
        self.url = url
        self.actor = actor or user()
        self._sqlite = url.startswith("sqlite")
        self._engine = _engine(url)
        _migrate(self._engine, url)

    @classmethod
    def open(cls, project: Project, *, actor: str = "") -> "Ledger":
        """Open the ledger of a project, creating or migrating it when that is needed."""
        return cls(project.ledger_url, actor=actor)

    def close(self) -> None:
        """Give back all connections."""
        self._engine.dispose()

    @property
    def sqlite(self) -> bool:
        """Whether it is an SQLite file, and no server."""
        return self._sqlite

    @contextlib.contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Open a connection to read the tables of `schema` that have no method here."""
        with self._engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Open one transaction on the tables of `schema` that have no method here; it waits for its turn."""
        with self._begin() as connection:
            yield connection

    @contextlib.contextmanager
    def _begin(self) -> Iterator[sa.Connection]:
        """Open a write transaction that waits for its turn instead of failing half-way."""
        with (
            self._engine.connect().execution_options(loopwright_write=True) as connection,
            connection.begin(),
        ):
            if not self._sqlite:
                # One writer at a time, as in SQLite: revisions then rise in commit order, so no reader misses one.
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(7136209)"))
            yield connection

    def append(
        self, kind: str, subject: str, payload: Any = None, *, cause: int | None = None, actor: str = ""
    ) -> Event:
        """Add one event and return it with its id. `payload` is a mapping or a record."""
        with self._begin() as connection:
            return self._append(connection, kind, subject, payload, cause, actor)

    def _append(
        self, connection: sa.Connection, kind: str, subject: str, payload: Any, cause: int | None, actor: str
    ) -> Event:
        body = {} if payload is None else payload
        at, actor = now(), actor or self.actor
        text = msgspec.json.encode(body).decode()
        row = {"at": at, "kind": kind, "subject": subject, "actor": actor, "cause": cause, "payload": text}
        new_id = connection.execute(sa.insert(events).values(**row)).inserted_primary_key
        assert new_id is not None
        return Event(int(new_id[0]), at, kind, subject, actor, cause, msgspec.json.decode(text))

    def events(
        self,
        kind: str | None = None,
        subject: str | None = None,
        *,
        after: int = 0,
        since: datetime | None = None,
        limit: int = 1000,
        newest: bool = False,
    ) -> list[Event]:
        """Return events in the order they happened.

        Parameters
        ----------
        kind
            Exact kind, or a prefix that ends in ``.*`` such as ``alert.*``.
        subject
            Exact subject, usually a model or a deployment.
        after
            Only events with a higher id.
        since
            Only events at or after this moment.
        limit, newest
            At most `limit` events: the first ones, or with `newest` the last ones.
        """
        query = sa.select(events).where(events.c.id > after)
        if kind is not None:
            prefix = kind.endswith(".*")
            query = query.where(events.c.kind.startswith(kind[:-1]) if prefix else events.c.kind == kind)
        if subject is not None:
            query = query.where(events.c.subject == subject)
        if since is not None:
            query = query.where(events.c.at >= since)
        query = query.order_by(events.c.id.desc() if newest else events.c.id).limit(limit)
        with self._engine.connect() as connection:
            rows = [_event(row) for row in connection.execute(query)]
        return rows[::-1] if newest else rows

    def last(self, kind: str, subject: str | None = None) -> Event | None:
        """Return the newest event of a kind, or None."""
        found = self.events(kind, subject, limit=1, newest=True)
        return found[0] if found else None

    def event(self, event_id: int) -> Event | None:
        """Return one event by its id, or None."""
        found = self.events(after=event_id - 1, limit=1)
        return found[0] if found and found[0].id == event_id else None

    def put(
        self,
        kind: str,
        key: str,
        value: Any,
        *,
        expect: int | None = None,
        event: str = "",
        cause: int | None = None,
        payload: Any = None,
        subject: str = "",
        numbered: str = "",
    ) -> int:
        """Set a current value and return its new revision.

        Parameters
        ----------
        expect
            The revision the caller has seen, 0 for "does not exist yet". None overwrites whatever is there.
        event
            When given, an event of this kind with the key as its subject is added in the same transaction, with
            `payload`, or the value itself, as its payload.
        subject
            The event's subject, where it is not the key.
        numbered
            A field of the value that is set to the new event's id.
        cause
            The id of the event that led to the change.

        Raises
        ------
        Conflict
            The value was changed by somebody else since the caller read it.
        """
        text = msgspec.json.encode(value).decode()
        with self._begin() as connection:
            where = (states.c.kind == kind) & (states.c.key == key)
            seen = connection.execute(sa.select(states.c.revision).where(where)).scalar()
            if expect is not None and (seen or 0) != expect:
                raise Conflict(
                    f"{kind} {key!r} was changed meanwhile: it is at revision {seen or 0}, not {expect}.",
                    hint="read it again and repeat the change",
                )
            if event:
                body = value if payload is None else payload
                added = self._append(connection, event, subject or key, body, cause, "")
                if numbered:
                    text = msgspec.json.encode(msgspec.to_builtins(value) | {numbered: added.id}).decode()
            revision = int(connection.execute(sa.select(sa.func.max(states.c.revision))).scalar() or 0) + 1
            row = {"revision": revision, "changed": now(), "value": text}
            if seen is None:
                connection.execute(sa.insert(states).values(kind=kind, key=key, **row))
            else:
                connection.execute(sa.update(states).where(where).values(**row))
        return revision

    def get(self, kind: str, key: str) -> State | None:
        """Return one current value, or None."""
        query = sa.select(states).where((states.c.kind == kind) & (states.c.key == key))
        with self._engine.connect() as connection:
            row = connection.execute(query).first()
        return _state(row) if row else None

    def states(self, kind: str) -> list[State]:
        """Return all current values of a kind, by key."""
        query = sa.select(states).where(states.c.kind == kind).order_by(states.c.key)
        with self._engine.connect() as connection:
            return [_state(row) for row in connection.execute(query)]

    def revision(self) -> int:
        """Return the highest revision: when it has not risen, no current value has changed."""
        with self._engine.connect() as connection:
            return int(connection.execute(sa.select(sa.func.max(states.c.revision))).scalar() or 0)


def _event(row: Any) -> Event:
    at = row.at if row.at.tzinfo else row.at.replace(tzinfo=UTC)
    return Event(row.id, at, row.kind, row.subject, row.actor, row.cause, msgspec.json.decode(row.payload))


def _state(row: Any) -> State:
    changed = row.changed if row.changed.tzinfo else row.changed.replace(tzinfo=UTC)
    return State(row.kind, row.key, row.revision, changed, msgspec.json.decode(row.value))


def user() -> str:
    """Return the name of this process's user, or the number where it has none, as in some containers."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


def _engine(url: str) -> sa.Engine:
    if not url.startswith("sqlite"):
        return sa.create_engine(url, pool_pre_ping=True)
    memory = url in {"sqlite://", "sqlite:///:memory:"}
    pool = {"poolclass": sa.StaticPool} if memory else {}
    engine = sa.create_engine(url, connect_args={"timeout": 30, "check_same_thread": False}, **pool)

    @sa_event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        # The driver must not open transactions by itself: BEGIN IMMEDIATE below takes the write lock up front, so
        # that two read-then-write transactions wait for each other instead of one failing with "database is locked".
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")

    @sa_event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        write = connection.get_execution_options().get("loopwright_write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _migrate(engine: sa.Engine, url: str) -> None:
    """Bring the schema to `HEAD`; a ledger that is there already costs one small query."""
    try:
        with engine.connect() as connection:
            if sa.inspect(connection).has_table("alembic_version"):
                found = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
                if found == HEAD:
                    return
    except sa.exc.OperationalError as error:
        if "unable to open" in str(error) or "readonly" in str(error):
            raise Denied(
                f"The ledger {url} cannot be opened: {error.orig}.", hint="check the folder's permissions"
            ) from error
        raise Unavailable(
            f"The ledger {url} does not answer: {error.orig}.", hint="start the database server"
        ) from error
    _run_migrations(engine, url)


def _run_migrations(engine: sa.Engine, url: str) -> None:
    import alembic.command
    import alembic.config
    from filelock import FileLock

    config = alembic.config.Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["engine"] = engine
    path = engine.url.database if url.startswith("sqlite") else None
    # Several processes may meet a new project at once: only one of them creates the tables.
    lock = FileLock(f"{path}.lock", timeout=60) if path and path != ":memory:" else contextlib.nullcontext()
    with lock:
        alembic.command.upgrade(config, "head")
