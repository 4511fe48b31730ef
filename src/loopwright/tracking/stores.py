"""MLflow's own stores, with single metric points gathered into batches, and its SQLite file made and tuned.

Everything else is MLflow's. What a store is asked about a run, it answers with the points that waited for it written;
another process sees a point half a second late at most.
"""

from __future__ import annotations

import itertools
import os
from functools import partial
from typing import Any

from mlflow.entities import RunStatus
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, ErrorCode
from mlflow.store.model_registry.rest_store import RestStore as RestRegistry
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as MlflowSqlRegistry
from mlflow.store.tracking.rest_store import RestStore
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.validation import _validate_metric

from loopwright.tracking import postgresql, sqlite
from loopwright.tracking.buffer import SIZE, NotStored, PointBuffer

__all__ = ["BufferedRestStore", "BufferedSqlStore", "SqlRegistry", "rest_registry"]

#: A run that has ended takes points again when it is asked for them, but directly.
_ENDED = {RunStatus.FINISHED, RunStatus.FAILED, RunStatus.KILLED}
#: Ends of runs between two looks at whether the statistics of a store are out of date.
_ANALYZE_EVERY = 20


class _Buffered:
    """Stands before one of MLflow's tracking stores and gathers the metric points of runs.

    The first point of a run that this store has neither made nor read goes directly, so that a wrong run id is
    answered at once.
    """

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._known: set[str] = set()
        self._points = PointBuffer(self._write)

    def _write(self, run_id: str, points: list[Any]) -> None:
        super().log_batch(run_id, points, [], [])  # type: ignore[misc]

    def _flush(self, run_id: str | None = None) -> None:
        try:
            self._points.flush(run_id) if run_id else self._points.flush_all()
        except NotStored as failure:
            raise _as_mlflow(failure) from failure

    def log_metric(self, run_id: str, metric: Any) -> None:
        """Take a point; it is written with others of its run."""
        if run_id not in self._known:
            super().log_metric(run_id, metric)  # type: ignore[misc]
            self._known.add(run_id)
            return
        self._take(run_id, [metric])

    def log_batch(self, run_id: str, metrics: Any, params: Any, tags: Any) -> None:
        """Write parameters and tags now; a few points alone are taken as single ones are."""
        if run_id in self._known and not params and not tags and len(metrics) < SIZE:
            self._take(run_id, metrics)
            return
        self._flush(run_id)
        super().log_batch(run_id, metrics, params, tags)  # type: ignore[misc]
        self._known.add(run_id)

    def _take(self, run_id: str, metrics: Any) -> None:
        for metric in metrics:
            _validate_metric(metric.key, metric.value, metric.timestamp, metric.step)
        try:
            self._points.add(run_id, metrics)
        except NotStored as failure:
            raise _as_mlflow(failure) from failure

    def create_run(self, *arguments: Any, **named: Any) -> Any:
        """Create a run."""
        run = super().create_run(*arguments, **named)  # type: ignore[misc]
        self._known.add(run.info.run_id)
        return run

    def update_run_info(self, run_id: str, run_status: Any, end_time: Any, run_name: Any) -> Any:
        """Change a run; when it ends, with all its points. A failure to store them is raised after it has ended."""
        failure = None
        try:
            self._points.flush(run_id)
        except NotStored as error:
            failure = error
        info = super().update_run_info(run_id, run_status, end_time, run_name)  # type: ignore[misc]
        if run_status in _ENDED:
            self._known.discard(run_id)
            self._points.forget(run_id)
        if failure:
            raise _as_mlflow(failure) from failure
        return info

    def delete_run(self, run_id: str) -> Any:
        """Delete a run."""
        self._flush(run_id)
        self._known.discard(run_id)
        self._points.forget(run_id)
        return super().delete_run(run_id)  # type: ignore[misc]

    def get_run(self, run_id: str) -> Any:
        """Return a run with all its points."""
        self._flush(run_id)
        return super().get_run(run_id)  # type: ignore[misc]

    def get_metric_history(self, run_id: str, *arguments: Any, **named: Any) -> Any:
        """Return all points of a metric."""
        self._flush(run_id)
        return super().get_metric_history(run_id, *arguments, **named)  # type: ignore[misc]

    def log_inputs(self, run_id: str, *arguments: Any, **named: Any) -> Any:
        """Link datasets and models to a run, whose points may name them."""
        self._flush(run_id)
        return super().log_inputs(run_id, *arguments, **named)  # type: ignore[misc]

    def _search_runs(self, *arguments: Any, **named: Any) -> Any:
        self._flush()
        return super()._search_runs(*arguments, **named)  # type: ignore[misc]

    def get_logged_model(self, *arguments: Any, **named: Any) -> Any:
        """Return a logged model with its metrics."""
        self._flush()
        return super().get_logged_model(*arguments, **named)  # type: ignore[misc]

    def search_logged_models(self, *arguments: Any, **named: Any) -> Any:
        """Return logged models with their metrics."""
        self._flush()
        return super().search_logged_models(*arguments, **named)  # type: ignore[misc]


def _as_mlflow(failure: NotStored) -> MlflowException:
    """Return a failure as MLflow's callers expect one, with the code of its cause."""
    code = getattr(failure.cause, "error_code", ErrorCode.Name(INTERNAL_ERROR))
    return MlflowException(str(failure), error_code=ErrorCode.Value(code))


class BufferedRestStore(_Buffered, RestStore):  # type: ignore[misc]
    """MLflow's client of a tracking server."""

    def __init__(self, address: str) -> None:
        super().__init__(partial(get_default_host_creds, address))


def rest_registry(address: str) -> Any:
    """Return MLflow's client of a server's model registry."""
    return RestRegistry(partial(get_default_host_creds, address))


class _Prepared:
    """Stands before one of MLflow's database stores: its tables are made, and SQLite is tuned, before it is opened."""

    @classmethod
    def _get_or_create_engine(cls, db_uri: str) -> Any:
        path = sqlite.path_of(db_uri)
        if path:
            sqlite.prepare(path)
        elif db_uri.startswith("postgresql"):
            postgresql.prepare(db_uri)
        engine = super()._get_or_create_engine(db_uri)  # type: ignore[misc]
        if path:
            sqlite.tune(engine)
            engine.dispose()  # what it has opened to look for tables is not tuned
        return engine


class BufferedSqlStore(_Buffered, _Prepared, SqlAlchemyStore):  # type: ignore[misc]
    """MLflow's tracking store in a database. Artifacts lie beside a SQLite file unless `artifact_uri` says where."""

    def __init__(self, address: str, artifact_uri: str | None = None) -> None:
        self._path = sqlite.path_of(address)
        self._ends = itertools.count(1)
        beside = (self._path.parent / "artifacts").resolve().as_uri() if self._path else "./mlruns"
        root = artifact_uri or os.environ.get("_MLFLOW_SERVER_ARTIFACT_ROOT") or beside
        super().__init__(address, root)

    def update_run_info(self, run_id: str, run_status: Any, end_time: Any, run_name: Any) -> Any:
        """Change a run."""
        info = super().update_run_info(run_id, run_status, end_time, run_name)
        if self._path and run_status in _ENDED and next(self._ends) % _ANALYZE_EVERY == 0:
            self.refresh()
        return info

    def refresh(self) -> None:
        """Count the rows behind the indexes when the store has grown, and let connections see it."""
        if self._path and sqlite.analyze(self._path):
            self.engine.dispose()


class SqlRegistry(_Prepared, MlflowSqlRegistry):  # type: ignore[misc]
    """MLflow's model registry in a database."""
