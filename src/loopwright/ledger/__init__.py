"""The ledger: what happened (append-only events) and what holds now (current state), in one small database.

SQLite in WAL mode by default, PostgreSQL for teams. Every stage writes here and every stage may read; that is how
stages that must not import each other still talk.
"""

from loopwright.ledger.store import Event, Ledger, State

__all__ = ["Event", "Ledger", "State"]
