"""`loopwright.log_model`: every usual estimator is stored, quickly, and comes back the same."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from estimators import fitted

import loopwright as lw
from loopwright.errors import InvalidInput

pytestmark = [
    pytest.mark.integration,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]

MODELS, TABLE = fitted()


@pytest.fixture(scope="module", autouse=True)
def _store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Track to a store of this module's own, outside of any project."""
    root = tmp_path_factory.mktemp("models")
    before = Path.cwd()
    os.chdir(root)
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    os.environ["MLFLOW_TRACKING_URI"] = f"loopwright+sqlite:///{root / 'mlflow.db'}"
    yield
    os.chdir(before)


def _name(model: Any) -> str:
    return type(model).__name__


def _required(info: Any) -> set[str]:
    import mlflow

    text = Path(mlflow.artifacts.download_artifacts(info.model_uri), "requirements.txt").read_text()
    return {line.partition("==")[0] for line in text.split()}


@pytest.mark.parametrize("model", MODELS, ids=_name)
def test_an_estimator_comes_back_the_same(model: Any) -> None:
    """MLflow alone loads it, as itself and as a function; it needs what it stands on, pinned."""
    import mlflow

    with mlflow.start_run():
        info = lw.log_model(model, table=TABLE)
    loaded = mlflow.sklearn.load_model(info.model_uri)
    assert np.array_equal(loaded.predict(TABLE), model.predict(TABLE))
    # As a function it is given rows in another memory layout, in which sums round differently.
    assert np.allclose(mlflow.pyfunc.load_model(info.model_uri).predict(TABLE), model.predict(TABLE))
    flavor = mlflow.models.get_model_info(info.model_uri).flavors["sklearn"]
    stored = mlflow.get_logged_model(info.model_id).tags["loopwright.serialization"]
    assert stored == flavor["serialization_format"]
    assert _required(info) >= {"mlflow", "numpy", "scikit-learn", stored}


def test_small_models_of_known_types_are_stored_without_pickle() -> None:
    """A tree is small: skops. A forest is not; and a function of one's own is nothing skops should trust."""
    import mlflow
    from sklearn.preprocessing import FunctionTransformer

    with mlflow.start_run():
        stored = {
            _name(model): mlflow.get_logged_model(lw.log_model(model).model_id).tags[
                "loopwright.serialization"
            ]
            for model in (MODELS[6], MODELS[7], FunctionTransformer(lambda rows: rows).fit(TABLE))
        }
        with pytest.raises(InvalidInput, match="skops"):
            lw.log_model(FunctionTransformer(lambda rows: rows), serialization="skops")
    assert stored == {
        "DecisionTreeClassifier": "skops",
        "RandomForestClassifier": "cloudpickle",
        "FunctionTransformer": "cloudpickle",
    }


def test_other_libraries_are_among_the_requirements() -> None:
    """XGBoost and LightGBM estimators come back, and say what they need, inside a pipeline too."""
    import mlflow
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    xgboost, lightgbm = pytest.importorskip("xgboost"), pytest.importorskip("lightgbm")
    target = (TABLE.iloc[:, 0] > 5.8).astype(int)
    for needed, estimator in (
        ("xgboost", xgboost.XGBClassifier(n_estimators=5)),
        ("lightgbm", lightgbm.LGBMClassifier(n_estimators=5, verbose=-1)),
    ):
        model = make_pipeline(StandardScaler().set_output(transform="pandas"), estimator).fit(TABLE, target)
        with mlflow.start_run():
            info = lw.log_model(model, table=TABLE)
        assert np.array_equal(mlflow.sklearn.load_model(info.model_uri).predict(TABLE), model.predict(TABLE))
        assert needed in _required(info)


def test_registering_and_examples_work_as_in_mlflow() -> None:
    """A version is made under the name; the example is stored, and the signature comes from it."""
    import mlflow

    with mlflow.start_run():
        info = lw.log_model(MODELS[0], input_example=TABLE[:3], registered_model_name="iris")
    assert (info.registered_model_version, [c.name for c in info.signature.inputs]) == (
        1,
        list(TABLE.columns),
    )
    assert mlflow.pyfunc.load_model("models:/iris/1").input_example.equals(TABLE[:3])


def test_what_cannot_be_stored_or_asked_is_said() -> None:
    """A model with a lock in it; rows that do not fit."""
    import threading

    broken = MODELS[4].__class__().fit(TABLE, TABLE.index % 2)
    broken.lock = threading.Lock()
    with pytest.raises(InvalidInput, match="GaussianNB cannot be stored"):
        lw.log_model(broken)
    with pytest.raises(InvalidInput, match="does not predict the rows given"):
        lw.log_model(MODELS[0], table=TABLE.iloc[:, :2])


def test_inside_a_project_no_run_needs_to_be_open(tmp_path: Path) -> None:
    """It is logged to a run of the project's experiment, which ends with it."""
    (tmp_path / "loopwright.toml").write_text('[project]\nname = "iris"\n')
    program = (
        "import loopwright as lw, mlflow\n"
        "from sklearn.linear_model import LinearRegression\n"
        "lw.log_model(LinearRegression().fit([[0.0], [1.0]], [0, 1]))\n"
        "[run] = mlflow.search_runs(experiment_names=['iris'], output_format='list')\n"
        "assert run.info.status == 'FINISHED' and run.outputs.model_outputs\n"
    )
    environment = os.environ | {"PREFECT_API_URL": "http://127.0.0.1:9/api"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
