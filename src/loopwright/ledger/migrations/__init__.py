"""The schema of the ledger, as alembic migrations."""
