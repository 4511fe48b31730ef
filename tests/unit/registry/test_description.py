"""Signatures, layouts and checks derived from a fitted model and its table."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.cluster import KMeans
from sklearn.datasets import load_diabetes, load_iris
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import IsolationForest, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from loopwright.errors import InvalidInput
from loopwright.records import Column, Task
from loopwright.registry.description import describe


@pytest.fixture(scope="module")
def iris() -> pd.DataFrame:
    """Return the iris table with its target."""
    frame: pd.DataFrame = load_iris(as_frame=True).frame
    return frame


def fitted(model: Any, frame: pd.DataFrame, target: str = "target") -> Any:
    """Fit a model on all other columns of a table."""
    return model.fit(frame.drop(columns=target), frame[target])


def test_column_types_follow_the_table() -> None:
    """Each kind of column gets its type, and a column with gaps is not required."""
    frame = pd.DataFrame(
        {
            "whole": [1, 2, 3, 4],
            "gaps": [1, None, 3, 4],
            "nullable": pd.array([1, None, 3, 4], dtype="Int64"),
            "small": np.array([1, 2, 3, 4], dtype="uint8"),
            "decimal": [0.5, 1.5, 2.5, 3.5],
            "text": ["a", "b", None, "d"],
            "category": pd.Categorical(["x", "y", "x", "y"]),
            "grade": pd.Categorical([1, 2, 1, 2]),
            "flag": [True, False, True, False],
            "time": pd.to_datetime(["2020-01-01"] * 4),
            "target": [0, 1, 0, 1],
        }
    )
    found = describe(fitted(DummyClassifier(), frame), frame, "target").signature
    assert found.inputs == (
        Column("whole", "long"),
        Column("gaps", "double", required=False),
        Column("nullable", "double", required=False),
        Column("small", "long"),
        Column("decimal", "double"),
        Column("text", "string", required=False),
        Column("category", "string"),
        Column("grade", "long"),
        Column("flag", "boolean"),
        Column("time", "datetime"),
    )


def test_order_and_choice_of_columns_are_the_models(iris: pd.DataFrame) -> None:
    """A model that knows its columns takes those, in its order; the table may have more."""
    chosen = ["petal width (cm)", "sepal length (cm)"]
    model = LogisticRegression(max_iter=500).fit(iris[chosen], iris["target"])
    described = describe(model, iris, "target")
    assert described.signature.names == tuple(chosen)
    assert described.layout.container == "frame"


def test_a_model_fitted_on_a_matrix_takes_the_tables_columns(iris: pd.DataFrame) -> None:
    """A model without names takes all features in the table's order, as a matrix."""
    model = LogisticRegression(max_iter=500).fit(iris.iloc[:, :4].to_numpy(), iris["target"])
    described = describe(model, iris, "target")
    assert described.signature.names == tuple(iris.columns[:4])
    assert described.layout.container == "matrix"


def test_classes_are_plain_values_in_the_models_order(iris: pd.DataFrame) -> None:
    """Class labels keep their type as Python values: text, whole numbers or booleans."""
    for labels, classes in [
        (iris["target"], (0, 1, 2)),
        (iris["target"].map({0: "a", 1: "b", 2: "c"}), ("a", "b", "c")),
        (iris["target"] == 1, (False, True)),
    ]:
        frame = iris.assign(target=labels)
        signature = describe(fitted(LogisticRegression(max_iter=500), frame), frame, "target").signature
        assert signature.task == Task.classification
        assert signature.classes == classes
        assert [type(value) for value in signature.classes] == [type(value) for value in classes]


def test_a_regression_has_no_classes() -> None:
    """A regression has no classes and is measured by its errors."""
    frame = load_diabetes(as_frame=True).frame
    described = describe(fitted(LinearRegression(), frame), frame, "target")
    assert (described.signature.task, described.signature.classes) == (Task.regression, ())
    assert set(described.performance()) == {"mae", "rmse"}


def test_models_without_a_target_give_classes(iris: pd.DataFrame) -> None:
    """Clusters and outliers are classes, and there is nothing to measure them by."""
    frame = iris.drop(columns="target")
    clusters = describe(KMeans(3, n_init=1, random_state=0).fit(frame), frame, "target")
    outliers = describe(IsolationForest(n_estimators=5, random_state=0).fit(frame), frame, "target")
    assert clusters.signature.classes == (0, 1, 2)
    assert outliers.signature.classes == (-1, 1)
    assert clusters.performance() == {}


def test_performance_holds_accuracy_and_log_loss(iris: pd.DataFrame) -> None:
    """A classifier with probabilities is measured by both, one without by accuracy alone."""
    both = describe(fitted(LogisticRegression(max_iter=500), iris), iris, "target").performance()
    assert both["accuracy"] > 0.9
    assert 0 < both["log_loss"] < 0.5
    assert set(describe(fitted(LinearSVC(), iris), iris, "target").performance()) == {"accuracy"}


