"""Runs the ledger's migrations on the engine that asked for them."""

import sqlalchemy as sa
from alembic import context

from loopwright.ledger.schema import metadata

engine: sa.Engine = context.config.attributes["engine"]
with engine.connect() as connection:
    if engine.dialect.name == "postgresql":
        connection.execute(sa.text("SELECT pg_advisory_lock(7136208)"))
    context.configure(connection=connection, target_metadata=metadata, transactional_ddl=True)
    with context.begin_transaction():
        context.run_migrations()
    if connection.in_transaction():
        connection.commit()
