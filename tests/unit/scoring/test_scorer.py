"""Scoring prepared versions: the compiled and the native runtime give the model's own answers."""

import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_iris
from sklearn.ensemble import (
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC, LinearSVC

from loopwright import scoring
from loopwright.config import Project
from loopwright.errors import Damaged, InvalidInput, NotFound, SchemaMismatch
from loopwright.ledger import Ledger
from loopwright.records import ModelVersion
from loopwright.registry import arrays_of, read_profile
from loopwright.scoring.golden import read_rows

pytestmark = [
    # Measured on 13 September 2026: the converters use what NumPy, onnx and scikit-learn are about to drop.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

Make = Callable[..., ModelVersion]


@pytest.fixture(scope="module")
def cancer() -> pd.DataFrame:
    """Return the breast cancer table, with names no graph could have as they are."""
    frame: pd.DataFrame = load_breast_cancer(as_frame=True).frame
    return frame.rename(columns=lambda name: name if name == "target" else f"{name} [%], mean/max")


@pytest.fixture(scope="module")
def iris() -> pd.DataFrame:
    """Return the iris table with text labels."""
    frame: pd.DataFrame = load_iris(as_frame=True).frame
    return frame.assign(target=frame["target"].map({0: "setosa", 1: "versi color", 2: "virginica"}))


@pytest.fixture(scope="module")
def mixed(iris: pd.DataFrame) -> pd.DataFrame:
    """Return iris with a column of text and one of whole numbers beside the measures."""
    rng = np.random.default_rng(0)
    return iris.assign(
        **{"colour (x)": rng.choice(["red", "blue", "gr een"], 150), "n": rng.integers(0, 4, 150)}
    )


def fitted(model: Any, frame: pd.DataFrame) -> Any:
    """Fit a model, without what it says about convergence."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(frame.drop(columns="target"), frame["target"])


def encoded(last: Any, unknown: str = "ignore") -> Pipeline:
    """Return a pipeline over text and numbers."""
    columns = ColumnTransformer(
        [
            ("numbers", StandardScaler(), ["sepal length (cm)", "petal width (cm)"]),
            ("text", OneHotEncoder(handle_unknown=unknown), ["colour (x)"]),
            ("whole", OneHotEncoder(handle_unknown="ignore"), ["n"]),
        ],
        remainder="passthrough",
    )
    return make_pipeline(columns, last)


def rows_of(scorer: scoring.Scorer) -> dict[str, Any]:
    """Return the replay rows of a scorer as columns."""
    return arrays_of(read_rows(scorer.folder / "replay.parquet"), scorer.signature.inputs)


def check(project: Project, made: ModelVersion, model: Any, frame: pd.DataFrame) -> scoring.Scorer:
    """Prepare and load a version, and compare its answers on the whole table with the model's."""
    scorer = scoring.load(scoring.prepare(project, made.model, made.version))
    scorer.verify()
    features = frame.drop(columns="target")
    columns = rows_of(scorer)
    assert len(columns[scorer.signature.names[0]]) == len(frame)
    scores = scorer.score(columns)
    expected = model.predict(features)
    if hasattr(model, "predict_proba"):
        assert scores.probability is not None
        np.testing.assert_allclose(scores.probability, model.predict_proba(features), rtol=0, atol=1e-5)
    if scorer.signature.classes:
        assert scores.prediction.tolist() == expected.tolist()
        assert {type(value) for value in scores.prediction.tolist()} == {type(scorer.signature.classes[0])}
    else:
        np.testing.assert_allclose(scores.prediction, expected, rtol=1e-5)
    one = scorer.score({name: values[7:8] for name, values in columns.items()})
    np.testing.assert_array_equal(one.prediction, scores.prediction[7:8])
    return scorer


def test_linear_pipeline_is_compiled_in_float64(project: Project, make: Make, cancer: pd.DataFrame) -> None:
    """A scaler and a logistic regression run compiled, in float64, as one matrix, equal to the last digits."""
    model = fitted(make_pipeline(StandardScaler(), LogisticRegression()), cancer)
    scorer = check(project, make(model, cancer), model, cancer)
    manifest = scorer.manifest
    assert (scorer.runtime, manifest.inputs, manifest.precision) == ("onnx", "matrix", "float64")
    assert manifest.max_difference is not None
    assert manifest.max_difference < 1e-12
    assert (manifest.label_flips, manifest.replay_rows) == (0, len(cancer))


@pytest.mark.parametrize("kind", ["forest", "xgboost", "lightgbm", "mlp", "scaled forest"])
def test_usual_classifiers_are_compiled(
    project: Project, make: Make, cancer: pd.DataFrame, kind: str
) -> None:
    """Forests, boosted trees and networks run compiled and give the model's own answers."""
    import lightgbm
    import xgboost

    model: Any = {
        "forest": RandomForestClassifier(20, random_state=0, n_jobs=2),
        "xgboost": xgboost.XGBClassifier(n_estimators=20),
        "lightgbm": lightgbm.LGBMClassifier(n_estimators=20, verbose=-1),
        "mlp": make_pipeline(StandardScaler(), MLPClassifier(max_iter=30, random_state=0)),
        "scaled forest": make_pipeline(StandardScaler(), RandomForestClassifier(20, random_state=0)),
    }[kind]
    frame = cancer.rename(columns=lambda name: name.partition("[")[0].strip()) if kind != "mlp" else cancer
    fitted(model, frame)
    assert check(project, make(model, frame), model, frame).runtime == "onnx"


@pytest.mark.parametrize("model", [Ridge(), GradientBoostingRegressor(n_estimators=20, random_state=0)])
def test_regressions_are_compiled(project: Project, make: Make, model: Any) -> None:
    """A regression runs compiled; it has numbers and no probabilities."""
    frame = load_diabetes(as_frame=True).frame
    fitted(model, frame)
    scorer = check(project, make(model, frame), model, frame)
    assert scorer.runtime == "onnx"
    assert scorer.score(rows_of(scorer)).probability is None


def test_text_and_numbers_go_in_as_two_blocks(project: Project, make: Make, mixed: pd.DataFrame) -> None:
    """A pipeline over text and numbers runs compiled, also inside a search, with text labels; each kind is one input."""
    model = fitted(
        GridSearchCV(encoded(LogisticRegression(max_iter=500)), {"logisticregression__C": [0.1, 1]}, cv=2),
        mixed,
    )
    scorer = check(project, make(model, mixed), model, mixed)
    assert (scorer.runtime, scorer.manifest.inputs) == ("onnx", "blocks")
    unseen = {name: values[:1] for name, values in rows_of(scorer).items()}
    unseen["colour (x)"] = np.array(["never seen"], dtype=object)
    frame = mixed.drop(columns="target").head(1).assign(**{"colour (x)": "never seen"})
    np.testing.assert_allclose(
        np.asarray(scorer.score(unseen).probability), model.predict_proba(frame), rtol=0, atol=1e-9
    )


def test_a_refused_category_is_refused_by_both_runtimes(
    project: Project, make: Make, mixed: pd.DataFrame
) -> None:
    """Where the model raises on an unseen category, so does the compiled runtime."""
    model = fitted(encoded(LogisticRegression(max_iter=500), unknown="error"), mixed)
    scorer = check(project, make(model, mixed), model, mixed)
    row = {name: values[:1] for name, values in rows_of(scorer).items()}
    row["colour (x)"] = np.array(["never seen"], dtype=object)
    with pytest.raises(InvalidInput, match="refuses the rows"):
        scorer.score(row)


def test_a_difference_after_conversion_keeps_the_model_native(
    project: Project, make: Make, cancer: pd.DataFrame
) -> None:
    """Scaled values that fall on another side of a threshold once compiled: the model itself serves, and says why."""
    scaled = make_pipeline(
        StandardScaler(), CalibratedClassifierCV(RandomForestClassifier(20, random_state=0), cv=2)
    )
    model = fitted(scaled, cancer.round(1))
    scorer = check(project, make(model, cancer.round(1)), model, cancer.round(1))
    assert scorer.runtime == "native"
    assert "real rows" in scorer.manifest.reason
    assert (scorer.folder / "native" / "MLmodel").is_file()
    assert not (scorer.folder / "model.onnx").exists()


def test_hist_gradient_boosting_is_compiled(project: Project, make: Make, cancer: pd.DataFrame) -> None:
    """Histogram-based boosting runs compiled, and the manifest says what each form of it showed."""
    model = fitted(HistGradientBoostingClassifier(max_iter=5), cancer)
    scorer = check(project, make(model, cancer), model, cancer)
    assert scorer.runtime == "onnx"
    assert [proof.runtime for proof in scorer.manifest.proofs if proof.proven] == [
        "onnx",
        "treelite",
        "native",
    ]
    assert scorer.manifest.label_flips == 0
    assert "fewer than 1,000" in scorer.manifest.reason


def test_categories_and_gaps_reach_the_trees(project: Project, make: Make, mixed: pd.DataFrame) -> None:
    """Category columns and missing values mean what they meant in training; absent optional columns count as missing."""
    frame = mixed.copy()
    frame["colour (x)"] = frame["colour (x)"].where(frame.index % 5 > 0).astype("category")
    frame["petal width (cm)"] = frame["petal width (cm)"].where(frame.index % 7 > 0)
    model = fitted(HistGradientBoostingClassifier(max_iter=5, categorical_features="from_dtype"), frame)
    scorer = check(project, make(model, frame), model, frame)
    assert scorer.runtime == "treelite"
    graph, forest, native = scorer.manifest.proofs
    assert (graph.runtime, graph.proven, forest.proven, native.proven) == ("onnx", False, True, True)
    assert "categories have no form in ONNX" in graph.reason
    assert scorer.manifest.trees is not None
    assert scorer.manifest.trees.codes == {"colour (x)": ("blue", "gr een", "red")}
    row = {name: values[:1] for name, values in rows_of(scorer).items()}
    without = {name: values for name, values in row.items() if name not in {"colour (x)", "petal width (cm)"}}
    assert row["colour (x)"][0] is None
    np.testing.assert_array_equal(
        np.asarray(scorer.score(without).probability), np.asarray(scorer.score(row).probability)
    )


def test_gaps_in_boosted_trees_are_compiled(project: Project, make: Make, cancer: pd.DataFrame) -> None:
    """XGBoost's own handling of missing numbers survives compilation."""
    import xgboost

    frame = cancer.rename(columns=lambda name: name.partition("[")[0].strip())
    first = frame.columns[0]
    frame[first] = frame[first].where(frame.index % 3 > 0)
    model = fitted(xgboost.XGBClassifier(n_estimators=20), frame)
    assert check(project, make(model, frame), model, frame).runtime == "onnx"


def test_a_matrix_model_and_boolean_labels(project: Project, make: Make, cancer: pd.DataFrame) -> None:
    """A model fitted on a matrix is called with a matrix; boolean labels stay boolean."""
    frame = cancer.assign(target=cancer["target"] == 1)
    model = HistGradientBoostingClassifier(max_iter=5).fit(frame.iloc[:, :30].to_numpy(), frame["target"])
    scorer = scoring.load(scoring.prepare(project, "m", make(model, frame).version))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        prediction = scorer.score(rows_of(scorer)).prediction
    assert prediction.dtype == bool
    assert prediction.tolist() == model.predict(frame.iloc[:, :30].to_numpy()).tolist()


def test_models_without_probability_give_labels_only(
    project: Project, make: Make, iris: pd.DataFrame
) -> None:
    """A classifier that gives no probabilities is compiled too, and none are made up."""
    for model in (SVC(), LinearSVC()):
        fitted(model, iris)
        scorer = check(project, make(model, iris), model, iris)
        assert (scorer.runtime, scorer.score(rows_of(scorer)).probability) == ("onnx", None)


def test_rows_that_do_not_fit_are_refused(project: Project, make: Make, iris: pd.DataFrame) -> None:
    """An absent column, a column of another length and a gap name the column; no rows give no answers."""
    model = fitted(LogisticRegression(max_iter=500), iris)
    native = fitted(HistGradientBoostingClassifier(max_iter=2), iris)
    for version in (make(model, iris), make(native, iris)):
        scorer = scoring.load(scoring.prepare(project, "m", version.version))
        columns = rows_of(scorer)
        name = "petal width (cm)"
        with pytest.raises(SchemaMismatch, match=f"'{name[:5]}.*is missing"):
            scorer.score({key: values for key, values in columns.items() if key != name})
        with pytest.raises(SchemaMismatch, match="149 rows"):
            scorer.score(columns | {name: columns[name][1:]})
        with pytest.raises(SchemaMismatch, match="missing in row 3") as caught:
            scorer.score(columns | {name: np.where(np.arange(150) == 3, np.nan, columns[name])})
        assert caught.value.attrs == {"field": name, "row": 3}
        with pytest.raises(SchemaMismatch, match="missing in row 0"):
            scorer.score({key: values[:1] for key, values in columns.items()} | {name: np.array([np.nan])})
        with pytest.raises(SchemaMismatch):
            scorer.score({})
        empty = scorer.score({key: values[:0] for key, values in columns.items()})
        assert empty.prediction.shape == (0,)
        assert np.asarray(empty.probability).shape == (0, 3)
        scorer.close()
        with pytest.raises(InvalidInput, match="closed"):
            scorer.score(columns)


def test_infinite_values_are_no_gaps(project: Project, make: Make, iris: pd.DataFrame) -> None:
    """Two infinities, whose sum is no number, are scored like any other value."""
    model = fitted(RandomForestClassifier(5, random_state=0), iris)
    scorer = scoring.load(scoring.prepare(project, "m", make(model, iris).version))
    columns = {name: np.array([np.inf, -np.inf]) for name in scorer.signature.names}
    assert scorer.score(columns).prediction.shape == (2,)


def test_damage_is_noticed_when_loading(project: Project, make: Make, iris: pd.DataFrame) -> None:
    """A changed file, an absent one, a wrong manifest and an empty folder each have their error."""
    made = make(fitted(LogisticRegression(max_iter=500), iris), iris)
    folder = scoring.prepare(project, "m", made.version)
    for spoil in ("model.onnx", "golden.arrow", "profile.json", "replay.parquet"):
        copy = folder.parent / f"copy-{spoil}"
        shutil.copytree(folder, copy)
        with (copy / spoil).open("ab") as file:
            file.write(b"x")
        with pytest.raises(Damaged, match=f"{spoil} is not what was prepared"):
            scoring.load(copy)
        (copy / spoil).unlink()
        with pytest.raises(Damaged, match="missing"):
            scoring.load(copy)
    (copy / "scorer.json").write_text('{"model": 3}')
    with pytest.raises(Damaged, match="manifest"):
        scoring.load(copy)
    with pytest.raises(NotFound, match="No scorer is prepared"):
        scoring.load(folder.parent / "99")


def test_verify_notices_wrong_answers(project: Project, make: Make, iris: pd.DataFrame) -> None:
    """A scorer whose graph is another model's does not pass its golden rows."""
    model = fitted(LogisticRegression(max_iter=500), iris)
    folder = scoring.prepare(project, "m", make(model, iris).version)
    other = fitted(LogisticRegression(max_iter=500, C=0.01), iris)
    shutil.copy(
        scoring.prepare(project, "m", make(other, iris).version) / "model.onnx", folder / "model.onnx"
    )
    facts = json.loads((folder / "scorer.json").read_text())
    from loopwright.lineage.digests import file_digest

    facts["files"]["model.onnx"] = file_digest(folder / "model.onnx")
    (folder / "scorer.json").write_text(json.dumps(facts))
    with pytest.raises(Damaged, match="golden answers"):
        scoring.load(folder).verify()


def test_preparing_is_done_once(project: Project, make: Make, iris: pd.DataFrame) -> None:
    """What is prepared is kept, what is torn or forced is made again, and each making is an event."""
    made = make(fitted(LogisticRegression(max_iter=500), iris), iris)
    folder = scoring.prepare(project, "m", made.version)
    before = (folder / "scorer.json").stat().st_mtime_ns
    assert scoring.prepare(project, "m", made.version) == folder
    assert (folder / "scorer.json").stat().st_mtime_ns == before
    (folder / "model.onnx").unlink()
    scoring.prepare(project, "m", made.version)
    scoring.prepare(project, "m", made.version, force=True)
    scoring.load(folder).verify()
    assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == ["1"]
    assert read_profile(folder / "profile.json").rows == 150
    ledger = Ledger.open(project)
    events = ledger.events("scorer.prepared", "m")
    ledger.close()
    assert len(events) == 3
    assert (events[0].payload["runtime"], events[0].payload["label_flips"]) == ("onnx", 0)


def test_changed_model_files_are_not_prepared(project: Project, make: Make, iris: pd.DataFrame) -> None:
    """A version whose files were changed since it was registered is refused."""
    made = make(fitted(LogisticRegression(max_iter=500), iris), iris)
    (Path(made.uri) / "MLmodel").write_text((Path(made.uri) / "MLmodel").read_text() + "\n")
    with pytest.raises(Damaged, match="not those that were registered"):
        scoring.prepare(project, "m", made.version)


def test_a_compiled_scorer_loads_nothing_heavy(project: Project, make: Make, mixed: pd.DataFrame) -> None:
    """A process that loads, verifies and uses a compiled scorer has no MLflow, pandas, scikit-learn or Prefect."""
    made = make(fitted(encoded(LogisticRegression(max_iter=500)), mixed), mixed)
    folder = scoring.prepare(project, "m", made.version)
    code = (
        "import sys\n"
        "from loopwright import scoring\n"
        f"scorer = scoring.load({str(folder)!r})\n"
        "scorer.verify()\n"
        "heavy = {'mlflow', 'pandas', 'sklearn', 'scipy', 'prefect', 'duckdb', 'onnx', 'skl2onnx', 'httpx'}\n"
        "print(scorer.runtime, sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "onnx []\n", done.stderr


def test_prepare_runs_as_a_program(project: Project, make: Make, iris: pd.DataFrame) -> None:
    """The module prepares one version from the command line, and fails with the error's own exit code."""
    made = make(fitted(LogisticRegression(max_iter=500), iris), iris)
    (project.root / "loopwright.toml").write_text("")
    command = [sys.executable, "-m", "loopwright.scoring.prepare", "m"]
    done = subprocess.run(
        [*command, str(made.version)], capture_output=True, text=True, cwd=project.root, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(project.scorer("m", made.version))
    shutil.rmtree(made.uri)
    shutil.rmtree(project.scorer("m", made.version))
    done = subprocess.run([*command, "1"], capture_output=True, text=True, cwd=project.root, check=False)
    assert (done.returncode, "loopwright up" in done.stderr) == (1, True), done.stderr
