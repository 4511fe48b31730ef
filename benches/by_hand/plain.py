"""Train, track and register with Prefect and MLflow alone."""

import mlflow
import pandas as pd
from mlflow.models import infer_signature
from prefect import flow, task
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import accuracy_score


@task
def load(path: str) -> pd.DataFrame:
    table = pd.read_csv(path)
    mlflow.log_input(mlflow.data.from_pandas(table, source=path, name="wine"))
    return table


@task
def fit(table: pd.DataFrame, depth: int) -> RandomForestClassifier:
    rows, target = table.drop(columns="target"), table["target"]
    return RandomForestClassifier(max_depth=depth, random_state=0).fit(rows, target)


@task
def register(model: RandomForestClassifier, table: pd.DataFrame) -> None:
    rows = table.drop(columns="target")
    predicted = model.predict(rows)
    mlflow.log_metric("accuracy", accuracy_score(table["target"], predicted))
    mlflow.sklearn.log_model(
        model,
        name="model",
        signature=infer_signature(rows, predicted),
        serialization_format="cloudpickle",
        registered_model_name="wine-by-hand",
    )


@flow
def train(depth: int = 5) -> None:
    mlflow.set_experiment("wine")
    with mlflow.start_run(run_name="train"):
        mlflow.log_param("depth", depth)
        table = load("wine.csv")
        register(fit(table, depth), table)
