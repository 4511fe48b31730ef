"""The ledger's two tables. A change here needs a migration in `migrations/versions`."""

import sqlalchemy as sa

__all__ = ["events", "metadata", "states"]

metadata = sa.MetaData()

#: What happened. Rows are only ever added; `cause` is the id of the event that led to this one.
events = sa.Table(
    "events",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("at", sa.DateTime(timezone=True), nullable=False),
    sa.Column("kind", sa.String(64), nullable=False),
    sa.Column("subject", sa.String(255), nullable=False),
    sa.Column("actor", sa.String(255), nullable=False),
    sa.Column("cause", sa.Integer, nullable=True),
    sa.Column("payload", sa.Text, nullable=False),
    sa.Index("events_by_kind", "kind", "subject", "id"),
    sa.Index("events_by_subject", "subject", "id"),
    sqlite_autoincrement=True,
)

#: What holds now. `revision` rises with every change of any row, so that a reader sees changes with one small query.
states = sa.Table(
    "states",
    metadata,
    sa.Column("kind", sa.String(64), primary_key=True),
    sa.Column("key", sa.String(255), primary_key=True),
    sa.Column("revision", sa.BigInteger, nullable=False, unique=True),
    sa.Column("changed", sa.DateTime(timezone=True), nullable=False),
    sa.Column("value", sa.Text, nullable=False),
)
