"""Reference profiles and the histograms counted into them."""

import itertools
from pathlib import Path

import msgspec
import numpy as np
import pytest
from sklearn.datasets import load_iris

from loopwright.errors import Damaged
from loopwright.records import Column, Signature, Task
from loopwright.registry import Profile, histogram, profile_of, read_profile
from loopwright.registry.profile import categorical_profile, numeric_profile


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
