"""Each kind of model in each form that carries it: the answers are the model's own."""

import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.compose import ColumnTransformer
from sklearn.datasets import load_diabetes, load_iris
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from loopwright import scoring
from loopwright.config import Config, ModelConfig, Project
from loopwright.errors import Damaged, SchemaMismatch
from loopwright.records import ModelVersion, Task
from loopwright.registry import arrays_of
from loopwright.registry.blocks import Blocks, blocks_of
from loopwright.registry.description import describe
from loopwright.scoring.base import Manifest
from loopwright.scoring.golden import read_rows
from loopwright.scoring.treelite import TreeliteRuntime
from loopwright.scoring.trees import checkpoint, thresholds

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

Make = Callable[..., ModelVersion]


def iris() -> pd.DataFrame:
    """Return the iris table."""
    frame: pd.DataFrame = load_iris(as_frame=True).frame
    return frame


def diabetes() -> pd.DataFrame:
    """Return the diabetes table with a second target."""
    frame: pd.DataFrame = load_diabetes(as_frame=True).frame
    return frame.assign(twice=lambda table: table["target"] * 2 + table["bmi"])


def fitted(model: Any, frame: pd.DataFrame, target: str = "target") -> Any:
    """Fit a model on all other columns, without what it says about convergence."""
    targets = target.split(",")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return model.fit(frame.drop(columns=targets), frame[targets if len(targets) > 1 else target])


def served(
    project: Project, make: Make, model: Any, frame: pd.DataFrame, target: str = "target"
) -> scoring.Scorer:
    """Return the loaded scorer of a model that was registered with its table."""
    scorer = scoring.load(scoring.prepare(project, "m", make(model, frame, target).version))
    scorer.verify()
    return scorer


def rows_of(scorer: scoring.Scorer) -> Blocks:
    """Return the replay rows as the server hands rows over."""
    columns = arrays_of(read_rows(scorer.folder / "replay.parquet"), scorer.signature.inputs)
    return blocks_of(columns, scorer.signature.inputs, len(next(iter(columns.values()))))


def in_treelite(
    tmp_path: Path, model: Any, frame: pd.DataFrame, target: str
) -> tuple[TreeliteRuntime, Blocks]:
    """Return a model as treelite's runtime, and its table as the server hands rows over."""
    described = describe(model, frame, target)
    found = checkpoint(model, described.signature, described.layout)
    assert not isinstance(found, str), found
    (tmp_path / "model.treelite").write_bytes(found.data)
    manifest = Manifest("m", 1, "treelite", "", "", described.signature, described.layout, trees=found.inputs)
    rows = blocks_of(described.columns, described.signature.inputs, len(frame))
    return TreeliteRuntime(tmp_path, manifest), rows


CATEGORIES = ["red", "green", "blue"]


def coloured(frame: pd.DataFrame) -> pd.DataFrame:
    """Return a table with categories of text and of numbers, and with gaps."""
    rng = np.random.default_rng(0)
    colours = rng.choice(np.array([*CATEGORIES, None], dtype=object), len(frame))
    return frame.assign(
        colour=pd.Categorical(colours, categories=CATEGORIES),
        grade=pd.Categorical(rng.choice([7, 1, 5], len(frame)), categories=[7, 1, 5]),
        target=(frame["target"] + (colours == "blue")) % 3,
    ).assign(**{frame.columns[0]: frame.iloc[:, 0].where(frame.index % 7 > 0)})


CLASSIFIERS: dict[str, Callable[[], Any]] = {
    "hist": lambda: HistGradientBoostingClassifier(max_iter=8),
    "forest": lambda: RandomForestClassifier(8, random_state=0),
    "boosted": lambda: GradientBoostingClassifier(n_estimators=8),
    "xgboost": lambda: xgboost.XGBClassifier(n_estimators=8),
    "lightgbm": lambda: lightgbm.LGBMClassifier(n_estimators=8, verbose=-1),
}
REGRESSORS: dict[str, Callable[[], Any]] = {
    "hist": lambda: HistGradientBoostingRegressor(max_iter=8),
    "poisson": lambda: HistGradientBoostingRegressor(max_iter=8, loss="poisson"),
    "quantile": lambda: HistGradientBoostingRegressor(max_iter=8, loss="quantile", quantile=0.2),
    "forest": lambda: RandomForestRegressor(8, random_state=0),
    "extra": lambda: ExtraTreesRegressor(8, random_state=0),
    "lightgbm": lambda: lightgbm.LGBMRegressor(n_estimators=8, verbose=-1),
}


