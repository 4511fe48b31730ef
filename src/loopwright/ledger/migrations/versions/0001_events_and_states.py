"""Create the tables of events and of current state."""

from alembic import op

from loopwright.ledger.schema import events, metadata, states

revision = "0001"
down_revision = None

_TABLES = [events, states]


def upgrade() -> None:
    """Create both tables."""
    metadata.create_all(op.get_bind(), tables=_TABLES)


def downgrade() -> None:
    """Drop both tables."""
    metadata.drop_all(op.get_bind(), tables=_TABLES)
