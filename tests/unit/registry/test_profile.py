"""Reference profiles and the histograms counted into them."""

import itertools
from pathlib import Path

import msgspec
import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_iris
from sklearn.linear_model import LogisticRegression

from loopwright.errors import Damaged
from loopwright.records import Column, DatasetRef, Signature, Task
from loopwright.registry import Profile, histogram, profile_of, read_profile
from loopwright.registry.description import describe
from loopwright.registry.profile import (
    QUANTILES,
    SCORE_EDGES,
    categorical_profile,
    hash_of,
    numeric_profile,
    scores_of,
)
from loopwright.registry.registration import write_extra_files


def test_histogram_of_the_training_data_is_the_reference() -> None:
    """Counting the profiled values again gives the profile's own counts, for every kind of column."""
    frame = load_iris(as_frame=True).frame
    gaps = np.where(np.arange(150) % 7 == 0, np.nan, frame["petal width (cm)"])
    times = np.datetime64("2020-01-01", "us") + np.arange(150).astype("timedelta64[D]")
    texts = np.array(["a", None, "b", "b", "c"] * 30, dtype=object)
    for profile, values in [
        (numeric_profile("x", frame["sepal length (cm)"].to_numpy()), frame["sepal length (cm)"].to_numpy()),
        (numeric_profile("x", gaps), gaps),
        (numeric_profile("x", times), times),
        (numeric_profile("x", frame["target"].to_numpy()), frame["target"].to_numpy()),
        (categorical_profile("x", texts), texts),
        (categorical_profile("x", np.array([True, False, True])), np.array([True, False, True])),
    ]:
        assert histogram(profile, values).tolist() == list(profile.reference)
        assert sum(profile.reference) == profile.rows == len(values)


def test_numeric_bins_hold_equal_shares() -> None:
    """A column with many values is cut at its 20-quantiles, with open ends."""
    profile = numeric_profile("x", np.random.default_rng(0).normal(size=10_000))
    assert len(profile.edges) == 19
    assert set(profile.counts) == {500}
    assert histogram(profile, np.array([-1e300, 1e300, np.inf, np.nan])).tolist() == [1, *[0] * 18, 2, 1]


def test_few_values_get_a_bin_each() -> None:
    """A column of a few whole numbers has one bin for each of them."""
    profile = numeric_profile("x", np.array([3, 3, 7, 9]))
    assert profile.counts == (2, 1, 1)
    assert profile.edges == (5.0, 8.0)


def test_a_constant_column_shows_any_change() -> None:
    """A constant has a bin of its own: smaller and larger values fall outside it."""
    profile = numeric_profile("x", np.full(10, 4.0))
    assert histogram(profile, np.array([3.9, 4.0, 4.1])).tolist() == [1, 1, 1, 0]


def test_ties_do_not_make_equal_edges() -> None:
    """A column that is mostly one value has strictly rising edges."""
    values = np.concatenate([np.zeros(9_000), np.arange(1, 1001)])
    edges = numeric_profile("x", values).edges
    assert all(low < high for low, high in itertools.pairwise(edges))


def test_an_all_missing_column_is_profiled() -> None:
    """A column with nothing in it has one empty bin and only nulls."""
    profile = numeric_profile("x", np.full(5, np.nan))
    assert (profile.counts, profile.nulls, profile.mean) == ((0,), 5, None)
    assert categorical_profile("y", np.full(5, None, dtype=object)).reference == (0, 5)


def test_unseen_and_rare_categories_are_counted_together() -> None:
    """The 64 most frequent categories are counted singly; all others, seen or not, in one count."""
    seen = np.array([f"c{i % 100}" for i in range(10_000)] + ["c0"] * 500, dtype=object)
    profile = categorical_profile("x", seen)
    assert (len(profile.categories), profile.categories[0], profile.counts[0]) == (64, "c0", 600)
    assert (profile.other, profile.distinct, profile.singletons) == (3600, 100, 0)
    counts = histogram(profile, np.array(["c0", "never", None], dtype=object))
    assert (counts[0], counts[-2], counts[-1], counts.sum()) == (1, 1, 1, 3)
    assert histogram(profile, np.array([], dtype=object)).sum() == 0


def test_profile_survives_its_file(tmp_path: Path) -> None:
    """A profile written as JSON is read back the same, and damage is noticed."""
    path = tmp_path / "profile.json"
    signature = Signature(
        (Column("a", "double"), Column("b", "string")), Task.classification, "t", ("x", "y")
    )
    columns = {"a": np.array([1.0, 2.0, 3.0]), "b": np.array(["p", "q", None], dtype=object)}
    profile = profile_of(
        columns, signature, np.array(["x", "y", "x"]), performance={"accuracy": 1.0}, dataset="d"
    )
    path.write_bytes(msgspec.json.encode(profile))
    assert read_profile(path) == profile
    found = profile.column("b")
    assert found is not None
    assert (found.kind, found.nulls) == ("categorical", 1)
    assert profile.prediction.categories == ("x", "y")
    assert isinstance(profile, Profile)
    path.write_text("{}")
    with pytest.raises(Damaged, match="no reference profile"):
        read_profile(path)


def test_regression_predictions_are_profiled_as_numbers() -> None:
    """The prediction of a regression is a numeric column."""
    signature = Signature((Column("a", "double"),), Task.regression)
    profile = profile_of({"a": np.arange(100.0)}, signature, np.arange(100.0))
    assert profile.prediction.kind == "numeric"
    assert profile.rows == 100