@pytest.mark.parametrize("kind", CLASSIFIERS)
@pytest.mark.parametrize("classes", [2, 3])
def test_trees_of_every_kind_classify_in_treelite(tmp_path: Path, kind: str, classes: int) -> None:
    """Boosted trees and forests of two or three classes give the model's own probabilities in treelite."""
    frame = iris().rename(columns=lambda name: name.replace(" (cm)", "").replace(" ", "_"))
    frame = frame.assign(target=frame["target"] % classes)
    model = fitted(CLASSIFIERS[kind](), frame)
    runtime, rows = in_treelite(tmp_path, model, frame, "target")
    found = runtime.score(rows, rows.rows)
    expected = model.predict_proba(frame.drop(columns="target"))
    np.testing.assert_allclose(np.asarray(found.probability), expected, rtol=0, atol=1e-6)
    assert found.prediction.tolist() == model.predict(frame.drop(columns="target")).tolist()
    runtime.close()


@pytest.mark.parametrize("kind", REGRESSORS)
def test_trees_of_every_kind_regress_in_treelite(tmp_path: Path, kind: str) -> None:
    """Boosted trees and forests give the model's own numbers in treelite, whatever their loss."""
    frame = diabetes().drop(columns="twice")
    model = fitted(REGRESSORS[kind](), frame)
    runtime, rows = in_treelite(tmp_path, model, frame, "target")
    expected = model.predict(frame.drop(columns="target"))
    np.testing.assert_allclose(runtime.score(rows, rows.rows).prediction, expected, rtol=1e-9)


@pytest.mark.parametrize("kind", REGRESSORS)
def test_trees_of_every_kind_regress_compiled(project: Project, make: Make, kind: str) -> None:
    """Each of them serves compiled, in whichever form gave the model's own numbers."""
    frame = diabetes().drop(columns="twice")
    model = fitted(REGRESSORS[kind](), frame)
    scorer = served(project, make, model, frame)
    assert scorer.runtime in {"onnx", "treelite"}, scorer.manifest.reason
    expected = model.predict(frame.drop(columns="target"))
    np.testing.assert_allclose(scorer.score(rows_of(scorer)).prediction, expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["hist", "xgboost", "lightgbm"])
def test_categories_of_every_kind_reach_treelite(tmp_path: Path, kind: str) -> None:
    """Categories of text and of numbers, gaps in them and values never seen mean in treelite what they mean natively."""
    model: Any = {
        "hist": HistGradientBoostingClassifier(max_iter=8, categorical_features="from_dtype"),
        "xgboost": xgboost.XGBClassifier(n_estimators=8, enable_categorical=True),
        "lightgbm": lightgbm.LGBMClassifier(n_estimators=8, verbose=-1, min_child_samples=5),
    }[kind]
    frame = coloured(iris().rename(columns=lambda name: name.replace(" (cm)", "").replace(" ", "_")))
    fitted(model, frame)
    runtime, rows = in_treelite(tmp_path, model, frame, "target")
    features = frame.drop(columns="target")
    found = runtime.score(rows, rows.rows)
    np.testing.assert_allclose(
        np.asarray(found.probability), model.predict_proba(features), rtol=0, atol=1e-6
    )
    columns = {name: values.copy() for name, values in rows.items()}
    columns["colour"][:] = "never seen"
    unseen = features.assign(colour=pd.Categorical([None] * 150, categories=CATEGORIES))
    np.testing.assert_allclose(
        np.asarray(runtime.score(columns, 150).probability), model.predict_proba(unseen), rtol=0, atol=1e-6
    )


def test_several_outputs_of_trees_in_treelite(tmp_path: Path) -> None:
    """Two targets of one forest, and quantiles of boosted trees, are columns of the prediction."""
    frame = diabetes()
    forest = fitted(RandomForestRegressor(5, random_state=0), frame, "target,twice")
    runtime, rows = in_treelite(tmp_path, forest, frame, "target,twice")
    found = runtime.score(rows, rows.rows).prediction
    assert found.shape == (442, 2)
    np.testing.assert_allclose(found, forest.predict(frame.drop(columns=["target", "twice"])))
    alone = frame.drop(columns="twice")
    quantiles = fitted(
        xgboost.XGBRegressor(n_estimators=5, objective="reg:quantileerror", quantile_alpha=[0.1, 0.9]), alone
    )
    runtime, rows = in_treelite(tmp_path, quantiles, alone, "target")
    found = runtime.score(rows, rows.rows).prediction
    np.testing.assert_allclose(found, quantiles.predict(alone.drop(columns="target")), rtol=1e-5)


