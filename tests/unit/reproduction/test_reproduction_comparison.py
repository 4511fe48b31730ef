"""What counts as the same, and which cause follows from what differs."""

import math

import pytest

from loopwright.records import DatasetRef, StepRun
from loopwright.reproduction.compare import (
    Comparison,
    compare_datasets,
    compare_metrics,
    compare_steps,
    first_unsteady,
)
from loopwright.reproduction.verdict import ModelCheck

SAME = ModelCheck("wine/1", 10, 0.0, 0, ok=True)


def step(name: str, *outputs: str, inputs: tuple[str, ...] = (), code: str = "c") -> StepRun:
    """Return one call of a step."""
    return StepRun(name, code, "completed", 1.0, inputs, outputs)


def data(name: str, digest: str) -> DatasetRef:
    """Return a dataset."""
    return DatasetRef(name, digest, 1, ("a",), "")


@pytest.mark.parametrize(
    ("then", "now", "difference", "ok"),
    [
        (0.5, 0.5, 0.0, True),
        (0.0, 0.0, 0.0, True),
        (math.nan, math.nan, 0.0, True),
        (math.inf, math.inf, 0.0, True),
        (1.0, 1.0 + 1e-9, 1e-9, True),
        (1e12, 1e12 + 1, 1e-12, True),
        (1.0, 1.001, 0.001 / 1.001, False),
        (0.0, 1e-12, 1.0, False),
        (-1.0, 1.0, 2.0, False),
        (1.0, math.nan, None, False),
        (1.0, math.inf, None, False),
        (math.inf, -math.inf, None, False),
    ],
)
def test_metrics_are_compared_relatively(then: float, now: float, difference: float | None, ok: bool) -> None:
    """Both ways round the difference is the same, in shares of the larger of the two."""
    for pair in ((then, now), (now, then)):
        (found,) = compare_metrics({"m": pair[0]}, {"m": pair[1]}, tolerance=1e-6)
        assert found.ok is ok
        assert found.difference == (None if difference is None else pytest.approx(difference, rel=1e-6))


def test_a_metric_of_one_side_alone_differs_unless_it_is_ignored() -> None:
    """What one of the two runs did not log is no match; metrics of the machine are none of the run's."""
    then, now = {"a": 1.0, "system/cpu": 3.0, "seconds": 4.0}, {"b": 1.0, "seconds": 5.0}
    found = compare_metrics(then, now, tolerance=1e-6, ignore=["seconds"])
    assert [(one.name, one.then, one.now, one.ok) for one in found] == [
        ("a", 1.0, None, False),
        ("b", None, 1.0, False),
    ]


def test_datasets_of_one_name_pair_up_by_content() -> None:
    """The order in which they were read does not matter; what has no partner is shown beside what has none."""
    found = compare_datasets(
        [data("a", "1"), data("a", "2"), data("b", "3")], [data("a", "2"), data("a", "4")]
    )
    assert [(one.name, one.then, one.now, one.ok) for one in found] == [
        ("a", "2", "2", True),
        ("a", "1", "4", False),
        ("b", "3", "", False),
    ]


@pytest.mark.parametrize(
    ("now", "problem"),
    [
        ([step("s", "x"), step("s", "y")], ""),
        ([step("s", "y"), step("s", "x")], ""),
        ([step("s", "x")], "calls"),
        ([step("s", "x", code="d"), step("s", "z")], "code"),
        ([step("s", "x", inputs=("i",)), step("s", "z")], "inputs"),
        ([step("s", "x"), step("s", "x")], "outputs"),
        ([], "calls"),
    ],
)
def test_the_first_difference_of_a_step_is_named(now: list[StepRun], problem: str) -> None:
    """Calls before code before inputs before outputs, whatever the order in which calls ended."""
    (found,) = compare_steps([step("s", "x"), step("s", "y")], now)
    assert (found.problem, found.calls, found.tables) == (problem, 2, 2)


def test_a_step_is_unsteady_when_two_repetitions_differ_in_it() -> None:
    """The first one by its first call; values without a hash say nothing."""
    one = [("a", "1"), ("b", ""), ("c", "2"), ("a", "3")]
    assert first_unsteady(one, one[::-1]) == ""
    assert first_unsteady(one, [("a", "1"), ("b", ""), ("c", "9"), ("a", "3")]) == "c"
    assert first_unsteady(one, [("a", "1"), ("b", ""), ("c", "9"), ("a", "8")]) == "a"


def test_metrics_and_models_decide_before_tables() -> None:
    """A table may differ, by a time stamp for instance, while everything that counts is within the tolerance."""
    same = compare_metrics({"m": 1.0}, {"m": 1.0}, tolerance=1e-6)
    close = compare_metrics({"m": 1.0}, {"m": 1.0000001}, tolerance=1e-6)
    far = compare_metrics({"m": 1.0}, {"m": 1.1}, tolerance=1e-6)
    steady = compare_steps([step("s", "x")], [step("s", "x")])
    moved = compare_steps([step("s", "x")], [step("s", "y")])
    assert Comparison(same, (SAME,), steady, ()).outcome == "reproduced"
    assert Comparison(same, (SAME,), moved, ()).outcome == "within tolerance"
    assert Comparison(close, (SAME,), steady, ()).outcome == "within tolerance"
    assert Comparison(far, (SAME,), steady, ()).outcome == "not reproduced"
    assert Comparison((), (), steady, ()).outcome == "reproduced"
    assert Comparison((), (), moved, ()).outcome == "not reproduced"
    flipped = ModelCheck("wine/1", 10, 0.2, 1, ok=False)
    assert Comparison(same, (flipped,), steady, ()).outcome == "not reproduced"


def test_the_cause_is_the_first_thing_that_differs() -> None:
    """Code before chance before surroundings before data; what is left is unknown and named as such."""
    far = compare_metrics({"m": 1.0}, {"m": 1.1}, tolerance=1e-6)
    code = compare_steps([step("s", "x")], [step("s", "y", code="d")])
    moved = compare_steps([step("a", "x"), step("b", "z")], [step("a", "x"), step("b", "y")])
    steady = compare_steps([step("s", "x")], [step("s", "x")])
    assert Comparison(far, (), code, ()).why("s", ["numpy"])[0] == "code"
    cause, reason = Comparison(far, (), moved, ()).why("b", ["numpy"])
    assert cause == "nondeterministic step"
    assert "step b" in reason
    cause, reason = Comparison(far, (), moved, ()).why("", ["Python is 3.12"])
    assert cause == "environment"
    assert "Python is 3.12" in reason
    cause, reason = Comparison(far, (), moved, ()).why("", [])
    assert cause == "data"
    assert "step b" in reason
    cause, reason = Comparison(far, (), steady, ()).why("", [])
    assert cause == "unknown"
    assert "metric m" in reason