def test_numbers_have_quantiles_and_count_what_is_infinite() -> None:
    """Quantiles are values of the data; infinite numbers are counted and in no moment, quantile or range."""
    values = np.concatenate([np.arange(1.0, 1001.0), [np.inf, -np.inf, np.inf, np.nan]])
    profile = numeric_profile("x", values)
    assert (profile.infinite, profile.nulls, profile.rows) == (3, 1, 1004)
    assert profile.quantiles == (1.0, 10.0, 50.0, 250.0, 500.0, 750.0, 950.0, 990.0, 999.0)
    assert len(profile.quantiles) == len(QUANTILES)
    assert (profile.mean, profile.minimum, profile.maximum) == (500.5, 1.0, 1000.0)
    assert sum(profile.counts) == 1003


def test_numbers_at_the_end_of_all_decimals_survive_their_file(tmp_path: Path) -> None:
    """JSON has no infinity: no edge or quantile is ever one, however large the numbers are."""
    huge = np.finfo(np.float64).max
    for values in ([-huge], [huge], [-huge, huge], [np.inf], np.linspace(-huge / 2, huge / 2, 100)):
        signature = Signature((Column("a", "double"),), Task.regression)
        profile = profile_of({"a": np.array(values)}, signature, np.zeros(1))
        path = tmp_path / "profile.json"
        path.write_bytes(msgspec.json.encode(profile))
        assert read_profile(path) == profile


def test_rare_categories_are_known_by_their_hash() -> None:
    """What training had beyond the 64 counted categories is kept as hashes, the same on every machine."""
    random = np.random.default_rng(0)
    values = np.array([f"c{one}" for one in random.zipf(1.5, 20_000)], dtype=object)
    profile = categorical_profile("x", values)
    distinct, counts = np.unique(values.astype(str), return_counts=True)
    assert profile.distinct == len(distinct)
    assert profile.singletons == (counts == 1).sum()
    if profile.complete:
        assert len(profile.known) == 8 * (profile.distinct - 64)
    assert hash_of("Zürich") == 636548684707296368
    few = categorical_profile("x", np.array(["a", "b"], dtype=object))
    assert (few.complete, few.tells_unseen, few.known, few.held) == (True, True, b"", ())


def test_the_chance_of_a_new_category_is_estimated() -> None:
    """Good and Turing's estimate is near the share of rows of a second sample that the first had not seen."""
    random = np.random.default_rng(3)
    shares = 1 / np.arange(1, 3001) ** 1.2
    shares /= shares.sum()
    first, second = (random.choice(3000, 5000, p=shares) for _ in range(2))
    profile = categorical_profile("x", np.array([f"c{one}" for one in first], dtype=object))
    new = np.isin(second, first, invert=True).mean()
    assert profile.unseen_chance == pytest.approx(new, abs=0.015)


def test_many_equal_categories_are_counted_in_rows_that_did_not_choose_them() -> None:
    """Of a thousand equally likely categories the 64 chosen hold their fair share of the rows they are counted in."""
    random = np.random.default_rng(1)
    values = np.array([f"c{one}" for one in random.integers(0, 1000, 20_000)], dtype=object)
    profile = categorical_profile("x", values)
    share = sum(profile.counts) / 20_000
    fair = sum(profile.comparable[:-2]) / sum(profile.comparable)
    assert share > 0.075 > fair == pytest.approx(0.064, abs=0.006)
    assert sum(profile.reference) == 20_000
    assert len(profile.comparable) == len(profile.reference)


def test_scores_and_calibration_of_a_real_model(tmp_path: Path) -> None:
    """What `register` writes beside a classifier has its scores and its calibration, and declared segments."""
    frame = load_breast_cancer(as_frame=True).frame[["mean radius", "mean texture", "target"]]
    frame["size"] = np.where(frame["mean radius"] > 14, "large", "small")
    frame["large"] = frame["mean radius"] > 14
    features = frame[["mean radius", "mean texture", "large"]]
    model = LogisticRegression(max_iter=2000).fit(features, frame["target"])
    described = describe(model, frame[[*features.columns, "target"]], "target")
    training = DatasetRef("t", "digest", len(frame), tuple(frame.columns), "")
    write_extra_files(tmp_path, described, training, {}, segments=("large",))
    profile = read_profile(tmp_path / "profile.json")
    assert profile.format == 2
    assert profile.scores is not None
    assert (profile.scores.rows, profile.scores.edges) == (569, SCORE_EDGES)
    assert sum(one.rows for one in profile.calibration) == 569
    observed = sum(one.observed * one.rows for one in profile.calibration) / 569
    assert observed == pytest.approx(frame["target"].mean())
    assert profile.calibration[0].observed < 0.2 < 0.8 < profile.calibration[-1].observed
    assert all(0 <= one.predicted <= 1 for one in profile.calibration)
    parts = {one.value: one for one in profile.segments}
    assert set(parts) == {"True", "False"}
    assert parts["True"].rows == int(frame["large"].sum())
    assert sum(parts["True"].counts["mean radius"]) == parts["True"].rows


def test_several_classes_have_the_score_of_their_best_one() -> None:
    """With three classes the score is the largest probability, and right is a row of that class."""
    probability = np.array([[0.7, 0.2, 0.1], [0.1, 0.3, 0.6], [0.05, 0.92, 0.03]])
    assert scores_of(probability).tolist() == [0.7, 0.6, 0.92]
    signature = Signature((), Task.classification, "t", ("a", "b", "c"))
    answers = np.array(["a", "c", "b"], dtype=object)
    profile = profile_of({}, signature, answers, probability=probability, actual=["a", "b", "b"])
    assert [(one.observed, one.rows) for one in profile.calibration] == [(0.0, 1), (1.0, 1), (1.0, 1)]
    assert [one.predicted for one in profile.calibration] == pytest.approx([0.6, 0.7, 0.92])