def test_what_treelite_cannot_carry_says_why() -> None:
    """Trees behind other steps, text that is no category, and other estimators are refused with the reason."""
    frame = iris()
    for model, reason in (
        (make_pipeline(StandardScaler(), RandomForestClassifier(3)), "behind other steps"),
        (LogisticRegression(max_iter=500), "LogisticRegression has no form there"),
    ):
        described = describe(fitted(model, frame), frame, "target")
        found = checkpoint(model, described.signature, described.layout)
        assert isinstance(found, str)
        assert reason in found


def test_a_damaged_checkpoint_is_noticed(tmp_path: Path) -> None:
    """A file that is no checkpoint, and one of another number of columns, is damage and no crash."""
    frame = iris()
    model = fitted(HistGradientBoostingClassifier(max_iter=2), frame)
    in_treelite(tmp_path, model, frame, "target")
    described = describe(
        fitted(HistGradientBoostingClassifier(max_iter=2), frame.iloc[:, 1:]), frame.iloc[:, 1:], "target"
    )
    manifest = Manifest("m", 1, "treelite", "", "", described.signature, described.layout)
    with pytest.raises(Damaged, match="takes 4 columns, not 3"):
        TreeliteRuntime(tmp_path, manifest)
    (tmp_path / "model.treelite").write_bytes(b"torn")
    with pytest.raises(Damaged, match="cannot be loaded"):
        TreeliteRuntime(tmp_path, manifest)


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_thresholds_are_where_answers_jump(kind: str) -> None:
    """For the thresholds that each row meets, and most others, there is a row whose answer differs on their two sides."""
    frame = iris().rename(columns=lambda name: name.replace(" (cm)", "").replace(" ", "_"))
    model = fitted(CLASSIFIERS[kind](), frame)
    found = thresholds(model, describe(model, frame, "target").layout, 8)
    assert 3 <= len(found) <= 8
    features = frame.drop(columns="target").astype(float)
    jumps = []
    for place, value in found:
        low, high = features.copy(), features.copy()
        low.iloc[:, place], high.iloc[:, place] = value - 0.01, value + 0.01
        jumps.append(bool((model.predict_proba(low) != model.predict_proba(high)).any()))
    assert all(jumps[:2])
    assert sum(jumps) > len(jumps) / 2
    assert (
        thresholds(
            make_pipeline(StandardScaler(), LogisticRegression()), describe(model, frame, "target").layout, 8
        )
        == []
    )


def test_several_outputs_are_served(project: Project, make: Make) -> None:
    """Numbers of several targets are scored, kept as golden rows, compared and verified like those of one."""
    frame = diabetes()
    features = frame.drop(columns=["target", "twice"])
    for model, target, expected in (
        (LinearRegression(), "target,twice", "onnx"),
        (RandomForestRegressor(5, random_state=0), "target,twice", None),
    ):
        fitted(model, frame, target)
        scorer = served(project, make, model, frame, target)
        assert scorer.signature.outputs == ("target", "twice")
        assert expected in {None, scorer.runtime}
        rows = rows_of(scorer)
        np.testing.assert_allclose(scorer.score(rows).prediction, model.predict(features), rtol=1e-5)
        assert scorer.score(rows.take(slice(0, 1))).prediction.shape == (1, 2)
        assert scorer.score(rows.take(slice(0, 0))).prediction.shape == (0, 2)


def test_quantiles_are_served(project: Project, make: Make) -> None:
    """A quantile regression answers each row with one number for each quantile."""
    frame = diabetes().drop(columns="twice")
    model = fitted(
        xgboost.XGBRegressor(n_estimators=5, objective="reg:quantileerror", quantile_alpha=[0.1, 0.5, 0.9]),
        frame,
    )
    scorer = served(project, make, model, frame)
    assert scorer.signature.outputs == ("q0.1", "q0.5", "q0.9")
    found = scorer.score(rows_of(scorer)).prediction
    np.testing.assert_allclose(found, model.predict(frame.drop(columns="target")), rtol=1e-5)


