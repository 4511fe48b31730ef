"""Metrics, their intervals, and losses per row: as scikit-learn has them, covering what they say, in little time."""

import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import sklearn.metrics as reference
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from loopwright.config import WATCHED
from loopwright.errors import InvalidInput, NotFound
from loopwright.monitor.metrics import Labelled, Measures, loss_of_metric, losses, measure
from loopwright.monitor.ranking import average_precision, roc_auc
from loopwright.monitor.tables import labelled_rows

REGRESSION = ("mae", "mape", "median_absolute_error", "r2", "rmse")
CLASSIFICATION = tuple(sorted(set(WATCHED) - set(REGRESSION)))


def two_classes(random: np.random.Generator, n: int, shift: float = 0.0) -> Labelled:
    """Return rows of a model that is right about its probabilities; a lower `shift` makes the second class rarer."""
    p = 1 / (1 + np.exp(-random.normal(shift, 1.5, n)))
    actual = (random.random(n) < p).astype(np.int64)
    return Labelled(actual, (p > 0.5).astype(np.int64), np.c_[1 - p, p], (0, 1))


def rare_class(random: np.random.Generator, n: int) -> Labelled:
    """Return rows of which one in twelve is of the second class."""
    return two_classes(random, n, -3.0)


def four_classes(random: np.random.Generator, n: int) -> Labelled:
    """Return rows of four classes that are not equally frequent."""
    odds = np.exp(random.normal(0, 1.5, (n, 4)) + 0.4 * np.arange(4))
    p = odds / odds.sum(axis=1, keepdims=True)
    actual = np.minimum((p.cumsum(axis=1) < random.random((n, 1))).sum(axis=1), 3)
    names = np.array(["a", "b", "c", "d"], object)
    return Labelled(names[actual], names[p.argmax(axis=1)], p, tuple(names.tolist()))


def numbers(random: np.random.Generator, n: int) -> Labelled:
    """Return rows of a regression whose errors have no constant spread."""
    actual = 10 + random.gamma(4, 3, n)
    return Labelled(actual, actual + random.normal(0, 1, n) * (0.5 + random.random(n)))


def by_sklearn(metric: str, rows: Labelled) -> float:
    """Compute a metric with scikit-learn."""
    y, said, p = rows.actual.tolist(), rows.prediction.tolist(), rows.probability
    two = len(rows.classes) == 2
    average: dict[str, Any] = {"average": "binary" if two else "macro", "zero_division": np.nan}
    assert p is not None or metric in REGRESSION
    score: Any = None if p is None else p[:, 1] if two else p
    computed: dict[str, Callable[[], Any]] = {
        "accuracy": lambda: reference.accuracy_score(y, said),
        "average_precision": lambda: reference.average_precision_score(
            y if two else np.equal.outer(y, rows.classes), score
        ),
        "balanced_accuracy": lambda: reference.balanced_accuracy_score(y, said),
        "brier": lambda: reference.brier_score_loss(y, score, labels=list(rows.classes)),
        "f1": lambda: reference.f1_score(y, said, average="macro"),
        "log_loss": lambda: reference.log_loss(y, p, labels=list(rows.classes)),
        "mae": lambda: reference.mean_absolute_error(y, said),
        "mape": lambda: reference.mean_absolute_percentage_error(y, said),
        "median_absolute_error": lambda: reference.median_absolute_error(y, said),
        "precision": lambda: reference.precision_score(y, said, **average),
        "r2": lambda: reference.r2_score(y, said),
        "recall": lambda: reference.recall_score(y, said, **average),
        "rmse": lambda: reference.root_mean_squared_error(y, said),
        "roc_auc": lambda: reference.roc_auc_score(y, score, multi_class="ovr"),
    }
    return float(computed[metric]())


@pytest.mark.parametrize("metric", [name for name in CLASSIFICATION if name != "calibration_error"])
@pytest.mark.parametrize("make", [two_classes, four_classes])
def test_classification_as_scikit_learn_has_it(
    metric: str, make: Callable[[np.random.Generator, int], Labelled]
) -> None:
    """The same value to twelve digits, inside its own interval."""
    for seed, n in ((0, 60), (1, 500)):
        rows = make(np.random.default_rng(seed), n)
        found = measure(metric, rows)
        assert found.value == pytest.approx(by_sklearn(metric, rows), rel=1e-12)
        assert found.lower < found.value < found.upper


