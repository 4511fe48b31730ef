"""The proof that a compiled runtime agrees with the model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_iris
from sklearn.dummy import DummyClassifier

from loopwright import scoring
from loopwright.config import Project
from loopwright.errors import InvalidInput
from loopwright.records import Column, ModelVersion, Signature, Task
from loopwright.scoring import Scores
from loopwright.scoring.golden import compare
from loopwright.scoring.replay import UNSEEN, edge_rows, replay

NUMBERS = Signature((Column("a", "double"),), Task.regression)


@dataclass
class Formula:
    """A runtime that computes a formula of column `a`, and refuses some values of it."""

    formula: Callable[[NDArray[Any]], NDArray[Any]]
    refused: float | None = None

    def score(self, columns: Mapping[str, NDArray[Any]], rows: int) -> Scores:
        """Score by the formula."""
        if self.refused is not None and (columns["a"] == self.refused).any():
            raise InvalidInput(f"refused: {self.refused}")
        return Scores(np.asarray(self.formula(columns["a"]), dtype=np.float64))

    def close(self) -> None:
        """Hold nothing."""


def agreement(native: Formula, compiled: Formula, values: list[float]) -> str:
    """Return what keeps the compiled formula from serving."""
    return replay(native, compiled, {"a": np.array(values)}, NUMBERS).problem


def test_edge_rows_reach_every_columns_ends() -> None:
    """Each edge row is the first row with one value changed: an end, a gap, or a category never seen."""
    signature = Signature(
        (
            Column("x", "double", required=False),
            Column("n", "long"),
            Column("s", "string", required=False),
            Column("b", "boolean"),
            Column("t", "datetime", required=False),
            Column("e", "double", required=False),
        ),
        Task.regression,
    )
    columns = {
        "x": np.array([1.0, np.nan, 3.0]),
        "n": np.array([5, 6, 7]),
        "s": np.array(["p", "q", None], dtype=object),
        "b": np.array([True, False, True]),
        "t": np.array(["2020-01-01"] * 3, dtype="datetime64[us]"),
        "e": np.full(3, np.nan),
    }
    rows = edge_rows(columns, signature)
    assert rows["x"][:4].tolist() == [1.0, 3.0, 1e30, -1e30]
    assert np.isnan(rows["x"][4])
    assert rows["n"][5:9].tolist() == [5, 7, 10**12, -(10**12)]
    assert rows["s"][9:12].tolist() == [UNSEEN, "", None]
    assert rows["b"][12:14].tolist() == [True, False]
    assert np.isnat(rows["t"][14])
    assert np.isnan(rows["e"][15])
    assert {len(values) for values in rows.values()} == {16}
    assert rows["n"][9:].tolist() == [5] * 7


def test_edge_rows_lie_on_and_beside_thresholds() -> None:
    """A threshold gives three rows: its value and the next single-precision numbers, or the whole numbers around."""
    signature = Signature(
        (Column("x", "double"), Column("n", "long"), Column("b", "boolean")), Task.regression
    )
    columns = {"x": np.array([1.0, 2.0]), "n": np.array([5, 6]), "b": np.array([True, False])}
    plain = len(edge_rows(columns, signature)["x"])
    rows = {
        name: values[plain:]
        for name, values in edge_rows(columns, signature, [(0, 0.1), (1, 5.5), (1, 6.0), (2, 0.5)]).items()
    }
    single = np.float32(0.1)
    below, above = np.nextafter(single, np.float32(-1)), np.nextafter(single, np.float32(1))
    assert rows["x"][:3].tolist() == [0.1, float(below), float(above)]
    assert rows["n"][3:].tolist() == [5, 6, 5, 6, 7, 5]
    assert rows["n"][:3].tolist() == [5, 6, 5]


def test_agreement_is_relative_or_absolute() -> None:
    """A difference counts by the expected value's size, and by the spread of the predictions when that is small."""
    assert agreement(Formula(lambda a: a * 1e6), Formula(lambda a: a * 1e6 + 1), [1, 2]) == ""
    assert "differ by up to 0.002" in agreement(Formula(lambda a: a), Formula(lambda a: a + 0.001), [0, 1])
    assert agreement(Formula(lambda a: a), Formula(lambda a: a + 1e-6), [0, 1]) == ""
    assert "differ" in agreement(Formula(lambda a: a * 1e-6), Formula(lambda a: a * 1e-6 + 1e-9), [0, 1])
    assert agreement(Formula(lambda a: a * 0 + 3), Formula(lambda a: a * 0 + 3), [0, 1]) == ""


