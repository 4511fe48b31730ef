"""Runs read straight from MLflow's tables: milliseconds among ten thousand runs, and no server is needed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import sqlalchemy as sa

from loopwright.errors import Unavailable
from loopwright.tracking.run import BUCKETS, Dataset, History, Run, moment
from loopwright.tracking.where import ATTRIBUTES, NEWEST, Condition, Order

__all__ = ["SqlReader"]

_TABLES = {"metric": "latest_metrics", "param": "params", "tag": "tags"}
_COLUMNS = "r.run_uuid, r.name, r.status, r.start_time, r.end_time, r.experiment_id, r.artifact_uri"


class SqlReader:
    """Reads the runs of one store.

    Parameters
    ----------
    url
        SQLAlchemy URL of a store that exists.
    """

    def __init__(self, url: str) -> None:
        self._engine = sa.create_engine(url, poolclass=sa.pool.NullPool)

    def _all(self, statement: str, **values: Any) -> Sequence[Any]:
        text = sa.text(statement)
        lists: list[sa.BindParameter[Any]] = [
            sa.bindparam(name, expanding=True) for name, value in values.items() if isinstance(value, list)
        ]
        try:
            with self._engine.connect() as connection:
                return connection.execute(text.bindparams(*lists), values).all()
        except sa.exc.DBAPIError as error:
            raise Unavailable(
                f"The tracking store {self._engine.url!r} cannot be read: {error.orig}.",
                hint="loopwright status",
            ) from error

    def search(
        self, where: Iterable[Condition] = (), order: Order = NEWEST, limit: int = 50, experiment: str = ""
    ) -> list[Run]:
        """Return the runs that meet all conditions."""
        values: dict[str, Any] = {"limit": limit}
        tests = ["r.lifecycle_stage = 'active'"]
        if experiment:
            tests.append(
                "r.experiment_id IN (SELECT experiment_id FROM experiments WHERE name = :experiment)"
            )
            values["experiment"] = experiment
        for number, condition in enumerate(where):
            tests.append(_test(condition, number))
            values |= {f"key{number}": condition.name, f"value{number}": condition.value}
        join, by = "", f"r.{ATTRIBUTES.get(order.name, '')}"
        if order.kind != "attribute":
            join = f"LEFT JOIN {_TABLES[order.kind]} o ON o.run_uuid = r.run_uuid AND o.key = :order"
            by, values["order"] = "o.value", order.name
            if order.kind == "metric":
                join += " AND NOT o.is_nan"
        way = "DESC" if order.descending else "ASC"
        rows = self._all(
            f"SELECT {_COLUMNS} FROM runs r {join} WHERE {' AND '.join(tests)} "
            f"ORDER BY {by} IS NULL, {by} {way}, r.start_time DESC, r.run_uuid LIMIT :limit",
            **values,
        )
        return self._runs(rows)

    def candidates(self, text: str) -> list[Run]:
        """Return the runs whose id starts so or whose name is that, newest first."""
        start = f"{text.lower()}%" if text.isalnum() else ""
        rows = self._all(
            f"SELECT {_COLUMNS} FROM runs r WHERE r.lifecycle_stage = 'active' "
            "AND (r.name = :text OR r.run_uuid LIKE :start) ORDER BY r.start_time DESC LIMIT 20",
            text=text,
            start=start,
        )
        return self._runs(rows)

    def _runs(self, rows: Sequence[Any]) -> list[Run]:
        ids = [row.run_uuid for row in rows]
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for kind, table in _TABLES.items():
            more = ", is_nan" if kind == "metric" else ""
            found[kind] = {run_id: {} for run_id in ids}
            if not ids:
                continue
            for row in self._all(
                f"SELECT run_uuid, key, value{more} FROM {table} WHERE run_uuid IN :ids", ids=ids
            ):
                missing = kind == "metric" and row.is_nan
                found[kind][row.run_uuid][row.key] = float("nan") if missing else row.value
        return [
            Run(
                run_id=row.run_uuid,
                name=row.name or "",
                status=row.status,
                started=moment(row.start_time),
                ended=moment(row.end_time) if row.end_time else None,
                experiment_id=str(row.experiment_id),
                artifact_uri=row.artifact_uri or "",
                metrics=found["metric"][row.run_uuid],
                params=found["param"][row.run_uuid],
                tags=found["tag"][row.run_uuid],
            )
            for row in rows
        ]

    def experiments(self) -> dict[str, str]:
        """Return the names of the experiments by their ids."""
        rows = self._all("SELECT experiment_id, name FROM experiments WHERE lifecycle_stage = 'active'")
        return {str(row.experiment_id): row.name for row in rows}

    def histories(self, run: Run) -> list[History]:
        """Return how each metric of a run went: the database makes means of up to `BUCKETS` parts."""
        rows = self._all(
            "SELECT key, bucket, avg(value) AS mean, min(value) AS low, max(value) AS high, count(*) AS number FROM ("
            "SELECT key, value, ntile(:buckets) OVER (PARTITION BY key ORDER BY step, timestamp, value) AS bucket "
            "FROM metrics WHERE run_uuid = :run AND NOT is_nan) parts GROUP BY key, bucket ORDER BY key, bucket",
            run=run.run_id,
            buckets=BUCKETS,
        )
        parts: dict[str, list[Any]] = {}
        for row in rows:
            parts.setdefault(row.key, []).append(row)
        return [
            History(
                key,
                sum(part.number for part in mine),
                min(part.low for part in mine),
                max(part.high for part in mine),
                tuple(float(part.mean) for part in mine),
            )
            for key, mine in parts.items()
        ]

    def datasets(self, run: Run) -> list[Dataset]:
        """Return the datasets a run has read."""
        rows = self._all(
            "SELECT d.name, d.digest, d.dataset_source AS source FROM inputs i "
            "JOIN datasets d ON d.dataset_uuid = i.source_id WHERE i.source_type = 'DATASET' "
            "AND i.destination_type = 'RUN' AND i.destination_id = :run ORDER BY d.name",
            run=run.run_id,
        )
        return [Dataset(row.name, row.digest, row.source) for row in rows]

    def versions(self, run: Run) -> list[str]:
        """Return the model versions made from a run."""
        rows = self._all(
            "SELECT name, version FROM model_versions WHERE run_id = :run AND current_stage <> 'Deleted_Internal' "
            "ORDER BY name, version",
            run=run.run_id,
        )
        return [f"{row.name} version {row.version}" for row in rows]


def _test(condition: Condition, number: int) -> str:
    value, operator = f":value{number}", condition.operator
    if operator == "ILIKE":
        value, operator = f"lower({value})", "LIKE"
    column = f"r.{ATTRIBUTES[condition.name]}" if condition.kind == "attribute" else "value"
    if condition.operator == "ILIKE":
        column = f"lower({column})"
    if condition.kind == "attribute":
        return f"{column} {operator} {value}"
    known = "AND NOT is_nan" if condition.kind == "metric" else ""
    return (
        f"r.run_uuid IN (SELECT run_uuid FROM {_TABLES[condition.kind]} "
        f"WHERE key = :key{number} AND {column} {operator} {value} {known})"
    )