@pytest.mark.parametrize("metric", REGRESSION)
def test_regression_as_scikit_learn_has_it(metric: str) -> None:
    """The same value to twelve digits, inside its own interval."""
    rows = numbers(np.random.default_rng(0), 501)
    found = measure(metric, rows)
    assert found.value == pytest.approx(by_sklearn(metric, rows), rel=1e-12)
    assert found.lower < found.value < found.upper


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=8, max_size=60).filter(
        lambda rows: 2 <= sum(hit for hit, _ in rows) <= len(rows) - 2
    )
)
def test_rankings_with_ties(rows: list[tuple[bool, int]]) -> None:
    """Equal scores count as scikit-learn counts them, and the influences of all rows add up to nothing."""
    positive = np.array([hit for hit, _ in rows])
    score = np.array([value / 6 for _, value in rows])
    for compute, by in (
        (roc_auc, reference.roc_auc_score),
        (average_precision, reference.average_precision_score),
    ):
        found = compute(positive, score)
        assert found is not None
        assert found.value == pytest.approx(by(positive, score), abs=1e-12)
        assert float(found.influence.sum()) == pytest.approx(0, abs=1e-9)


def test_the_variance_of_the_auc_is_delongs() -> None:
    """As computed from all pairs of rows, in the formulas of DeLong, DeLong and Clarke-Pearson."""
    random = np.random.default_rng(4)
    positive = random.random(80) < 0.4
    score = np.round(random.normal(positive * 0.8, 1), 1)
    won = np.heaviside(score[positive][:, None] - score[~positive][None, :], 0.5)
    variance = (
        won.mean(axis=1).var(ddof=1) / positive.sum() + won.mean(axis=0).var(ddof=1) / (~positive).sum()
    )
    found = roc_auc(positive, score)
    assert found is not None
    assert found.variance == pytest.approx(variance, rel=1e-10)


def test_the_influence_on_average_precision_is_its_derivative() -> None:
    """A row that counts a little more changes the value by its influence: scikit-learn with weights says the same."""
    random = np.random.default_rng(5)
    positive = random.random(40) < 0.3
    score = np.round(random.random(40), 1)
    found = average_precision(positive, score)
    assert found is not None
    for place in range(40):
        more, less = np.ones(40), np.ones(40)
        more[place], less[place] = 1 + 1e-4, 1 - 1e-4
        up, down = (
            reference.average_precision_score(positive, score, sample_weight=weights)
            for weights in (more, less)
        )
        assert found.influence[place] == pytest.approx((up - down) / 2e-4, abs=1e-6)


SIMULATIONS = [(two_classes, CLASSIFICATION), (four_classes, CLASSIFICATION), (numbers, REGRESSION)]


@pytest.mark.parametrize(("make", "metrics"), SIMULATIONS)
def test_intervals_cover_the_truth(
    make: Callable[[np.random.Generator, int], Labelled], metrics: tuple[str, ...]
) -> None:
    """Of 800 windows of 400 rows, 92 to 98 % have the true value inside their interval, for every metric.

    The calibration error of a model that is right is 0, at the end of its interval, which then covers 97.5 %.
    """
    truth = Measures(make(np.random.default_rng(99), 1_000_000))
    values = {name: 0.0 if name == "calibration_error" else truth.of(name).value for name in metrics}
    random = np.random.default_rng(7)
    hits = dict.fromkeys(metrics, 0)
    for _ in range(800):
        measures = Measures(make(random, 400))
        for name, value in values.items():
            found = measures.of(name)
            hits[name] += found.lower <= value <= found.upper
    shares = {name: count / 800 for name, count in hits.items()}
    assert all(
        0.92 <= share <= (0.99 if name == "calibration_error" else 0.98) for name, share in shares.items()
    )


