"""Registering models with a real MLflow server, and scoring what was registered."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    IsolationForest,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from loopwright import registry, scoring
from loopwright.config import Config, ModelConfig, Project
from loopwright.errors import InvalidInput, NotFound, Unavailable
from loopwright.ledger import Ledger
from loopwright.records import ModelVersion, Task

pytestmark = [
    pytest.mark.integration,
    # MLflow, the converters and scikit-learn warn of what is about to change in NumPy, pydantic and each other.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    # MLflow's client leaves its connections to the garbage collector.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

START_S = 120.0


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Return a project whose local server runs, on its own folders."""
    root = tmp_path_factory.mktemp("project")
    (root / "loopwright.toml").write_text('[model.configured]\ntarget = "target"\n')
    project = Project(root)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    log = root / "server.log"
    with log.open("wb") as out:
        server = subprocess.Popen(
            [sys.executable, "-m", "loopwright.supervisor.server", "--port", str(port)],
            env=os.environ | {"LOOPWRIGHT_PROJECT": str(root)},
            stdout=out,
            stderr=out,
            cwd=root,
        )
    patch = pytest.MonkeyPatch()
    patch.setenv("MLFLOW_TRACKING_URI", f"{url}/mlflow")
    patch.setenv("PREFECT_API_URL", f"{url}/prefect/api")
    patch.setenv("LOOPWRIGHT_PROJECT", str(root))
    patch.delenv("LOOPWRIGHT_LEDGER", raising=False)
    try:
        wait_for(url, server, log)
        yield project
    finally:
        patch.undo()
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def wait_for(url: str, server: "subprocess.Popen[bytes]", log: Path) -> None:
    """Wait until the server answers; when it ends or hangs, fail with what it wrote."""
    until = time.monotonic() + START_S
    while time.monotonic() < until and server.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/health", timeout=5).status_code == 200:
                return
        time.sleep(0.2)
    pytest.fail(f"The local server did not start:\n{log.read_text()[-3000:]}")


@pytest.fixture(scope="module")
def iris() -> pd.DataFrame:
    """Return the iris table with text labels."""
    frame: pd.DataFrame = load_iris(as_frame=True).frame
    return frame.assign(target=frame["target"].map({0: "setosa", 1: "versicolor", 2: "virginica"}))


def events(project: Project, kind: str, subject: str) -> list[dict[str, Any]]:
    """Return the payloads of the ledger's events."""
    ledger = Ledger.open(project)
    try:
        return [event.payload for event in ledger.events(kind, subject)]
    finally:
        ledger.close()


def fitted(model: Any, frame: pd.DataFrame) -> Any:
    """Fit a model on all columns but the target, without what it says about convergence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        features = frame.drop(columns="target", errors="ignore")
        return model.fit(features, frame["target"]) if "target" in frame else model.fit(features)


def test_a_model_is_registered_prepared_and_scored(project: Project, iris: pd.DataFrame) -> None:
    """A registered version has everything later stages need, and its scorer gives the model's answers."""
    model = fitted(LogisticRegression(max_iter=500), iris)
    made = registry.register("flowers", model, iris, target="target", metrics={"accuracy": 0.9})
    assert (made.ref, made.replay_rows) == ("flowers/1", 150)
    assert made.signature is not None
    assert made.signature.classes == ("setosa", "versicolor", "virginica")
    assert made.training is not None
    assert (made.training.rows, made.training.columns[-1]) == (150, "target")
    assert (project.root / made.training.snapshot).is_file()
    assert Path(made.uri, "MLmodel").is_file()
    from loopwright.lineage.digests import digest_of

    assert made.digest == digest_of(Path(made.uri))
    assert registry.version(project, "flowers", 1) == made
    assert events(project, "model.registered", "flowers")[0]["digest"] == made.digest
    scorer = scoring.load(scoring.prepare(project, "flowers", 1))
    scorer.verify()
    columns = {name: iris[name].to_numpy() for name in made.signature.names}
    assert scorer.runtime == "onnx"
    assert scorer.score(columns).prediction.tolist() == model.predict(iris.iloc[:, :4]).tolist()
    profile = registry.read_profile(scorer.folder / "profile.json")
    assert (profile.performance["accuracy"], profile.dataset) == (0.9, made.training.digest)
    assert events(project, "scorer.prepared", "flowers")[0]["runtime"] == "onnx"


