"""Estimated performance: right while inputs move, blind when their meaning does, and it says what it assumes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from judged_window import Judge, profile_with
from numpy.typing import NDArray
from scipy.special import expit

from loopwright.errors import NotFound
from loopwright.monitor.arrays import ArrayWindow
from loopwright.monitor.blocks import Plan
from loopwright.monitor.calibration import CalibrationCheck
from loopwright.monitor.estimated import ASSUMPTION, METRICS, Correction, EstimatedCheck, estimate
from loopwright.monitor.metrics import Labelled, Measures
from loopwright.monitor.reliability import reliability
from loopwright.records import Column, Signature, Task
from loopwright.registry.profile import CalibrationBin

PLAN = Plan.of(None)
CHECK = EstimatedCheck()
TWO = Signature((Column("x", "double"),), Task.classification, classes=(0, 1))
WEIGHTS = np.array([1.2, -0.8, 0.5])
Vector = NDArray[np.float64]


def world(
    random: np.random.Generator, n: int, *, mean: float = 0.0, spread: float = 1.0, drifted: bool = False
) -> tuple[Vector, NDArray[np.int64]]:
    """Return what an over-confident model gives for n rows, and their labels; with `drifted` an input means the opposite."""
    inputs = random.normal(mean, spread, (n, 3))
    true = inputs @ (WEIGHTS * np.array([-1, 1, 1]) if drifted else WEIGHTS)
    return expit(1.6 * inputs @ WEIGHTS), (random.random(n) < expit(true)).astype(np.int64)


def learned(random: np.random.Generator, n: int = 10_000) -> Correction:
    """Return the correction from so many labelled rows."""
    given, actual = world(random, n)
    bins = reliability(given, actual == 1)
    return Correction.learn(bins.predicted, bins.observed, bins.rows.astype(np.float64))


def real(given: Vector, actual: NDArray[np.int64]) -> Measures:
    """Return the metrics that labels show."""
    return Measures(Labelled(actual, (given > 0.5).astype(np.int64), np.c_[1 - given, given], (0, 1)))


SHIFTS: dict[str, dict[str, Any]] = {
    "none": {},
    "easier": {"spread": 1.5},
    "harder": {"spread": 0.5},
    "more": {"mean": 0.6},
    "fewer": {"mean": -1.0},
}
SHOWN = [name for name in METRICS if name != "f1_of_class"]


@pytest.mark.parametrize("shift", list(SHIFTS))
def test_right_under_covariate_shift(shift: str) -> None:
    """30,000 rows whose inputs have moved: accuracy and AUC are within 0.02 of the real ones, the others within 0.03."""
    random = np.random.default_rng(0)
    correction = learned(random)
    given, actual = world(random, 30_000, **SHIFTS[shift])
    truth = real(given, actual)
    for metric in SHOWN:
        found = estimate(metric, given, given > 0.5, correction)
        assert found is not None
        off = abs(found.value - truth.of(metric).value)
        assert off <= (0.02 if metric in {"accuracy", "roc_auc"} else 0.03), (metric, off)


def test_the_interval_holds_what_labels_show() -> None:
    """Of 200 windows of 1,000 rows, each with a correction from 5,000 rows, 90 to 99 % hold the real value."""
    random = np.random.default_rng(1)
    hits = dict.fromkeys(SHOWN, 0)
    for _ in range(200):
        correction = learned(random, 5000)
        given, actual = world(random, 1000)
        truth = real(given, actual)
        for metric in SHOWN:
            found = estimate(metric, given, given > 0.5, correction)
            assert found is not None
            hits[metric] += found.lower <= truth.of(metric).value <= found.upper
    assert all(0.9 <= count / 200 <= 0.99 for count in hits.values()), hits


def test_blind_to_concept_drift() -> None:
    """An input that means the opposite takes 0.39 of the AUC, and the estimate does not see any of it."""
    random = np.random.default_rng(2)
    correction = learned(random)
    given, actual = world(random, 30_000, drifted=True)
    found = estimate("roc_auc", given, given > 0.5, correction)
    assert found is not None
    assert found.value - real(given, actual).of("roc_auc").value > 0.3


@pytest.mark.parametrize("metric", list(METRICS))
def test_the_gradient_is_the_derivative(metric: str) -> None:
    """What the interval is made of, compared with differences."""
    random = np.random.default_rng(3)
    given = np.round(random.uniform(0.05, 0.95, 30), 1)
    p, said = random.uniform(0.1, 0.9, 30), given > 0.5
    found = METRICS[metric](p, said, given)
    assert found is not None
    for place in range(30):
        step = np.zeros(30)
        step[place] = 1e-6
        up, down = METRICS[metric](p + step, said, given), METRICS[metric](p - step, said, given)
        assert up is not None
        assert down is not None
        assert found[1][place] == pytest.approx((up[0] - down[0]) / 2e-6, abs=1e-7)


def test_certain_probabilities_give_the_metric_itself() -> None:
    """With probabilities of 0 and 1 that are right, the expected confusion matrix is the real one."""
    random = np.random.default_rng(4)
    actual = random.integers(0, 2, 400)
    score = np.where(random.random(400) < 0.8, actual, 1 - actual) * 0.6 + random.random(400) * 0.4
    truth = real(score, actual)
    for metric in SHOWN:
        found = METRICS[metric](actual.astype(np.float64), score > 0.5, score)
        assert found is not None
        assert found[0] == pytest.approx(truth.of(metric).value), metric


def test_the_other_class_is_the_mirror() -> None:
    """Precision and recall of the first of two classes, with the correction turned round."""
    random = np.random.default_rng(5)
    correction = learned(random)
    given, _ = world(random, 500)
    assert correction.mirrored().apply(1 - given) == pytest.approx(1 - correction.apply(given))


def test_what_is_not_defined_or_not_known() -> None:
    """A class that is never predicted has no precision; a metric without an estimate is named with those that have one."""
    given = np.full(50, 0.2)
    assert estimate("precision", given, given > 0.5) is None
    with pytest.raises(NotFound, match="accuracy"):
        estimate("acuracy", given, given > 0.5)


@pytest.fixture
def judge(tmp_path: Path) -> Iterator[Judge]:
    """Return a judge of a model whose AUC was 0.8, with a profile of how its probabilities held."""
    given, actual = world(np.random.default_rng(6), 5000)
    found = reliability(given, actual == 1)
    bins = tuple(
        CalibrationBin(float(x), float(y), int(n))
        for x, y, n in zip(found.predicted, found.observed, found.rows, strict=True)
    )
    made = Judge(
        tmp_path,
        metric="roc_auc",
        signature=TWO,
        profile=profile_with({"roc_auc": 0.82}, calibration=bins),
        performance={"metric": "roc_auc"},
    )
    yield made
    made.close()


def window(given: Vector, actual: NDArray[np.int64] | None = None) -> ArrayWindow:
    """Return a window of predictions, with labels or without."""
    return ArrayWindow(
        {},
        PLAN,
        prediction=(given > 0.5).astype(np.int64),
        actual=actual,
        probability=np.c_[1 - given, given],
        classes=(0, 1),
    )


def test_it_says_what_it_assumes_and_learned_from(judge: Judge) -> None:
    """From the profile until labelled windows have enough rows; then from those."""
    random = np.random.default_rng(7)
    first = judge.run(CHECK, window(world(random, 800)[0]))[0]
    assert first.detail["assumption"] == ASSUMPTION == "assumes P(y|x) unchanged"
    assert first.detail["corrected_by"] == "the profile"
    assert first.lower is not None
    assert first.upper is not None
    assert first.lower < first.value < first.upper
    for _ in range(2):
        judge.run(CalibrationCheck(), window(*world(random, 800)))
    assert judge.run(CHECK, window(world(random, 800)[0]))[0].detail["corrected_by"] == "labelled windows"


def test_quiet_windows_do_not_fire_and_a_harder_mix_does(judge: Judge) -> None:
    """At most 1 in 20 of quiet windows of 300 rows; inputs that say little are below the limit in nearly all."""
    random = np.random.default_rng(8)
    quiet = [CHECK.run(judge.context(window(world(random, 300)[0])))[0].fired for _ in range(200)]
    hard = [CHECK.run(judge.context(window(world(random, 3000, spread=0.4)[0])))[0].fired for _ in range(50)]
    assert np.mean(quiet) <= 0.05
    assert np.mean(hard) >= 0.9


@pytest.mark.parametrize("why", ["regression", "no probabilities", "few rows", "switched off", "metric"])
def test_no_estimate_where_there_can_be_none(tmp_path: Path, why: str) -> None:
    """No signal, and nothing fails."""
    signature = Signature(TWO.inputs, Task.regression) if why == "regression" else TWO
    judge = Judge(
        tmp_path,
        metric="average_precision" if why == "metric" else "accuracy",
        signature=signature,
        performance={"estimated": why != "switched off"},
    )
    given = world(np.random.default_rng(9), 20 if why == "few rows" else 500)[0]
    data = window(given)
    if why == "no probabilities":
        data = ArrayWindow({}, PLAN, prediction=(given > 0.5).astype(np.int64), classes=(0, 1))
    assert CHECK.run(judge.context(data)) == []
    judge.close()


def test_the_accuracy_of_many_classes(tmp_path: Path) -> None:
    """By how sure the model is of its first choice."""
    signature = Signature(TWO.inputs, Task.classification, classes=("a", "b", "c"))
    judge = Judge(tmp_path, signature=signature)
    random = np.random.default_rng(10)
    odds = np.exp(random.normal(0, 1.5, (2000, 3)))
    p = odds / odds.sum(axis=1, keepdims=True)
    names = np.array(["a", "b", "c"], object)
    data = ArrayWindow({}, PLAN, prediction=names[p.argmax(axis=1)], probability=p, classes=("a", "b", "c"))
    found = CHECK.run(judge.context(data))[0]
    judge.close()
    assert found.value == pytest.approx(p.max(axis=1).mean())
