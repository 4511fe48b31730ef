"""MLflow's tables: made where there are none, migrated where they are of another MLflow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["make"]


def make(engine: Any, before: Callable[[str], None] = lambda _: None) -> None:
    """Make or migrate the tables. The caller sees to it that nobody else does meanwhile.

    `before` is called with the revision found when there is something to migrate.
    """
    from mlflow.store.db import utils

    if not utils._all_tables_exist(engine):
        utils._initialize_tables(engine)
        return
    found = utils._get_schema_version(engine)
    if found != utils._get_latest_schema_revision():
        before(str(found))
        utils._upgrade_db(engine)
