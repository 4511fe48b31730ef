"""The ledger's tables. A change here needs a migration in `migrations/versions`."""

import sqlalchemy as sa

__all__ = [
    "blocks",
    "deliveries",
    "events",
    "metadata",
    "positions",
    "segments",
    "signals",
    "states",
    "windows",
]

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

#: The catalogue of the prediction log: each sealed segment, and what became of it. Readers do without it; pages, remote
#: stores and retention do not. Moments are microseconds since 1970 UTC.
segments = sa.Table(
    "segments",
    metadata,
    sa.Column("path", sa.String(512), primary_key=True),
    sa.Column("log", sa.String(255), nullable=False),
    sa.Column("first_us", sa.BigInteger, nullable=False),
    sa.Column("last_us", sa.BigInteger, nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("layout", sa.String(16), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("changed", sa.DateTime(timezone=True), nullable=False),
    sa.Column("note", sa.Text, nullable=False, server_default=""),
    sa.Index("segments_by_log", "log", "state", "first_us"),
)

#: Each window that a monitor looked at: one row for each deployment, phase and span, written again when labels came.
windows = sa.Table(
    "windows",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("deployment", sa.String(255), nullable=False),
    sa.Column("model", sa.String(255), nullable=False),
    sa.Column("phase", sa.String(16), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("start_us", sa.BigInteger, nullable=False),
    sa.Column("end_us", sa.BigInteger, nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("labelled", sa.BigInteger, nullable=False),
    sa.Column("maturity", sa.Float, nullable=True),
    sa.Column("fired", sa.Integer, nullable=False),
    sa.Column("failed", sa.Text, nullable=False),
    sa.Column("judged", sa.DateTime(timezone=True), nullable=False),
    sa.UniqueConstraint("deployment", "phase", "start_us", "end_us"),
    sqlite_autoincrement=True,
)

#: What each check said of a window. `checked` is the check's name; `limit_value` what the value was held against.
signals = sa.Table(
    "signals",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("window", sa.Integer, nullable=False),
    sa.Column("deployment", sa.String(255), nullable=False),
    sa.Column("model", sa.String(255), nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("checked", sa.String(64), nullable=False),
    sa.Column("subject", sa.String(255), nullable=False),
    sa.Column("segment", sa.String(255), nullable=False),
    sa.Column("start_us", sa.BigInteger, nullable=False),
    sa.Column("end_us", sa.BigInteger, nullable=False),
    sa.Column("value", sa.Float, nullable=True),
    sa.Column("lower", sa.Float, nullable=True),
    sa.Column("upper", sa.Float, nullable=True),
    sa.Column("limit_value", sa.Float, nullable=True),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("fired", sa.Boolean, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Index("signals_by_window", "window"),
    sa.Index("signals_by_check", "deployment", "checked", "start_us"),
    sa.Index("signals_by_subject", "deployment", "checked", "subject", "segment", "start_us"),
    sqlite_autoincrement=True,
)

#: Live numbers: additive counts of one version over one span of `span_s` seconds, as bytes that `monitor` understands.
blocks = sa.Table(
    "blocks",
    metadata,
    sa.Column("deployment", sa.String(255), primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("span_s", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("start_us", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("data", sa.LargeBinary, nullable=False),
)

#: How far the rows of each file of the prediction log are counted in `blocks`; changed in one transaction with them.
positions = sa.Table(
    "positions",
    metadata,
    sa.Column("deployment", sa.String(255), primary_key=True),
    sa.Column("stem", sa.String(255), primary_key=True),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("changed", sa.DateTime(timezone=True), nullable=False),
)

#: Messages about alerts, each to one address: what is to be sent, and what became of it.
deliveries = sa.Table(
    "deliveries",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("alert", sa.String(512), nullable=False),
    sa.Column("event", sa.Integer, nullable=False),
    sa.Column("reason", sa.String(16), nullable=False),
    sa.Column("address", sa.String(512), nullable=False),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("due", sa.DateTime(timezone=True), nullable=False),
    sa.Column("changed", sa.DateTime(timezone=True), nullable=False),
    sa.Column("title", sa.Text, nullable=False),
    sa.Column("body", sa.Text, nullable=False),
    sa.Column("error", sa.Text, nullable=False, server_default=""),
    sa.UniqueConstraint("event", "reason", "address"),
    sa.Index("deliveries_by_state", "state", "due"),
    sqlite_autoincrement=True,
)
