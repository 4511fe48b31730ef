"""Calibration: what a right model shows by chance is no error; what is off by more than a floor is found."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from judged_window import Judge, profile_with
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.calibration import calibration_curve

from loopwright.monitor.arrays import ArrayWindow
from loopwright.monitor.blocks import Plan
from loopwright.monitor.calibration import CalibrationCheck
from loopwright.monitor.reliability import reliability, spiegelhalter
from loopwright.records import Column, Signature, Task
from loopwright.registry.profile import CalibrationBin

PLAN = Plan.of(None)
CHECK = CalibrationCheck()
NUMBERS = Signature((Column("x", "double"),), Task.regression)
Vector = NDArray[np.float64]


@pytest.fixture
def judge(tmp_path: Path) -> Iterator[Judge]:
    """Return a judge of a classification."""
    made = Judge(tmp_path)
    yield made
    made.close()


def window(
    given: Vector, true: Vector, random: np.random.Generator, **more: NDArray[np.object_]
) -> ArrayWindow:
    """Return a window of rows that were given a probability and have another."""
    actual = (random.random(len(given)) < true).astype(np.int64)
    return ArrayWindow(
        more,
        PLAN,
        prediction=(given > 0.5).astype(np.int64),
        actual=actual,
        probability=np.c_[1 - given, given],
        classes=(0, 1),
        segments=tuple(more),
    )


def usual(random: np.random.Generator, n: int) -> Vector:
    """Return probabilities all over 0 to 1."""
    return np.asarray(expit(random.normal(0, 1.5, n)))


def rare(random: np.random.Generator, n: int) -> Vector:
    """Return probabilities near 0."""
    return np.asarray(expit(random.normal(-4, 1.5, n)))


def sure(random: np.random.Generator, n: int) -> Vector:
    """Return probabilities near 0 and near 1."""
    return np.asarray(expit(random.normal(0, 5, n)))


@pytest.mark.parametrize("make", [usual, rare, sure])
@pytest.mark.parametrize("n", [100, 1000, 10_000])
def test_a_model_that_is_right_fires_in_one_window_of_a_hundred(
    judge: Judge, make: Callable[[np.random.Generator, int], Vector], n: int
) -> None:
    """Whatever the size of the window and the spread of the scores: at most 3 % of 300 windows."""
    random = np.random.default_rng(0)
    fired = 0
    for _ in range(300):
        p = make(random, n)
        fired += CHECK.run(judge.context(window(p, p, random)))[0].fired
    assert fired / 300 <= 0.03


def test_what_is_off_is_found(judge: Judge) -> None:
    """Ten points too low, or much too sure, in 1,000 labelled rows: found in 95 % of the windows."""
    random = np.random.default_rng(1)
    found = []
    for _ in range(200):
        p = usual(random, 1000)
        too_low = CHECK.run(judge.context(window(p, np.minimum(p + 0.1, 1), random)))[0]
        too_sure = CHECK.run(judge.context(window(expit(1.6 * np.log(p / (1 - p))), p, random)))[0]
        assert too_low.limit == 0.03
        found.append((too_low.fired, too_sure.fired))
    assert np.mean(found, axis=0).min() >= 0.95


def test_a_little_off_in_many_rows_is_none_of_it(judge: Judge) -> None:
    """One point off is significant in 200,000 rows, and below the floor."""
    random = np.random.default_rng(2)
    p = random.uniform(0.1, 0.9, 200_000)
    found = CHECK.run(judge.context(window(p, p + 0.01, random)))[0]
    assert found.detail["p"] < 1e-6
    assert not found.fired
    assert found.value == pytest.approx(0.01, abs=0.004)


def test_the_error_has_no_bias_and_its_interval_covers() -> None:
    """Twenty points of 400 rows: the mean of what is measured is what is true, and 95 % of the intervals hold it."""
    random = np.random.default_rng(3)
    found = []
    for _ in range(500):
        p = random.uniform(0.05, 0.75, 400)
        found.append(reliability(p, random.random(400) < p + 0.2).error())
    assert np.mean([one.value for one in found]) == pytest.approx(0.2, abs=0.005)
    assert 0.92 <= np.mean([one.lower <= 0.2 <= one.upper for one in found]) <= 0.98


def test_bins_are_those_of_scikit_learn() -> None:
    """With as many rows in each, means and shares are those of `calibration_curve`."""
    random = np.random.default_rng(4)
    p = usual(random, 1000)
    y = random.random(1000) < p
    found = reliability(p, y)
    observed, predicted = calibration_curve(y, p, n_bins=10, strategy="quantile")
    assert len(found.rows) == 10
    assert found.predicted == pytest.approx(predicted, abs=2e-3)
    assert found.observed == pytest.approx(observed, abs=2e-2)
    assert found.rows.sum() == 1000


def test_equal_scores_are_in_one_bin() -> None:
    """Scores of three values make at most three bins; one value makes one, and nothing fails."""
    p = np.repeat([0.2, 0.5, 0.9], 400)
    found = reliability(p, np.random.default_rng(5).random(1200) < p)
    assert found.predicted.tolist() == pytest.approx([0.2, 0.5, 0.9])
    assert len(reliability(np.full(500, 0.3), np.zeros(500, bool)).rows) == 1
    assert reliability(np.zeros(500), np.zeros(500, bool)).p_value() == pytest.approx(1)
    assert reliability(np.zeros(500), np.ones(500, bool)).p_value() < 1e-9


def test_spiegelhalters_z_is_standard_normal() -> None:
    """Of a model that is right; of one that is too sure it is positive."""
    random = np.random.default_rng(6)
    scores = []
    for _ in range(500):
        p = usual(random, 300)
        scores.append(spiegelhalter(p, random.random(300) < p))
    assert np.mean(scores) == pytest.approx(0, abs=0.15)
    assert np.std(scores) == pytest.approx(1, abs=0.1)
    p = usual(random, 3000)
    assert spiegelhalter(expit(2 * np.log(p / (1 - p))), random.random(3000) < p) > 5


def test_segments_and_the_plot(tmp_path: Path) -> None:
    """The segment that is off fires and the other does not; each has its bins, and what was known at registration."""
    bins = (CalibrationBin(0.25, 0.25, 500), CalibrationBin(0.75, 0.75, 500))
    judge = Judge(tmp_path, profile=profile_with({}, calibration=bins), segments=["city"])
    random = np.random.default_rng(7)
    p = usual(random, 4000)
    city = np.array(["oslo", "rome"], object)[random.integers(0, 2, 4000)]
    true = np.where(city == "rome", np.clip(p - 0.15, 0, 1), p)
    found = {one.segment: one for one in CHECK.run(judge.context(window(p, true, random, city=city)))}
    judge.close()
    assert {name: one.fired for name, one in found.items()} == {
        "": True,
        "city=rome": True,
        "city=oslo": False,
    }
    assert sum(one["rows"] for one in found[""].detail["bins"]) == 4000
    assert found[""].detail["trained"] == pytest.approx(0, abs=0.01)
    assert found[""].detail["of"] == "1"


def test_more_than_two_classes_by_the_likeliest(judge: Judge) -> None:
    """A model that says 0.7 of its first choice and is right in half of the rows."""
    random = np.random.default_rng(8)
    said = random.integers(0, 3, 900)
    p = np.full((900, 3), 0.15)
    p[np.arange(900), said] = 0.7
    actual = np.where(random.random(900) < 0.5, said, (said + 1) % 3)
    data = ArrayWindow({}, PLAN, prediction=said, actual=actual, probability=p, classes=(0, 1, 2))
    found = CHECK.run(judge.context(data))[0]
    assert found.fired
    assert found.value == pytest.approx(0.2, abs=0.05)


@pytest.mark.parametrize(("bias", "fires"), [(0.0, False), (0.5, False), (3.0, True), (-3.0, True)])
def test_the_bias_of_a_regression(tmp_path: Path, bias: float, fires: bool) -> None:
    """Labels with a spread of 10: a mean error of 3 is 0.3 of it; of 0.5, significant or not, is below the floor."""
    judge = Judge(tmp_path, metric="rmse", signature=NUMBERS)
    random = np.random.default_rng(9)
    actual = random.normal(50, 10, 5000)
    said = actual + bias + random.normal(0, 4, 5000)
    found = CHECK.run(judge.context(ArrayWindow({}, PLAN, prediction=said, actual=actual)))[0]
    judge.close()
    assert found.subject == "bias"
    assert found.fired is fires
    assert found.value == pytest.approx(bias / 10, abs=0.02)
    assert found.detail["mean_error"] == pytest.approx(bias, abs=0.2)


def test_what_cannot_be_judged_is_left_out(judge: Judge) -> None:
    """No probabilities, or fewer than 100 labels: no signal."""
    random = np.random.default_rng(10)
    said = random.integers(0, 2, 500)
    assert CHECK.run(judge.context(ArrayWindow({}, PLAN, prediction=said, actual=said, classes=(0, 1)))) == []
    p = usual(random, 99)
    assert CHECK.run(judge.context(window(p, p, random))) == []