def test_labels_of_several_targets_are_served(project: Project, make: Make) -> None:
    """Several labels for each row keep their type; no probabilities are given for them."""
    frame = iris().assign(large=lambda table: np.where(table["petal width (cm)"] > 1, "yes", "no"))
    frame["target"] = frame["target"].map({0: "a", 1: "b", 2: "c"})
    model = fitted(MultiOutputClassifier(LogisticRegression(max_iter=500)), frame, "target,large")
    scorer = served(project, make, model, frame, "target,large")
    assert (scorer.signature.task, scorer.signature.classes) == (
        Task.classification,
        ("a", "b", "c", "no", "yes"),
    )
    found = scorer.score(rows_of(scorer))
    assert found.probability is None
    assert found.prediction.tolist() == model.predict(frame.drop(columns=["target", "large"])).tolist()
    assert scorer.score(rows_of(scorer).take(slice(0, 0))).prediction.shape == (0, 2)


@pytest.mark.parametrize("numbers", [False, True])
def test_a_transformer_may_take_all_columns_in_another_order(
    project: Project, make: Make, numbers: bool
) -> None:
    """A column transformer that takes every column of a kind, but in an order of its own, is compiled and equal."""
    frame = iris().sample(frac=1, random_state=3)
    frame = frame.assign(kind=["p", "q", "r"] * 50, shape=["x", "y"] * 75)
    order = [str(name) for name in frame.columns[:4]]
    parts = [
        ("n", StandardScaler(), [order[2], order[0], order[3], order[1]]),
        ("s", OneHotEncoder(handle_unknown="ignore"), ["shape", "kind"]),
    ]
    table = frame.drop(columns=["kind", "shape"]) if numbers else frame
    columns = ColumnTransformer(parts[:1] if numbers else parts)
    model = fitted(make_pipeline(columns, LogisticRegression(max_iter=500)), table)
    scorer = served(project, make, model, table)
    assert (scorer.runtime, scorer.manifest.inputs) == ("onnx", "matrix" if numbers else "blocks")
    expected = model.predict_proba(table.drop(columns="target"))
    np.testing.assert_allclose(
        np.asarray(scorer.score(rows_of(scorer)).probability), expected, rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("strategy", ["most_frequent", "constant"])
def test_gaps_that_a_pipeline_fills_are_filled_compiled(project: Project, make: Make, strategy: str) -> None:
    """Missing numbers and missing text, filled in front of a scaler and an encoder, come out in double precision."""
    rng = np.random.default_rng(0)
    frame = iris().assign(kind=rng.choice(np.array(["p", "q", None], dtype=object), 150))
    name = frame.columns[0]
    frame[name] = frame[name].where(frame.index % 7 > 0)
    columns = ColumnTransformer(
        [
            ("n", make_pipeline(SimpleImputer(), StandardScaler()), list(frame.columns[:4])),
            (
                "s",
                make_pipeline(
                    SimpleImputer(strategy=strategy, fill_value="none"),
                    OneHotEncoder(handle_unknown="ignore"),
                ),
                ["kind"],
            ),
        ]
    )
    for last in (LogisticRegression(max_iter=500), HistGradientBoostingClassifier(max_iter=5)):
        model = fitted(make_pipeline(columns, last), frame)
        scorer = served(project, make, model, frame)
        assert scorer.runtime == "onnx", scorer.manifest.reason
        assert scorer.manifest.max_difference is not None
        assert scorer.manifest.max_difference < (1e-12 if isinstance(last, LogisticRegression) else 1e-6)
        features = frame.drop(columns="target")
        found = scorer.score(rows_of(scorer)).probability
        np.testing.assert_allclose(np.asarray(found), model.predict_proba(features), rtol=0, atol=1e-6)


def test_a_column_of_times_that_is_dropped_does_not_matter(project: Project, make: Make) -> None:
    """A pipeline that uses other columns than the time runs compiled; a missing time is refused all the same."""
    frame = iris().assign(when=pd.date_range("2026-01-01", periods=150), kind=["p", "q", "r"] * 50)
    columns = ColumnTransformer(
        [
            ("n", StandardScaler(), ["petal width (cm)"]),
            ("s", OneHotEncoder(handle_unknown="ignore"), ["kind"]),
        ]
    )
    model = fitted(make_pipeline(columns, LogisticRegression(max_iter=500)), frame)
    scorer = served(project, make, model, frame)
    assert (scorer.runtime, scorer.manifest.unused) == ("onnx", ("when",))
    rows = rows_of(scorer)
    expected = model.predict_proba(frame.drop(columns="target"))
    np.testing.assert_allclose(np.asarray(scorer.score(rows).probability), expected, rtol=0, atol=1e-12)
    given = dict(rows) | {"when": np.full(150, np.datetime64("NaT"))}
    with pytest.raises(SchemaMismatch, match="'when' is missing in row 0"):
        scorer.score(given)


def test_missing_booleans_reach_compiled_trees(project: Project, make: Make) -> None:
    """A boolean that may be missing goes in as a number with gaps."""
    flags = pd.array([True, False, None] * 50, dtype="boolean")
    frame = iris().rename(columns=lambda name: name.replace(" (cm)", "").replace(" ", "_")).assign(flag=flags)
    frame["target"] = (frame["target"] + frame["flag"].fillna(value=False).astype(int)) % 3
    model = fitted(xgboost.XGBClassifier(n_estimators=10), frame)
    scorer = served(project, make, model, frame)
    assert scorer.runtime == "onnx"
    expected = model.predict_proba(frame.drop(columns="target"))
    np.testing.assert_allclose(np.asarray(scorer.score(rows_of(scorer)).probability), expected, atol=1e-6)


def test_xgboost_with_categories_is_compiled(project: Project, make: Make) -> None:
    """XGBoost's categories, which ONNX has no form for, run compiled in treelite."""
    frame = coloured(iris().rename(columns=lambda name: name.replace(" (cm)", "").replace(" ", "_")))
    model = fitted(xgboost.XGBClassifier(n_estimators=8, enable_categorical=True), frame)
    scorer = served(project, make, model, frame)
    assert scorer.runtime == "treelite"
    expected = model.predict_proba(frame.drop(columns="target"))
    np.testing.assert_allclose(np.asarray(scorer.score(rows_of(scorer)).probability), expected, atol=1e-6)


def test_the_declared_tolerance_decides(project: Project, make: Make) -> None:
    """What differs by more than the model's tolerance runs natively, and the tolerance is in the manifest."""
    frame = diabetes().drop(columns="twice")
    # No two forms add up the trees' single-precision numbers in the same order.
    model = fitted(xgboost.XGBRegressor(n_estimators=30), frame)
    made = make(model, frame)
    usual = scoring.read_manifest(scoring.prepare(project, "m", made.version))
    assert (usual.runtime, usual.tolerance) == ("onnx", 1e-5)
    assert usual.max_difference is not None
    assert usual.max_difference > 0
    strict = Project(
        project.root, Config(model={"m": ModelConfig(target="target", tolerance=usual.max_difference / 1000)})
    )
    found = scoring.read_manifest(scoring.prepare(strict, "m", made.version))
    assert (found.runtime, found.tolerance) == ("native", usual.max_difference / 1000)
    assert "tolerance" in found.reason
    assert not [proof for proof in found.proofs if proof.proven and proof.runtime != "native"]


def test_a_pytorch_module_is_exported(project: Project, tmp_path: Path) -> None:
    """A module logged with MLflow's PyTorch flavor runs as ONNX once it has rows to be proven on."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed here")
    import mlflow.pytorch
    from mlflow.models import infer_signature

    frame = diabetes().drop(columns="twice").astype(np.float32)
    features = frame.drop(columns="target")
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(10, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1)).eval()
    with torch.no_grad():
        answers = network(torch.from_numpy(features.to_numpy().copy())).numpy()
    folder = tmp_path / "model"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.pytorch.save_model(
            network,
            str(folder),
            signature=infer_signature(features, answers[:, 0]),
            pip_requirements=["torch"],
            serialization_format="pickle",
        )
        by_hand(project, folder, frame)
        scorer = scoring.load(scoring.prepare(project, "hand", 1))
    assert scorer.runtime == "onnx", scorer.manifest.reason
    np.testing.assert_allclose(scorer.score(rows_of(scorer)).prediction, answers[:, 0], rtol=1e-4, atol=1e-5)
    shutil.rmtree(scorer.folder / "native", ignore_errors=True)


def by_hand(project: Project, folder: Path, frame: pd.DataFrame) -> ModelVersion:
    """Return a version that only MLflow's files and a dataset are known of."""
    import pyarrow as pa

    from loopwright.ledger import Ledger
    from loopwright.lineage import snapshot
    from loopwright.lineage.digests import digest_of

    training = snapshot(project, pa.Table.from_pandas(frame, preserve_index=False), "t", "")
    made = ModelVersion("hand", 1, "", str(folder), digest_of(folder), None, training, 0)
    ledger = Ledger.open(project)
    ledger.put("model_version", made.ref, made)
    ledger.close()
    return made


def test_several_outputs_registered_by_hand_are_found(project: Project, tmp_path: Path) -> None:
    """Two outputs that the `MLmodel` names are the targets of the dataset, and the model is compiled like any other."""
    import mlflow.sklearn
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    frame = diabetes()
    model = fitted(LinearRegression(), frame, "target,twice")
    features = list(frame.columns.drop(["target", "twice"]))
    signature = ModelSignature(
        Schema([ColSpec("double", name) for name in features]),
        Schema([ColSpec("double", "target"), ColSpec("double", "twice")]),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.sklearn.save_model(
            model,
            str(tmp_path / "model"),
            serialization_format="cloudpickle",
            signature=signature,
            pip_requirements=[],
        )
    by_hand(project, tmp_path / "model", frame)
    scorer = scoring.load(scoring.prepare(project, "hand", 1))
    assert (scorer.runtime, scorer.signature.outputs) == ("onnx", ("target", "twice"))
    assert scorer.signature.names == tuple(features)
    np.testing.assert_allclose(scorer.score(rows_of(scorer)).prediction, model.predict(frame[features]))


def test_any_pyfunc_with_several_outputs_is_served(project: Project, tmp_path: Path) -> None:
    """A model of MLflow's general kind answers with as many columns as its signature declares."""
    import mlflow.pyfunc
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    class Bounds(mlflow.pyfunc.PythonModel):  # type: ignore[misc]
        def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> Any:
            return pd.DataFrame({"low": model_input["bmi"] - 1, "high": model_input["bmi"] + 1})

    frame = diabetes()[["bmi", "target"]]
    signature = ModelSignature(
        Schema([ColSpec("double", "bmi")]), Schema([ColSpec("double", "low"), ColSpec("double", "high")])
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlflow.pyfunc.save_model(
            str(tmp_path / "model"), python_model=Bounds(), signature=signature, pip_requirements=[]
        )
        by_hand(project, tmp_path / "model", frame)
        scorer = scoring.load(scoring.prepare(project, "hand", 1))
        scorer.verify()
        found = scorer.score(rows_of(scorer)).prediction
    assert (scorer.runtime, scorer.signature.outputs) == ("native", ("low", "high"))
    np.testing.assert_allclose(found, np.c_[frame["bmi"] - 1, frame["bmi"] + 1])


def test_threads_do_not_mix_rows(project: Project, make: Make, tmp_path: Path) -> None:
    """Many threads with batches of their own get their own answers, in both compiled runtimes, also from other blocks."""
    from concurrent.futures import ThreadPoolExecutor

    frame = (
        iris()
        .rename(columns=lambda name: name.replace(" (cm)", "").replace(" ", "_"))
        .assign(n=np.arange(150))
    )
    model = fitted(HistGradientBoostingClassifier(max_iter=5), frame)
    graph = served(project, make, model, frame)
    assert graph.runtime == "onnx"
    forest, rows = in_treelite(tmp_path, model, frame, "target")
    expected = model.predict_proba(frame.drop(columns="target"))
    inputs = graph.signature.inputs
    turned = blocks_of(dict(rows), tuple(reversed(inputs)), rows.rows)

    def ask(seed: int) -> bool:
        rng = np.random.default_rng(seed)
        for turn in range(60):
            at = rng.integers(0, 150, rng.integers(1, 40))
            part = (rows, turned)[turn % 2].take(at)
            found = graph.score(part) if turn % 3 else forest.score(part, len(at))
            if not np.allclose(np.asarray(found.probability), expected[at], rtol=0, atol=1e-6):
                return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(ask, range(8)))


def test_the_manifest_is_plain_json(project: Project, make: Make) -> None:
    """What serves and why can be read from `scorer.json` with any JSON reader."""
    frame = coloured(iris())
    model = fitted(HistGradientBoostingClassifier(max_iter=3, categorical_features="from_dtype"), frame)
    scorer = served(project, make, model, frame)
    facts = json.loads((scorer.folder / "scorer.json").read_text())
    assert facts["runtime"] == "treelite"
    assert [proof["runtime"] for proof in facts["proofs"]] == ["onnx", "treelite", "native"]
    assert {timing["runtime"] for timing in facts["timings"]} == {"treelite", "native"}
    assert facts["replay_rows"] == 150