def test_any_object_that_predicts_will_do(iris: pd.DataFrame) -> None:
    """An object with `predict` is enough: text answers make a classification, decimals a regression."""

    class Rule:
        def __init__(self, answers: list[Any]) -> None:
            self.answers = answers

        def predict(self, rows: Any) -> Any:
            return np.resize(np.array(self.answers), len(rows))

    named = describe(Rule(["low", "high"]), iris, "target").signature
    assert (named.task, named.classes) == (Task.classification, ("high", "low"))
    assert describe(Rule([0.5]), iris, "target").signature.task == Task.regression


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda frame: frame.rename(columns={"target": "targets"}), "no target column 'target'.*'targets'"),
        (lambda frame: frame.head(0), "no rows"),
        (lambda frame: frame.assign(target=frame["target"].where(frame.index > 2)), "'target' has 3 missing"),
        (lambda frame: frame.drop(columns="petal width (cm)"), "fitted on the column 'petal width"),
        (lambda frame: frame.assign(extra=[{"a": 1}] * 150).drop(columns="petal width (cm)"), "petal width"),
    ],
)
def test_a_wrong_table_is_refused(iris: pd.DataFrame, spoil: Any, message: str) -> None:
    """A table without its target, without rows, with gaps in the target or without a feature is refused by name."""
    model = fitted(LogisticRegression(max_iter=500), iris)
    with pytest.raises(InvalidInput, match=message.replace("'targets'", ".*'targets'")) as caught:
        describe(model, spoil(iris), "target")
    assert caught.value.valid or caught.value.hint


def test_a_matrix_of_another_width_is_refused(iris: pd.DataFrame) -> None:
    """A model that only knows how many columns it takes refuses a table with more, naming the columns."""
    model = LogisticRegression(max_iter=500).fit(iris.iloc[:, :3].to_numpy(), iris["target"])
    with pytest.raises(InvalidInput, match="fitted on 3 columns; the table has 4 besides the target"):
        describe(model, iris, "target")


def test_mixed_and_nested_columns_are_refused(iris: pd.DataFrame) -> None:
    """A column of mixed values, or of lists, cannot be an input and is named."""
    model = DummyClassifier().fit(iris.iloc[:, :1], iris["target"])
    table = iris.iloc[:, [0, 4]].copy()
    with pytest.raises(InvalidInput, match="mixed values"):
        describe(model, table.assign(odd=pd.Series(["a", 1] * 75, dtype=object)), "target")
    lists = pd.DataFrame({"odd": [[1, 2]] * 4, "target": [0, 1, 0, 1]})
    with pytest.raises(InvalidInput, match="'odd' has the type list"):
        describe(DummyClassifier().fit(lists[["odd"]], lists["target"]), lists, "target")


def test_an_object_that_cannot_predict_is_refused(iris: pd.DataFrame) -> None:
    """A scaler cannot be registered."""
    with pytest.raises(InvalidInput, match="StandardScaler has no method 'predict'"):
        describe(StandardScaler().fit(iris), iris, "target")


def test_several_targets_are_several_outputs(iris: pd.DataFrame) -> None:
    """A model of several targets, named between commas, has an output for each; the classes are those of all."""
    frame = iris.assign(large=np.where(iris["petal width (cm)"] > 1, "yes", "no"))
    features = list(iris.columns[:4])
    labels = frame[["target", "large"]].astype(str)
    model = RandomForestClassifier(5, random_state=0).fit(frame[features], labels)
    frame["target"] = labels["target"]
    described = describe(model, frame, "target, large")
    assert described.signature.names == tuple(features)
    assert described.signature.outputs == ("target", "large")
    assert described.signature.classes == ("0", "1", "2", "no", "yes")
    assert described.prediction.shape == (150, 2)
    assert described.probability is None
    assert described.performance()["accuracy"] > 0.9
    numbers = load_diabetes(as_frame=True).frame.assign(twice=lambda table: table["target"] * 2)
    both = LinearRegression().fit(numbers.iloc[:, :10], numbers[["target", "twice"]])
    found = describe(both, numbers, "target,twice")
    assert (found.signature.task, found.signature.outputs) == (Task.regression, ("target", "twice"))
    actual = numbers[["target", "twice"]].to_numpy()
    error = np.abs(actual - both.predict(numbers.iloc[:, :10])).mean()
    assert found.performance()["mae"] == pytest.approx(error)


def test_outputs_without_targets_of_their_own_are_named(iris: pd.DataFrame) -> None:
    """Quantiles are called by their share, other outputs by their place; neither has a metric."""
    numbers = load_diabetes(as_frame=True).frame
    quantiles = xgboost.XGBRegressor(
        n_estimators=3, objective="reg:quantileerror", quantile_alpha=[0.1, 0.5, 0.9]
    ).fit(numbers.iloc[:, :10], numbers["target"])
    described = describe(quantiles, numbers, "target")
    assert described.signature.outputs == ("q0.1", "q0.5", "q0.9")
    assert described.performance() == {}
    two = iris[["target", "target"]].to_numpy()
    model = MultiOutputClassifier(LogisticRegression(max_iter=500)).fit(iris.iloc[:, :4], two)
    assert describe(model, iris, "target").signature.outputs == ("output_0", "output_1")


def test_wrong_targets_are_refused(iris: pd.DataFrame) -> None:
    """As many targets as outputs, each of them a column without gaps; a comma in a column's name is no separator."""
    model = fitted(LogisticRegression(max_iter=500), iris)
    with pytest.raises(InvalidInput, match=r"There are 2 targets, .* the model gives 1"):
        describe(model, iris.assign(other=1), "target,other")
    with pytest.raises(InvalidInput, match=r"'othr'.*'other'"):
        describe(model, iris.assign(other=1), "target,othr")
    with pytest.raises(InvalidInput, match="'other' has 3 missing"):
        describe(model, iris.assign(other=iris["target"].where(iris.index > 2)), "target,other")
    odd = iris.rename(columns={"target": "species, coded"})
    assert describe(fitted(LogisticRegression(max_iter=500), odd, "species, coded"), odd, "species, coded")


def test_a_model_that_cannot_score_its_table_is_refused(iris: pd.DataFrame) -> None:
    """An unfitted pipeline is refused with what it raised."""
    with pytest.raises(InvalidInput, match="cannot score its own table"):
        describe(make_pipeline(StandardScaler(), LogisticRegression()), iris, "target")
