"""Create the tables of monitoring: the log's catalogue, windows and signals, live blocks, deliveries."""

from alembic import op

from loopwright.ledger.schema import blocks, deliveries, metadata, positions, segments, signals, windows

revision = "0002"
down_revision = "0001"

_TABLES = [blocks, deliveries, positions, segments, signals, windows]


def upgrade() -> None:
    """Create the six tables."""
    metadata.create_all(op.get_bind(), tables=_TABLES)


def downgrade() -> None:
    """Drop them."""
    metadata.drop_all(op.get_bind(), tables=_TABLES)