def test_intervals_cover_where_a_class_is_rare() -> None:
    """With about 25 rows of the rare class in a window of 300, F1 of either kind is still covered."""
    metrics = ("f1", "balanced_accuracy", "recall", "roc_auc", "average_precision")
    whole = Measures(rare_class(np.random.default_rng(99), 1_000_000))
    values = {name: whole.of(name).value for name in metrics}
    random = np.random.default_rng(8)
    hits = dict.fromkeys(metrics, 0)
    for _ in range(600):
        measures = Measures(rare_class(random, 300))
        for name in metrics:
            found = measures.of(name)
            hits[name] += found.lower <= values[name] <= found.upper
    assert all(0.92 <= count / 600 <= 0.98 for count in hits.values()), hits


def test_a_higher_level_is_a_wider_interval() -> None:
    """For every metric."""
    for make, metrics in SIMULATIONS:
        measures = Measures(make(np.random.default_rng(3), 300))
        for name in metrics:
            narrow, wide = measures.of(name, 0.8), measures.of(name, 0.999)
            assert wide.lower <= narrow.lower <= narrow.upper <= wide.upper, name
            assert wide.upper - wide.lower > narrow.upper - narrow.lower, name


def test_a_hundred_thousand_rows_take_no_time() -> None:
    """All metrics of a classification and of a regression over 100,000 rows in 0.3 s, the best of three."""
    classes, values = (
        two_classes(np.random.default_rng(0), 100_000),
        numbers(np.random.default_rng(0), 100_000),
    )
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        for rows, metrics in ((classes, CLASSIFICATION), (values, REGRESSION)):
            measures = Measures(rows)
            for name in metrics:
                measures.of(name)
        taken.append(time.perf_counter() - began)
    assert min(taken) <= 0.3


def test_accuracy_has_a_wilson_interval() -> None:
    """8 of 10: Wilson's 95 % interval is 0.490 to 0.943."""
    rows = Labelled(np.ones(10), np.array([1.0] * 8 + [0.0] * 2))
    found = measure("accuracy", rows)
    assert found.value == pytest.approx(0.8)
    assert (found.lower, found.upper) == pytest.approx((0.490, 0.943), abs=5e-4)


def test_nothing_wrong_is_not_certainty() -> None:
    """Where all rows are right the upper end is 1 and the lower one is not."""
    y = np.array([0, 1] * 20)
    rows = Labelled(y, y, np.c_[1.0 - y, 1.0 * y], (0, 1))
    for name in (
        "accuracy",
        "balanced_accuracy",
        "f1",
        "precision",
        "recall",
        "roc_auc",
        "average_precision",
    ):
        found = measure(name, rows)
        assert (found.value, found.upper) == (1, 1)
        assert 0.5 < found.lower < 1, name


def test_the_positive_class_is_the_second_or_the_declared_one() -> None:
    """Precision, recall and F1 of a class; F1 is the mean over classes unless one is declared."""
    actual = np.array(["no", "no", "no", "yes", "yes"], object)
    said = np.array(["no", "yes", "no", "yes", "no"], object)
    rows = Labelled(actual, said, None, ("no", "yes"))
    assert measure("recall", rows).value == pytest.approx(1 / 2)
    assert measure("recall", rows, positive="no").value == pytest.approx(2 / 3)
    assert measure("precision", rows, positive="no").value == pytest.approx(2 / 3)
    assert measure("f1", rows, positive="yes").value == pytest.approx(
        reference.f1_score(actual.tolist(), said.tolist(), pos_label="yes")
    )
    assert measure("f1", rows).value == pytest.approx((1 / 2 + 2 / 3) / 2)
    with pytest.raises(InvalidInput, match="'maybe' is none"):
        measure("recall", rows, positive="maybe")
    assert np.isnan(measure("recall", Labelled(actual, said), positive="maybe").value)


def test_a_class_that_the_model_does_not_know_is_wrong() -> None:
    """It costs as much as can be in losses and scores, counts as a class never found, and is not positive in a ranking."""
    p = np.array([[0.9, 0.1], [0.2, 0.8], [0.1, 0.9], [0.6, 0.4], [0.7, 0.3]])
    rows = Labelled(np.array([0, 1, 7, 0, 1]), np.array([0, 1, 1, 0, 0]), p, (0, 1))
    assert losses("log_loss", rows)[2] == pytest.approx(-np.log(1e-15))
    assert measure("accuracy", rows).value == pytest.approx(3 / 5)
    assert measure("balanced_accuracy", rows).value == pytest.approx((1 + 1 / 2 + 0) / 3)
    assert measure("roc_auc", rows).value == pytest.approx(reference.roc_auc_score([0, 1, 0, 0, 1], p[:, 1]))
    # The probability of 0 that it was given is off by 1.
    squares = [0.01, 0.04, (0.1**2 + 0.9**2 + 1) / 2, 0.16, 0.49]
    assert measure("brier", rows).value == pytest.approx(np.mean(squares))


