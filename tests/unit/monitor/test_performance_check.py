"""Real performance: fires on a real loss, hardly ever by chance, and says for whom it is worst."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from judged_window import Judge, profile_with
from numpy.typing import NDArray

from loopwright.monitor.arrays import ArrayWindow
from loopwright.monitor.base import Incomplete
from loopwright.monitor.blocks import Plan
from loopwright.monitor.performance import PerformanceCheck
from loopwright.records import Signal

PLAN = Plan.of(None)
CHECK = PerformanceCheck()


def answered(
    random: np.random.Generator,
    n: int,
    accuracy: float | NDArray[np.float64],
    *,
    labelled: float = 1.0,
    **inputs: NDArray[Any],
) -> ArrayWindow:
    """Return a window of a two-class model of which a share is right and a share has labels."""
    said = random.integers(0, 2, n)
    actual = np.where(random.random(n) < accuracy, said, 1 - said).astype(np.float64)
    actual[random.random(n) >= labelled] = np.nan
    return ArrayWindow(inputs, PLAN, prediction=said, actual=actual, classes=(0, 1), segments=tuple(inputs))


@pytest.fixture
def judge(tmp_path: Path) -> Iterator[Judge]:
    """Return a judge of a model that was 0.9 accurate when it was registered, 0.88 being too bad."""
    made = Judge(
        tmp_path,
        profile=profile_with({"accuracy": 0.9}),
        performance={"worse_than": 0.88, "also": ["f1", "recall", "roc_auc"]},
        segments=["city"],
    )
    yield made
    made.close()


def of_all(signals: list[Signal]) -> Signal:
    """Return the signal of the watched metric over all rows."""
    return next(one for one in signals if one.subject == "accuracy" and not one.segment)


def test_a_loss_of_five_points_is_found(judge: Judge) -> None:
    """1,000 labels a window: 0.9 falls to 0.85 with the limit at 0.88; 90 % of the windows fire, of quiet ones 2 %.

    The interval alone would fire in some 75 % of them: the earlier windows tell the rest.
    """
    random = np.random.default_rng(0)
    quiet = [of_all(judge.run(CHECK, answered(random, 1000, 0.9))) for _ in range(200)]
    bad = [of_all(CHECK.run(judge.context(answered(random, 1000, 0.85)))) for _ in range(300)]
    power = np.mean([one.fired for one in bad])
    false = np.mean([one.fired for one in quiet])
    by_interval = np.mean([one.detail.get("rule") == "interval" for one in bad])
    print(f"power {power:.3f}, by the interval alone {by_interval:.3f}, false alarms {false:.3f}")
    assert power >= 0.9
    assert false <= 0.02
    assert {one.detail["rule"] for one in bad if one.fired} == {"interval", "worse than earlier windows"}


@pytest.mark.parametrize(("trained", "limit", "now"), [(0.95, 0.93, 0.9), (0.98, 0.96, 0.93)])
def test_without_a_past_the_interval_finds_it(
    tmp_path: Path, trained: float, limit: float, now: float
) -> None:
    """A good model that loses five points fires in 90 % of windows of 1,000 labels from the first one on."""
    judge = Judge(tmp_path, profile=profile_with({"accuracy": trained}), performance={"worse_than": limit})
    random = np.random.default_rng(1)
    fired = [of_all(CHECK.run(judge.context(answered(random, 1000, now)))).fired for _ in range(300)]
    judge.close()
    assert np.mean(fired) >= 0.9


@pytest.mark.parametrize("n", [30, 100, 1000])
def test_at_the_limit_chance_hardly_ever_fires(judge: Judge, n: int) -> None:
    """A model exactly at its limit, in windows of any size, fires in at most 5 % of them."""
    random = np.random.default_rng(2)
    fired = [of_all(judge.run(CHECK, answered(random, n, 0.88))).fired for _ in range(300)]
    assert np.mean(fired) <= 0.05


def test_what_a_signal_says(judge: Judge) -> None:
    """The interval, what came without a label, where the limit is from, the worst segment, and metrics beside it."""
    random = np.random.default_rng(3)
    city = np.array(["oslo", "rome"], object)[random.integers(0, 2, 2000)]
    rate = np.where(city == "rome", 0.6, 0.95)
    signals = CHECK.run(judge.context(answered(random, 2000, rate, labelled=0.5, city=city)))
    found = of_all(signals)
    assert found.fired
    assert found.lower is not None
    assert found.upper is not None
    assert found.lower < found.value < found.upper < found.limit == 0.88
    assert found.detail["unlabelled"] == 2000 - found.rows
    assert (found.detail["limit_from"], found.detail["trained"]) == ("declared", 0.9)
    assert [one["segment"] for one in found.detail["worst"]] == ["city=rome", "city=oslo"]
    assert found.detail["not_computed"] == {"roc_auc": "The model gives no probabilities."}
    beside = {one.subject: one for one in signals if one.subject != "accuracy"}
    assert set(beside) == {"f1", "recall"}
    assert all(math.isnan(one.limit) and not one.fired for one in beside.values())
    by_segment = {one.segment: one for one in signals if one.segment}
    assert by_segment["city=rome"].fired
    assert not by_segment["city=oslo"].fired


def test_many_segments_do_not_add_up_to_false_alarms(tmp_path: Path) -> None:
    """Twenty segments, all at the limit: at most 5 % of windows have one that fires."""
    judge = Judge(tmp_path, performance={"worse_than": 0.88}, segments=["city"], most_segments=20)
    random = np.random.default_rng(4)
    windows = []
    for _ in range(100):
        city = np.array([f"c{one}" for one in random.integers(0, 20, 2000)], object)
        signals = judge.run(CHECK, answered(random, 2000, 0.88, city=city))
        windows.append(any(one.fired for one in signals if one.segment))
    judge.close()
    assert np.mean(windows) <= 0.05


def test_a_segment_that_was_always_harder_is_no_alarm(tmp_path: Path) -> None:
    """Without a declared limit a segment is held against its own past; when it gets worse it fires."""
    judge = Judge(tmp_path, profile=profile_with({"accuracy": 0.9}), segments=["city"])
    random = np.random.default_rng(5)

    def window(hard: float) -> list[Signal]:
        city = np.array(["easy"] * 1500 + ["hard"] * 500, object)
        rate = np.where(city == "hard", hard, 0.97)
        return judge.run(CHECK, answered(random, 2000, rate, city=city))

    quiet = [one for _ in range(30) for one in window(0.7)]
    assert not any(one.fired for one in quiet)
    sources = [one.detail["limit_from"] for one in quiet if one.segment == "city=hard"]
    assert sources[:5] == [""] * 5
    assert set(sources[5:]) == {"earlier windows"}
    worse = {one.segment: one for one in window(0.5)}
    judge.close()
    assert worse["city=hard"].fired
    assert worse["city=hard"].limit == pytest.approx(0.63, abs=0.02)
    assert not worse["city=easy"].fired


@pytest.mark.parametrize(
    ("metric", "trained", "limit"),
    [("accuracy", 0.9, 0.81), ("rmse", 10.0, 11.0), ("r2", -0.5, -0.55), ("log_loss", 0.0, math.nan)],
)
def test_the_limit_from_training(tmp_path: Path, metric: str, trained: float, limit: float) -> None:
    """A tenth worse, in the direction that is worse; of an error of 0 a tenth is nothing, and nothing fires."""
    judge = Judge(tmp_path, metric=metric, profile=profile_with({metric: trained}))
    random = np.random.default_rng(6)
    p = random.uniform(0.2, 0.8, 200)
    data = ArrayWindow(
        {},
        PLAN,
        prediction=random.integers(0, 2, 200),
        actual=random.integers(0, 2, 200),
        probability=np.c_[1 - p, p],
        classes=(0, 1),
    )
    found = CHECK.run(judge.context(data))[0]
    judge.close()
    assert found.limit == pytest.approx(limit, nan_ok=True)
    assert found.detail["limit_from"] == ("" if math.isnan(limit) else "training")
    assert not (math.isnan(limit) and found.fired)


def test_without_a_limit_it_is_shown(tmp_path: Path) -> None:
    """No declaration and no profile: the value with its interval, and it never fires."""
    judge = Judge(tmp_path)
    found = of_all(CHECK.run(judge.context(answered(np.random.default_rng(7), 100, 0.1))))
    judge.close()
    assert found.value < 0.3
    assert not found.fired
    assert math.isnan(found.limit)


def test_too_few_labels_are_not_judged(judge: Judge) -> None:
    """A window of 29 labelled rows says nothing; nor does one without labels, or without rows."""
    random = np.random.default_rng(8)
    assert CHECK.run(judge.context(answered(random, 29, 0.0))) == []
    assert CHECK.run(judge.context(answered(random, 100, 0.9, labelled=0.0))) == []
    assert CHECK.run(judge.context(answered(random, 0, 0.9))) == []


def test_labels_of_a_wrong_type(tmp_path: Path) -> None:
    """A few texts and infinities among the labels of a regression are left out and counted; only such is an error."""
    judge = Judge(tmp_path, metric="mae", performance={"worse_than": 5.0})
    said = np.arange(100.0)
    actual = np.array([*(said[:90] + 1), *["many"] * 5, *[math.inf] * 5], object)
    found = CHECK.run(judge.context(ArrayWindow({}, PLAN, prediction=said, actual=actual)))[0]
    assert (found.value, found.rows, found.detail["no_numbers"]) == (1.0, 90, 10)
    texts = np.array(["many"] * 100, object)
    with pytest.raises(Incomplete, match=r"Of 100 labelled rows 100 .* no finite number"):
        CHECK.run(judge.context(ArrayWindow({}, PLAN, prediction=said, actual=texts)))
    judge.close()


def test_a_version_that_cannot_be_judged_leaves_the_others(tmp_path: Path) -> None:
    """Texts as labels of version 2 only: version 1 is judged, and the reason is kept."""
    judge = Judge(tmp_path, metric="mae", performance={"worse_than": 5.0})
    said = np.arange(100.0)
    actual = np.array([*(said[:50] + 1), *["many"] * 50], object)
    data = ArrayWindow(
        {}, PLAN, version=np.repeat([1, 2], 50).astype(np.int64), prediction=said, actual=actual
    )
    with pytest.raises(Incomplete, match="shop/2") as caught:
        CHECK.run(judge.context(data))
    judge.close()
    assert [one.version for one in caught.value.signals] == [1]


def test_labels_of_a_class_the_model_does_not_know(judge: Judge) -> None:
    """They count as wrong, and nothing fails."""
    said = np.zeros(100, np.int64)
    actual = np.array([0] * 60 + [9] * 40)
    found = of_all(
        CHECK.run(judge.context(ArrayWindow({}, PLAN, prediction=said, actual=actual, classes=(0, 1))))
    )
    assert found.value == 0.6
    assert found.fired