def test_mlflow_alone_can_load_a_registered_model(project: Project, iris: pd.DataFrame) -> None:
    """What was registered is a plain MLflow model: its own loader works, with its own signature."""
    import mlflow

    model = fitted(RandomForestClassifier(5, random_state=0), iris)
    made = registry.register("plain", model, iris, target="target", project=project)
    loaded = mlflow.pyfunc.load_model(f"models:/plain/{made.version}")
    assert loaded.predict(iris.iloc[:, :4]).tolist() == model.predict(iris.iloc[:, :4]).tolist()
    assert [column.name for column in loaded.metadata.get_input_schema()] == list(iris.columns[:4])


def test_an_active_run_is_used(project: Project, iris: pd.DataFrame) -> None:
    """Inside an MLflow run the model goes into that run, which stays open; outside it gets one of its own."""
    import mlflow

    model = fitted(GaussianNB(), iris)
    with mlflow.start_run() as run:
        inside = registry.register("runs", model, iris, target="target", metrics={"accuracy": 0.5})
        mlflow.log_metric("later", 1.0)
    outside = registry.register("runs", model, iris, target="target")
    assert inside.run_id == run.info.run_id
    assert (inside.version, outside.version) == (1, 2)
    assert outside.run_id != inside.run_id
    found = mlflow.get_run(run.info.run_id).data
    assert (found.metrics, found.tags["loopwright.dataset"]) == (
        {"accuracy": 0.5, "later": 1.0},
        inside.training.digest if inside.training else "",
    )
    assert mlflow.get_run(outside.run_id).info.status == "FINISHED"


def test_fifteen_usual_estimators_register_and_score(project: Project, iris: pd.DataFrame) -> None:
    """The estimators people use every day can all be registered, prepared and scored."""
    numbers = load_diabetes(as_frame=True).frame
    features = iris.drop(columns="target")
    cases: list[tuple[Any, pd.DataFrame]] = [
        (LogisticRegression(max_iter=500), iris),
        (Ridge(), numbers),
        (SGDClassifier(random_state=0), iris),
        (SVC(), iris),
        (GaussianNB(), iris),
        (KMeans(3, n_init=1, random_state=0), features),
        (make_pipeline(FunctionTransformer(np.log1p), LogisticRegression(max_iter=500)), iris),
        (DecisionTreeClassifier(random_state=0), iris),
        (RandomForestClassifier(5, random_state=0), iris),
        (ExtraTreesClassifier(5, random_state=0), iris),
        (GradientBoostingClassifier(n_estimators=5, random_state=0), iris),
        (HistGradientBoostingClassifier(max_iter=3), iris),
        (IsolationForest(n_estimators=5, random_state=0), features),
        (KNeighborsClassifier(), iris),
        (MLPClassifier((5,), max_iter=20, random_state=0), iris),
    ]
    for model, frame in cases:
        fitted(model, frame)
        name = type(model).__name__
        made = registry.register(name, model, frame, target="target")
        scorer = scoring.load(scoring.prepare(project, name, made.version))
        scorer.verify()
        assert made.signature is not None
        columns = {column: frame[column].to_numpy() for column in made.signature.names}
        expected = model.predict(frame.drop(columns="target", errors="ignore"))
        found = scorer.score(columns).prediction
        if made.signature.task == Task.regression:
            np.testing.assert_allclose(found, expected, rtol=1e-5)
        else:
            assert found.tolist() == expected.tolist()
    assert len(cases) == 15