def test_what_the_rows_do_not_define_is_not_a_number() -> None:
    """One class only, no spread, labels of 0: no value is made up, and nothing warns."""
    ones = Labelled(np.ones(20, np.int64), np.ones(20, np.int64), np.full((20, 2), 0.5), (0, 1))
    zeros = Labelled(np.zeros(20), np.arange(20.0))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.isnan(measure("roc_auc", ones).value)
        assert np.isnan(measure("precision", ones, positive=0).value)
        assert np.isnan(measure("r2", zeros).value)
        assert np.isnan(measure("mape", zeros).value)
        assert measure("rmse", Labelled(np.ones(5), np.ones(5))).upper == 0


def test_mape_leaves_labels_of_zero_out() -> None:
    """A share of nothing is no share: scikit-learn gives 10**15 there."""
    rows = Labelled(np.array([0.0, 2.0, 4.0]), np.array([1.0, 1.0, 5.0]))
    assert measure("mape", rows).value == pytest.approx((1 / 2 + 1 / 4) / 2)


@pytest.mark.parametrize(("n", "ranks"), [(100, (39, 60)), (400, (179, 220))])
def test_the_interval_of_a_median_is_two_of_its_values(n: int, ranks: tuple[int, int]) -> None:
    """Of values 0 to n - 1, the ranks that tables of the binomial distribution give."""
    values: NDArray[np.float64] = np.random.default_rng(0).permutation(n).astype(np.float64)
    found = measure("median_absolute_error", Labelled(values, np.zeros(n)))
    assert (found.lower, found.upper) == ranks


def test_log_loss_uses_the_probability_of_what_was_true() -> None:
    """A class the model does not know costs the most, not an error."""
    rows = Labelled(
        np.array([0, 1, 7]), np.array([0, 1, 1]), np.array([[0.5, 0.5], [0.2, 0.8], [0.1, 0.9]]), (0, 1)
    )
    assert losses("log_loss", rows) == pytest.approx([-np.log(0.5), -np.log(0.8), -np.log(1e-15)])
    with pytest.raises(InvalidInput, match="no probabilities"):
        losses("log_loss", Labelled(np.array([0]), np.array([0])))


@pytest.mark.parametrize("metric", ["roc_auc", "average_precision", "brier", "log_loss", "calibration_error"])
def test_what_needs_probabilities_says_so(metric: str) -> None:
    """A model without them is told what else to use."""
    with pytest.raises(InvalidInput, match="no probabilities"):
        measure(metric, Labelled(np.array([0, 1]), np.array([0, 1])))


def test_labels_that_are_no_numbers() -> None:
    """A text among the labels of a regression is named."""
    rows = Labelled(np.array([1.0, "many"], object), np.array([1.0, 2.0]))
    with pytest.raises(InvalidInput, match="'many' is no number"):
        measure("rmse", rows)


def test_unknown_names_are_answered_with_the_known() -> None:
    """A typo names the nearest metric or loss."""
    with pytest.raises(NotFound, match="rmse"):
        loss_of_metric("rmsee")
    with pytest.raises(NotFound, match="roc_auc"):
        measure("roc_auk", Labelled(np.ones(3), np.ones(3)))
    with pytest.raises(NotFound, match="absolute_error"):
        losses("absolut_error", Labelled(np.array([1.0]), np.array([1.0])))


def test_rows_with_several_outputs_are_not_judged() -> None:
    """A label beside a list of predictions judges nothing; such rows are left out and nothing fails."""
    table = pa.table(
        {"prediction": [[1.0, 2.0], [3.0, 4.0]], "actual": [1.5, None], "version": [1, 1], "x": ["a", None]}
    )
    assert len(labelled_rows(table, version=1)) == 0
    one = table.set_column(0, "prediction", pa.array([1.0, 2.0]))
    assert labelled_rows(one).prediction.tolist() == [1.0]
