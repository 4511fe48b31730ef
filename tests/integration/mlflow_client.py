"""What MLflow's own client does against a server, as its documentation shows it; prints the kind of its store."""

import subprocess
import sys
import warnings

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking._tracking_service.utils import _get_store
from sklearn.linear_model import LogisticRegression

warnings.simplefilter("ignore")
KIND = type(_get_store()).__name__
NAME = f"client-{KIND}"
client = MlflowClient()
assert mlflow.get_tracking_uri().startswith("http://"), "links are made from it"

# Runs, one inside the other.
experiment = mlflow.set_experiment(NAME)
with mlflow.start_run(run_name="outer", description="a run") as outer:
    mlflow.set_tag("stage", "dev")
    mlflow.log_params({"depth": 3, "eta": 0.1})
    with mlflow.start_run(run_name="inner", nested=True) as inner:
        for step in range(130):
            mlflow.log_metric("loss", 1 / (step + 1), step=step)
        mlflow.log_metrics({"a": 1.0, "b": 2.0}, step=1)
        # A read in between sees all that was logged.
        assert client.get_run(inner.info.run_id).data.metrics == {"loss": 1 / 130, "a": 1.0, "b": 2.0}
    mlflow.log_dict({"x": 1}, "facts.json")
    table = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0], "y": [0, 0, 1, 1]})
    dataset = mlflow.data.from_pandas(table, name="points", targets="y")
    mlflow.log_input(dataset, context="training")
    mlflow.log_metric("of_data", 0.5, dataset=dataset)
assert len(client.get_metric_history(inner.info.run_id, "loss")) == 130
assert mlflow.get_parent_run(inner.info.run_id).info.run_id == outer.info.run_id
[used] = client.get_run(outer.info.run_id).inputs.dataset_inputs
assert used.dataset.name == "points"
assert mlflow.artifacts.load_dict(f"{outer.info.artifact_uri}/facts.json") == {"x": 1}
assert client.get_run(outer.info.run_id).data.tags["loopwright.project"] == "served"

# The client, in batches and alone; search.
run_id = client.create_run(experiment.experiment_id).info.run_id
client.log_metric(run_id, "m", 1.0, timestamp=9, step=1)
client.log_batch(
    run_id, [Metric("m", 2.0, 10, 2), Metric("m", 3.0, 11, 3)], [Param("p", "1")], [RunTag("t", "1")]
)
client.log_batch(run_id, [Metric("m", 4.0, 12, 4)])
client.log_metric(run_id, "late", 1.0, synchronous=False).wait()
client.set_terminated(run_id)
assert [point.value for point in client.get_metric_history(run_id, "m")] == [1.0, 2.0, 3.0, 4.0]
found = mlflow.search_runs([experiment.experiment_id], "metrics.m > 3 and params.p = '1'")
assert run_id in list(found["run_id"])
client.delete_run(run_id)
client.restore_run(run_id)

# Autologging, the registry, loading.
mlflow.sklearn.autolog(log_models=False)
with mlflow.start_run() as auto:
    model = LogisticRegression(C=0.5).fit(table[["x"]], table["y"])
mlflow.sklearn.autolog(disable=True)
data = client.get_run(auto.info.run_id).data
assert (data.params["C"], "training_accuracy_score" in data.metrics) == ("0.5", True)
with mlflow.start_run() as run:
    info = mlflow.sklearn.log_model(
        model,
        name="model",
        pip_requirements=[],
        serialization_format="cloudpickle",
        registered_model_name=NAME,
    )
    mlflow.log_metric("auc", 0.75, model_id=info.model_id)
[metric] = mlflow.get_logged_model(info.model_id).metrics
assert (metric.key, metric.value, metric.run_id) == ("auc", 0.75, run.info.run_id)
[ranked] = mlflow.search_logged_models(
    [experiment.experiment_id], "metrics.auc > 0.5", output_format="list", max_results=5
)
assert ranked.model_id == info.model_id
second = mlflow.register_model(info.model_uri, NAME)
client.set_registered_model_alias(NAME, "champion", second.version)
client.set_model_version_tag(NAME, second.version, "checked", "yes")
assert client.get_model_version_by_alias(NAME, "champion").version == second.version
assert len(client.search_model_versions(f"name = '{NAME}'")) == 2
for address in (f"models:/{NAME}@champion", f"models:/{NAME}/1", info.model_uri):
    assert list(mlflow.pyfunc.load_model(address).predict(table[["x"]])) == list(model.predict(table[["x"]]))


# Traces.
@mlflow.trace
def double(number: int) -> int:
    """Return twice the number."""
    return 2 * number


assert double(4) == 8
mlflow.flush_trace_async_logging()
[trace] = mlflow.search_traces(locations=[experiment.experiment_id], return_type="list")
assert trace.data.spans[0].name == "double"

# A child process goes on where this one is.
child = "import mlflow, sys; mlflow.start_run(run_id=sys.argv[1]); mlflow.log_metric('child', 1.0)"
subprocess.run([sys.executable, "-c", child, run.info.run_id], check=True, capture_output=True)
assert client.get_run(run.info.run_id).data.metrics["child"] == 1.0
print(KIND)