def test_several_targets_are_registered(project: Project) -> None:
    """Targets between commas, from the configuration too, are the outputs of the version and of its MLflow signature."""
    import mlflow.pyfunc

    frame = load_diabetes(as_frame=True).frame.assign(twice=lambda table: table["target"] * 2)
    features = frame.drop(columns=["target", "twice"])
    model = Ridge().fit(features, frame[["target", "twice"]])
    config = Config(model={"both": ModelConfig(target="target, twice", tolerance=1e-6)})
    configured = Project(project.root, config)
    made = registry.register("both", model, frame, project=configured)
    assert made.signature is not None
    assert (made.signature.names, made.signature.outputs) == (tuple(features.columns), ("target", "twice"))
    declared = mlflow.pyfunc.load_model(f"models:/both/{made.version}").metadata.get_output_schema()
    assert declared.input_names() == ["target", "twice"]
    scorer = scoring.load(scoring.prepare(configured, "both", made.version))
    scorer.verify()
    assert (scorer.runtime, scorer.manifest.tolerance) == ("onnx", 1e-6)
    found = scorer.score({name: features[name].to_numpy() for name in scorer.signature.names})
    np.testing.assert_allclose(found.prediction, model.predict(features))
    profile = registry.read_profile(scorer.folder / "profile.json")
    assert set(profile.performance) == {"mae", "rmse"}


def test_aliases_name_versions(project: Project, iris: pd.DataFrame) -> None:
    """An alias is set and moved by hand alone, read back, and noted with what it named before."""
    model = fitted(GaussianNB(), iris)
    first = registry.register("aliased", model, iris, target="target")
    second = registry.register("aliased", model, iris, target="target")
    assert registry.aliases(project, "aliased") == {}
    with pytest.raises(NotFound, match="alias of model 'aliased' called 'champion'"):
        registry.version(project, "aliased")
    registry.set_alias(project, "aliased", "champion", 1)
    assert registry.version(project, "aliased") == first
    registry.set_alias(project, "aliased", "champion", 2)
    assert registry.aliases(project, "aliased") == {"champion": 2}
    assert registry.version(project, "aliased", "champion") == second
    assert registry.version(project, "aliased", "1") == first
    assert registry.versions(project, "aliased") == [first, second]
    assert events(project, "alias.set", "aliased")[1] == {"alias": "champion", "version": 2, "previous": 1}


def test_unknown_names_are_named(project: Project, iris: pd.DataFrame) -> None:
    """An unknown model, alias, version or run is named with what there is."""
    registry.register("known", fitted(GaussianNB(), iris), iris, target="target")
    registry.set_alias(project, "known", "champion", 1)
    with pytest.raises(NotFound, match=r"no model 'knwn'.*Did you mean 'known'"):
        registry.version(project, "knwn")
    with pytest.raises(NotFound, match=r"called 'champoin'.*Did you mean 'champion'"):
        registry.version(project, "known", "champoin")
    with pytest.raises(NotFound, match=r"called '7'.*Known: 1"):
        registry.version(project, "known", 7)
    with pytest.raises(NotFound, match="called '7'"):
        registry.set_alias(project, "known", "champion", 7)
    with pytest.raises(NotFound, match="no run 'abc'"):
        registry.register_run(project, "known", "abc")
    assert registry.versions(project, "nothing") == []
    assert registry.aliases(project, "nothing") == {}


def test_the_target_comes_from_the_configuration(project: Project, iris: pd.DataFrame) -> None:
    """A configured model needs no target; another one says how to give it; a wrong one is named."""
    model = fitted(GaussianNB(), iris)
    config = Config(model={"configured": ModelConfig(pipeline="pipelines:train", target="target")})
    configured = Project(project.root, config)
    assert registry.register("configured", model, iris, project=configured).version == 1
    with pytest.raises(InvalidInput, match="target column of model 'other' is not known"):
        registry.register("other", model, iris)
    with pytest.raises(InvalidInput, match=r"'targe'.*Did you mean 'target'"):
        registry.register("other", model, iris, target="targe")
    with pytest.raises(InvalidInput, match="called 'a/b'"):
        registry.register("a/b", model, iris, target="target")
    with pytest.raises(InvalidInput, match="is a list"):
        registry.register("other", model, [1, 2], target="target")  # type: ignore[arg-type]


