"""Metrics, their intervals, and losses per row."""

import numpy as np
import pytest

from loopwright.errors import InvalidInput, NotFound
from loopwright.monitor.metrics import Labelled, loss_of_metric, losses, measure


def test_accuracy_has_a_wilson_interval() -> None:
    """8 of 10: Wilson's 95 % interval is 0.490 to 0.943."""
    rows = Labelled(np.ones(10), np.array([1.0] * 8 + [0.0] * 2))
    found = measure("accuracy", rows)
    assert found.value == pytest.approx(0.8)
    assert (found.lower, found.upper) == pytest.approx((0.490, 0.943), abs=5e-4)


def test_errors_of_a_regression() -> None:
    """RMSE and MAE of known differences, inside their intervals."""
    rows = Labelled(np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 2.0, 5.0, 8.0]))
    assert measure("mae", rows).value == pytest.approx(1.5)
    rmse = measure("rmse", rows)
    assert rmse.value == pytest.approx(np.sqrt(5.0))
    assert rmse.lower <= rmse.value <= rmse.upper


def test_intervals_cover() -> None:
    """The 95 % interval of the MAE holds the true value in about 95 % of samples."""
    random = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        found = measure("mae", Labelled(random.normal(size=100), np.zeros(100)))
        hits += found.lower <= np.sqrt(2 / np.pi) <= found.upper
    assert 0.92 <= hits / 400 <= 0.98


def test_macro_f1() -> None:
    """The mean over classes of F1."""
    rows = Labelled(np.array(["a", "a", "b", "b"], object), np.array(["a", "b", "b", "b"], object))
    assert measure("f1", rows).value == pytest.approx((2 / 3 + 4 / 5) / 2)


def test_log_loss_uses_the_probability_of_what_was_true() -> None:
    """A class the model does not know costs the most, not an error."""
    rows = Labelled(
        np.array([0, 1, 7]), np.array([0, 1, 1]), np.array([[0.5, 0.5], [0.2, 0.8], [0.1, 0.9]]), (0, 1)
    )
    assert losses("log_loss", rows) == pytest.approx([-np.log(0.5), -np.log(0.8), -np.log(1e-15)])
    with pytest.raises(InvalidInput, match="no probabilities"):
        losses("log_loss", Labelled(np.array([0]), np.array([0])))


def test_unknown_names_are_answered_with_the_known() -> None:
    """A typo names the nearest metric or loss."""
    with pytest.raises(NotFound, match="rmse"):
        loss_of_metric("rmsee")
    with pytest.raises(NotFound, match="absolute_error"):
        losses("absolut_error", Labelled(np.array([1.0]), np.array([1.0])))


def test_rows_with_several_outputs_are_not_judged() -> None:
    """A label beside a list of predictions judges nothing; such rows are left out and nothing fails."""
    import pyarrow as pa

    from loopwright.monitor.tables import column, labelled_rows

    table = pa.table(
        {"prediction": [[1.0, 2.0], [3.0, 4.0]], "actual": [1.5, None], "version": [1, 1], "x": ["a", None]}
    )
    assert column(table, "prediction").tolist() == [[1.0, 2.0], [3.0, 4.0]]
    assert column(table, "x").tolist() == ["a", None]
    assert len(labelled_rows(table, version=1)) == 0
    one = table.set_column(0, "prediction", pa.array([1.0, 2.0]))
    assert labelled_rows(one).prediction.tolist() == [1.0]
