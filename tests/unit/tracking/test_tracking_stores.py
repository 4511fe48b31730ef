"""MLflow's stores behind our addresses: the same answers as MLflow's own, with points in batches."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from loopwright.tracking import sqlite

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Return clients of two new SQLite stores, MLflow's own and ours."""
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    from mlflow import MlflowClient

    root = tmp_path_factory.mktemp("stores")
    yield {
        "mlflow": MlflowClient(f"sqlite:///{root / 'plain.db'}"),
        "loopwright": MlflowClient(f"loopwright+sqlite:///{root / 'ours.db'}"),
        "root": root,
    }
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for engine in SqlAlchemyStore._engine_map.values():
        engine.dispose()


def _calls(client: Any) -> list[tuple[str, Any]]:
    """Count the calls that reach the database with metrics."""
    store = client._tracking_client.store
    seen: list[tuple[str, Any]] = []
    write = store._points._write

    def watched(run_id: str, points: Any) -> None:
        seen.append((run_id, list(points)))
        write(run_id, points)

    store._points._write = watched
    return seen


def test_histories_and_last_values_are_those_of_mlflow(stores: dict[str, Any]) -> None:
    """Points out of order, twice the same, not numbers, of a model and a dataset: all as MLflow alone stores them."""
    points = [("loss", 1 / (step + 1), 1000 + step, step) for step in range(230)]
    points += [("loss", 0.5, 1000, 3), ("loss", 0.5, 1000, 3), ("late", 1.0, 5, 9), ("late", 2.0, 6, 2)]
    points += [("odd", float("nan"), 7, 0), ("odd", float("inf"), 8, 1), ("odd", float("-inf"), 9, 2)]
    found = {}
    for name in ("mlflow", "loopwright"):
        client = stores[name]
        run_id = client.create_run("0").info.run_id
        model = client.create_logged_model("0", name="m", source_run_id=run_id)
        for key, value, timestamp, step in points:
            client.log_metric(run_id, key, value, timestamp=timestamp, step=step)
        client.log_metric(run_id, "auc", 0.9, timestamp=1, step=0, model_id=model.model_id)
        client.log_metric(run_id, "auc", 0.8, timestamp=2, step=1, dataset_name="d", dataset_digest="1")
        last = client.get_run(run_id).data.metrics
        histories = {
            key: sorted((m.step, m.timestamp, repr(m.value)) for m in client.get_metric_history(run_id, key))
            for key in ("loss", "late", "odd", "auc")
        }
        metrics = client.get_logged_model(model.model_id).metrics
        of_model = [(m.key, m.value, m.run_id == run_id) for m in metrics]
        found[name] = (repr(last), histories, of_model)
    assert found["loopwright"] == found["mlflow"]
    assert len(found["mlflow"][1]["loss"]) == 231
    assert found["mlflow"][2] == [("auc", 0.9, True)]


def test_points_go_in_batches_and_reads_see_them(stores: dict[str, Any]) -> None:
    """250 points are three writes; a search right after the last sees it; the end of the run writes what waits."""
    client = stores["loopwright"]
    seen = _calls(client)
    run_id = client.create_run("0").info.run_id
    for step in range(250):
        client.log_metric(run_id, "loss", float(step), step=step)
    assert [len(points) for run, points in seen if run == run_id][:2] == [100, 100]
    [run] = client.search_runs(["0"], f"attributes.run_id = '{run_id}'")
    assert run.data.metrics == {"loss": 249.0}
    client.log_metric(run_id, "loss", 1.0, step=250)
    client.log_batch(run_id, metrics=[])
    client.set_terminated(run_id)
    assert sum(len(points) for run, points in seen if run == run_id) == 251


def test_a_wrong_run_or_point_is_answered_at_once(stores: dict[str, Any]) -> None:
    """As by MLflow: with its error, at the call that is wrong."""
    from mlflow.exceptions import MlflowException

    client = stores["loopwright"]
    with pytest.raises(MlflowException, match="not found"):
        client.log_metric("0" * 32, "loss", 1.0)
    run_id = client.create_run("0").info.run_id
    with pytest.raises(MlflowException, match="Invalid value"):
        client.log_metric(run_id, "a\tb!", 1.0)


def test_points_that_cannot_be_stored_are_counted(stores: dict[str, Any]) -> None:
    """The end of the run says how many are lost and why, and the run has ended."""
    from mlflow.exceptions import MlflowException

    client = stores["loopwright"]
    run_id = client.create_run("0").info.run_id
    seen = _calls(client)
    store = client._tracking_client.store
    whole, store._points._write = store._points._write, _refuse
    for step in range(3):
        client.log_metric(run_id, "loss", 1.0, step=step)
    with pytest.raises(MlflowException, match=f"3 metric points of run {run_id} were not stored") as caught:
        client.set_terminated(run_id)
    assert caught.value.error_code == "TEMPORARILY_UNAVAILABLE"
    store._points._write = whole
    assert client.get_run(run_id).info.status == "FINISHED", "the run has ended all the same"
    assert seen == []


def _refuse(run_id: str, points: Any) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE

    raise MlflowException("database is locked", TEMPORARILY_UNAVAILABLE)


def test_the_sqlite_file_is_tuned_and_statistics_follow_its_growth(stores: dict[str, Any]) -> None:
    """WAL, waiting writers; the counts behind the indexes are made anew when the runs have doubled."""
    import sqlalchemy

    store = stores["loopwright"]._tracking_client.store
    with store.engine.connect() as connection:

        def setting(name: str) -> Any:
            return connection.execute(sqlalchemy.text(f"PRAGMA {name}")).scalar()

        assert (setting("journal_mode"), setting("synchronous"), setting("busy_timeout")) == ("wal", 1, 20000)
    path = stores["root"] / "ours.db"
    for _ in range(20):
        stores["loopwright"].create_run("0")
    assert sqlite.analyze(path)
    assert not sqlite.analyze(path), "nothing has changed since"
    for _ in range(60):
        stores["loopwright"].create_run("0")
    assert sqlite.analyze(path)


def test_processes_open_one_new_store(tmp_path: Path) -> None:
    """Four at once: all of them live, and the store is whole."""
    program = (
        "import sys, mlflow\n"
        "client = mlflow.MlflowClient(sys.argv[1])\n"
        "run = client.create_run('0')\n"
        "client.log_metric(run.info.run_id, 'loss', 1.0)\n"
        "client.set_terminated(run.info.run_id)\n"
    )
    address = f"loopwright+sqlite:///{tmp_path / 'new' / 'mlflow.db'}"
    environment = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"}
    children = [
        subprocess.Popen([sys.executable, "-c", program, address], env=environment, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    for child in children:
        _, errors = child.communicate(timeout=200)
        assert child.returncode == 0, errors.decode()[-2000:]