def test_a_runtime_that_fails_or_differs_anywhere_may_not_serve() -> None:
    """Failing on a real row, or answering an edge row that the model refuses, or the reverse, is a disagreement."""
    whole = Formula(lambda a: a)
    assert "fails on real rows" in agreement(whole, Formula(lambda a: a, refused=2), [1, 2])
    assert "not a number" not in agreement(whole, Formula(lambda a: np.where(a > 1, np.nan, a)), [1, 2])
    assert "inf" in agreement(whole, Formula(lambda a: np.where(a > 1, np.nan, a)), [1, 2])
    optional = Signature((Column("a", "double", required=False),), Task.regression)
    rows = {"a": np.array([1.0, 2.0])}

    def refusing_gaps(values: NDArray[Any]) -> NDArray[Any]:
        if np.isnan(values).any():
            raise InvalidInput("a gap")
        return values

    picky = Formula(refusing_gaps)
    assert "answers an edge row that the model refuses" in replay(picky, whole, rows, optional).problem
    assert "fails on an edge row" in replay(whole, picky, rows, optional).problem
    assert replay(picky, picky, rows, optional).problem == ""
    filled = Formula(lambda a: np.nan_to_num(a, nan=9.0))
    assert "edge rows" in replay(whole, filled, rows, optional).problem


def test_labels_and_shapes_are_compared() -> None:
    """A changed label is a flip whatever the probabilities say; other shapes are infinitely far."""
    labels = Scores(np.array(["a", "b"]), np.array([[0.5, 0.5], [0.4, 0.6]]))
    assert compare(labels, labels) == (0.0, 0)
    assert compare(labels, Scores(np.array(["b", "b"]), labels.probability)) == (0.0, 1)
    assert compare(labels, Scores(labels.prediction))[0] == np.inf
    assert compare(labels, Scores(np.array(["a"]), None)) == (np.inf, 2)
    assert compare(Scores(np.array([1, 2])), Scores(np.array([1, 3]))) == (0.0, 1)
    assert compare(Scores(np.empty(0)), Scores(np.empty(0))) == (0.0, 0)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_times_are_served_natively(project: Project, make: Callable[..., ModelVersion]) -> None:
    """A column of times keeps the model native, and the reason names the column."""
    frame = pd.DataFrame({"when": pd.date_range("2020-01-01", periods=20), "target": [0, 1] * 10})
    model = DummyClassifier().fit(frame[["when"]], frame["target"])
    scorer = scoring.load(scoring.prepare(project, "m", make(model, frame).version))
    scorer.verify()
    assert scorer.runtime == "native"
    assert "'when' holds times" in scorer.manifest.reason
    assert scorer.score({"when": np.array(["2021-05-05"], dtype="datetime64[us]")}).prediction.shape == (1,)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_model_whose_module_is_gone_is_named(project: Project, make: Callable[..., ModelVersion]) -> None:
    """A model of a module that cannot be imported names the module; a torn pickle is damage."""
    import cloudpickle

    from loopwright.errors import Damaged
    from loopwright.scoring.native import load_model

    frame = load_iris(as_frame=True).frame
    made = make(DummyClassifier().fit(frame.iloc[:, :4], frame["target"]), frame)
    path = Path(made.uri) / "model.pkl"
    path.write_bytes(cloudpickle.dumps(DummyClassifier()).replace(b"sklearn.dummy", b"sklearn.dammy"))
    with pytest.raises(InvalidInput, match=r"needs the module 'sklearn.dammy'"):
        load_model(Path(made.uri))
    path.write_bytes(b"torn")
    with pytest.raises(Damaged, match="cannot be loaded"):
        load_model(Path(made.uri))
    (Path(made.uri) / "MLmodel").unlink()
    with pytest.raises(Damaged, match="no MLflow model"):
        load_model(Path(made.uri))