def test_many_may_register_at_once(project: Project, iris: pd.DataFrame) -> None:
    """Several threads that register a new model at once get one version each."""
    model = fitted(GaussianNB(), iris)

    def register(_: int) -> int:
        return registry.register("crowded", model, iris, target="target").version

    with ThreadPoolExecutor(4) as pool:
        numbers = list(pool.map(register, range(4)))
    assert sorted(numbers) == [1, 2, 3, 4]


def test_a_hand_registered_run_with_a_dataset_is_as_good(project: Project, iris: pd.DataFrame) -> None:
    """A model logged by MLflow alone, in a run that names its dataset, is compiled and profiled like any other."""
    import mlflow
    import mlflow.sklearn
    import pyarrow as pa

    from loopwright import lineage

    model = fitted(LogisticRegression(max_iter=500), iris)
    ref = lineage.snapshot(project, pa.Table.from_pandas(iris, preserve_index=False), "iris", "")
    with mlflow.start_run() as run:
        mlflow.set_tag("loopwright.dataset", ref.digest)
        log_by_hand(model, iris.iloc[:, :4], model.predict(iris.iloc[:, :4]))
    made = registry.register_run(project, "by-hand", run.info.run_id)
    assert (made.version, made.digest, made.signature) == (1, "", None)
    scorer = scoring.load(scoring.prepare(project, "by-hand", 1))
    assert (scorer.runtime, scorer.manifest.replay_rows) == ("onnx", 150)
    assert scorer.signature.target == "target"
    known = registry.version(project, "by-hand", 1)
    assert (known.digest, known.signature, known.training) == (scorer.digest, scorer.signature, ref)
    assert "missing" not in events(project, "model.registered", "by-hand")[-1]


def log_by_hand(model: Any, features: pd.DataFrame, predictions: Any) -> Any:
    """Log a model as an MLflow user does."""
    import mlflow
    import mlflow.sklearn

    return mlflow.sklearn.log_model(
        model,
        name="model",
        serialization_format="cloudpickle",
        signature=mlflow.models.infer_signature(features, predictions),
        pip_requirements=["scikit-learn"],
    )


def test_a_hand_registered_version_without_data_is_native(project: Project, iris: pd.DataFrame) -> None:
    """A version made with MLflow's own client is served natively: there are no rows to prove a compilation on."""
    import mlflow

    model = fitted(LogisticRegression(max_iter=500), iris)
    with mlflow.start_run():
        info = log_by_hand(model, iris.iloc[:, :4], model.predict(iris.iloc[:, :4]))
    mlflow.register_model(info.model_uri, "button")
    before = registry.version(project, "button", 1)
    assert isinstance(before, ModelVersion)
    assert (before.digest, before.signature) == ("", None)
    assert Path(before.uri, "MLmodel").is_file()
    scorer = scoring.load(scoring.prepare(project, "button", 1))
    scorer.verify()
    assert (scorer.runtime, scorer.manifest.reason) == ("native", "no rows to replay")
    assert scorer.signature.classes == ("setosa", "versicolor", "virginica")
    columns = {name: iris[name].to_numpy() for name in scorer.signature.names}
    assert scorer.score(columns).prediction.tolist() == model.predict(iris.iloc[:, :4]).tolist()
    assert registry.version(project, "button", 1).signature == scorer.signature
    assert events(project, "model.registered", "button")[-1]["missing"] == [
        "profile",
        "replay rows",
        "training",
    ]


def test_other_flavors_and_formats_are_loaded(project: Project, iris: pd.DataFrame) -> None:
    """MLflow's own XGBoost flavor and its skops format serve too, with the estimator's classes."""
    import mlflow
    import mlflow.sklearn
    import mlflow.xgboost
    import xgboost

    features = iris.iloc[:, :4]
    boosted = xgboost.XGBClassifier(n_estimators=3).fit(features, iris["target"].astype("category").cat.codes)
    linear = fitted(LogisticRegression(max_iter=500), iris)
    for name, model, module in (("boosted", boosted, mlflow.xgboost), ("skops", linear, mlflow.sklearn)):
        with mlflow.start_run() as run:
            signature = mlflow.models.infer_signature(features, model.predict(features))
            module.log_model(model, name="model", signature=signature, pip_requirements=[name])
        made = registry.register_run(project, name, run.info.run_id)
        scorer = scoring.load(scoring.prepare(project, name, made.version))
        assert scorer.runtime == "native"
        assert scorer.signature.classes == tuple(model.classes_.tolist())
        found = scorer.score({column: features[column].to_numpy() for column in scorer.signature.names})
        assert found.prediction.tolist() == model.predict(features).tolist()
        np.testing.assert_allclose(np.asarray(found.probability), model.predict_proba(features), atol=1e-12)


def test_a_run_that_registered_can_be_registered_again(project: Project, iris: pd.DataFrame) -> None:
    """A model that `register` logged brings its rows and its dataset along when its run is registered by hand."""
    first = registry.register("original", fitted(GaussianNB(), iris), iris, target="target")
    again = registry.register_run(project, "again", first.run_id)
    assert scoring.load(scoring.prepare(project, "again", again.version)).runtime == "onnx"
    known = registry.version(project, "again", again.version)
    assert known.training is not None
    assert first.training is not None
    assert (known.digest, known.training.digest) == (first.digest, first.training.digest)


def test_files_elsewhere_are_fetched(project: Project, iris: pd.DataFrame, tmp_path: Path) -> None:
    """Model files that are not on this machine's own disk are downloaded."""
    made = registry.register("fetched", fitted(GaussianNB(), iris), iris, target="target")
    folder = registry.download(project, f"models:/fetched/{made.version}", tmp_path)
    assert tmp_path in folder.parents or folder == tmp_path
    from loopwright.lineage.digests import digest_of

    assert digest_of(folder) == made.digest


def test_a_step_in_a_thread_registers_into_the_pipelines_run(project: Project, iris: pd.DataFrame) -> None:
    """Where MLflow knows of no active run, the running pipeline's is used and stays open."""
    import mlflow

    from loopwright.lineage import Recorder, recorder

    client = mlflow.MlflowClient()
    run_id = client.create_run("0").info.run_id
    token = recorder.set(Recorder("train", run_id))
    try:
        made = registry.register("threaded", fitted(GaussianNB(), iris), iris, target="target")
    finally:
        recorder.reset(token)
    assert made.run_id == run_id
    assert client.get_run(run_id).info.status == "RUNNING"
    client.set_terminated(run_id)


def test_any_pyfunc_model_is_served(project: Project, iris: pd.DataFrame) -> None:
    """A model of MLflow's general kind has no estimator to look at; its own signature and loader serve it."""
    import mlflow
    import mlflow.pyfunc

    class Area(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
            return model_input["petal length (cm)"] * model_input["petal width (cm)"]

    features = iris.iloc[:, 2:4]
    with mlflow.start_run() as run:
        mlflow.pyfunc.log_model(
            name="model",
            python_model=Area(),
            signature=mlflow.models.infer_signature(features, np.array([0.5])),
            pip_requirements=["pandas"],
        )
    made = registry.register_run(project, "area", run.info.run_id)
    scorer = scoring.load(scoring.prepare(project, "area", made.version))
    assert (scorer.runtime, scorer.signature.task) == ("native", Task.regression)
    found = scorer.score({name: features[name].to_numpy() for name in scorer.signature.names})
    np.testing.assert_allclose(found.prediction, features.prod(axis=1))


def test_a_run_without_a_model_is_refused(project: Project) -> None:
    """A run that logged no model cannot be registered, and is told so."""
    import mlflow

    with mlflow.start_run() as run:
        mlflow.log_metric("x", 1.0)
    with pytest.raises(InvalidInput, match="logged no model"):
        registry.register_run(project, "empty", run.info.run_id)


def test_a_server_that_is_gone_is_named(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the server the registry says which address does not answer and what to do."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(Unavailable, match="does not answer"):
        registry.versions(project, "flowers")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    with pytest.raises(InvalidInput, match="is no server"):
        registry.versions(project, "flowers")
