"""Blocks of counts: exact, additive in any order, small, and never broken by what a column holds."""

from __future__ import annotations

import random
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from loopwright.errors import Damaged, InvalidInput
from loopwright.monitor.blocks import LATENCY_EDGES, Block, Plan
from loopwright.predictions import columns as arrow
from loopwright.records import Column, Signature, Task
from loopwright.registry.profile import Profile, histogram, profile_of

SIGNATURE = Signature(
    (
        Column("amount", "double", required=False),
        Column("pieces", "long"),
        Column("share", "float", required=False),
        Column("colour", "string", required=False),
        Column("city", "string", required=False),
        Column("new", "boolean", required=False),
        Column("when", "datetime", required=False),
    ),
    Task.classification,
    "bought",
    ("no", "yes"),
)


def rows_of(n: int, seed: int = 0, cities: int = 500) -> dict[str, NDArray[np.generic] | NDArray[np.object_]]:
    """Return n rows of every type, with gaps."""
    draw = np.random.default_rng(seed)
    amount = draw.lognormal(size=n)
    amount[draw.random(n) < 0.1] = np.nan
    amount[draw.random(n) < 0.01] = np.inf
    when = np.datetime64("2025-01-01", "us") + draw.integers(0, 10**13, n).astype("timedelta64[us]")
    when[draw.random(n) < 0.05] = np.datetime64("NaT")
    colours = np.array(["red", "green", "blue", None], object)
    return {
        "amount": amount,
        "pieces": draw.integers(0, 8, n),
        "share": draw.random(n).astype(np.float32),
        "colour": colours[draw.integers(0, 4, n)],
        "city": np.array([f"city {one}" for one in draw.integers(0, cities, n)], object),
        "new": np.array([True, False, None], object)[draw.integers(0, 3, n)],
        "when": when,
    }


def answers(n: int, seed: int = 0) -> dict[str, NDArray[np.generic] | NDArray[np.object_]]:
    """Return what the log has beside the inputs."""
    draw = np.random.default_rng(seed)
    chance = draw.random(n)
    return {
        "prediction": np.array(["no", "yes"], object)[(chance > 0.5).astype(int)],
        "probability": np.column_stack([1 - chance, chance]),
        "latency_ms": draw.lognormal(size=n).astype(np.float32),
    }


@pytest.fixture(scope="module")
def profile() -> Profile:
    """Profile 4000 rows."""
    beside = answers(1000)
    return profile_of(
        rows_of(4000),
        SIGNATURE,
        beside["prediction"],
        probability=np.asarray(beside["probability"], np.float64),
        actual=["no", "yes"] * 500,
    )


def logged(n: int, seed: int = 1) -> dict[str, NDArray[np.generic] | NDArray[np.object_]]:
    """Return n rows as columns of the log."""
    return {f"input_{name}": values for name, values in rows_of(n, seed).items()} | answers(n, seed)


def as_batch(columns: dict[str, NDArray[np.generic] | NDArray[np.object_]]) -> pa.RecordBatch:
    """Return columns of the log as Arrow has them."""
    made = {}
    for name, values in columns.items():
        if name == "probability":
            made[name] = pa.array(values.tolist(), pa.list_(pa.float64()))
        elif values.dtype.kind == "f":
            made[name] = pa.array(values, mask=np.isnan(values))
        else:
            made[name] = pa.array(values)
    return pa.record_batch(made)


def same(one: Block, other: Block) -> None:
    """Assert that two blocks have equal counts and, within rounding, equal moments."""
    np.testing.assert_array_equal(one.counts, other.counts)
    np.testing.assert_array_equal(one.ends, other.ends)
    for source, _ in one.plan.columns:
        name = source.removeprefix("input_")
        a, b = (block.column("score" if name == "probability" else name) for block in (one, other))
        assert a is not None
        assert b is not None
        assert (a.mean is None) == (b.mean is None)
        if a.mean is not None and b.mean is not None and a.std is not None and b.std is not None:
            assert a.mean == pytest.approx(b.mean, rel=1e-12, abs=1e-12 * (a.std or 1))
            assert a.std == pytest.approx(b.std, rel=1e-12, abs=1e-12)


def test_counts_are_those_of_the_profiles_own_histogram(profile: Profile) -> None:
    """Every column, NumPy or Arrow, is counted as `histogram` counts it, with its moments."""
    columns = rows_of(3000, 5)
    plan = Plan.of(profile, SIGNATURE)
    table = logged(3000, 5)
    for block in (plan.count(table), plan.count(as_batch(table)), plan.count(pa.table(as_batch(table)))):
        assert block.rows == 3000
        for one in profile.columns:
            counts = block.column(one.name)
            assert counts is not None
            np.testing.assert_array_equal(counts.bins, histogram(one, columns[one.name]))
            assert counts.missing == counts.bins[-1]
            assert counts.rows == 3000
        amount = block.column("amount")
        finite = np.asarray(columns["amount"])[np.isfinite(columns["amount"])]
        assert amount is not None
        assert (amount.n, amount.infinite) == (len(finite), np.isinf(columns["amount"]).sum())
        assert (amount.minimum, amount.maximum) == (finite.min(), finite.max())
        assert amount.mean == pytest.approx(finite.mean(), rel=1e-12)
        assert amount.std == pytest.approx(finite.std(), rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    cuts=st.lists(st.integers(0, 700), max_size=6),
    seed=st.integers(0, 50),
    arrow_first=st.booleans(),
    order=st.randoms(use_true_random=False),
)
def test_parts_add_up_to_the_whole(
    profile: Profile, cuts: list[int], seed: int, arrow_first: bool, order: random.Random
) -> None:
    """However rows are split, in whatever order the parts are added: exactly the counts of all rows at once."""
    table = logged(700, seed)
    plan = Plan.of(profile, SIGNATURE)
    ends = [0, *sorted(cuts), 700]
    parts = [{name: values[low:high] for name, values in table.items()} for low, high in pairwise(ends)]
    order.shuffle(parts)
    total = plan.empty()
    for place, part in enumerate(parts):
        rows = len(part["prediction"])
        block = plan.count(as_batch(part) if rows and (place % 2 == 0) == arrow_first else part)
        total.add(plan.loads(block.dumps()))
    same(total, plan.count(table))


@settings(max_examples=150, deadline=None)
@given(
    trained=st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=60),
    seen=st.lists(st.floats(allow_nan=True, allow_infinity=True), min_size=1, max_size=60),
)
def test_numbers_of_any_kind_fall_where_they_belong(trained: list[float], seen: list[float]) -> None:
    """Bins, missing, infinite, below and above the training range are what comparing each value gives."""
    signature = Signature((Column("x", "double", required=False),), Task.regression)
    with np.errstate(over="ignore", invalid="ignore"):
        profile = profile_of({"x": np.array(trained)}, signature, np.zeros(1))
    values = np.array(seen)
    counts = Plan.of(profile, signature).count({"input_x": values}).column("x")
    column = profile.column("x")
    assert counts is not None
    assert column is not None
    np.testing.assert_array_equal(counts.bins, histogram(column, values))
    assert counts.missing == np.isnan(values).sum()
    assert counts.infinite == np.isinf(values).sum()
    if column.minimum is not None and column.maximum is not None:
        assert counts.below == (values < column.minimum).sum()
        assert counts.above == (values > column.maximum).sum()
    else:
        assert (counts.below, counts.above) == (0, 0)


def test_rare_and_unseen_categories_are_told_apart(profile: Profile) -> None:
    """A category beyond the 64 counted ones is *other*; one that training never had is *unseen*."""
    plan = Plan.of(profile, SIGNATURE)
    column = profile.column("city")
    assert column is not None
    rare = next(name for name in (f"city {one}" for one in range(500)) if name not in column.categories)
    cities = np.array([column.categories[0], rare, rare, "Atlantis", None], object)
    for values in (cities, pa.array(cities), pa.array(cities).dictionary_encode()):
        counts = plan.count({"input_city": values}).column("city")
        assert counts is not None
        assert (counts.other, counts.unseen, counts.missing, counts.bins[0]) == (2, 1, 1, 1)
        assert counts.bins[-2] == 3


def test_a_million_distinct_categories_are_counted() -> None:
    """In training they are too many to know, so none is called unseen; in a window each of them is unseen."""
    ids = np.array([f"id {one}" for one in range(1_000_000)], object)
    signature = Signature((Column("id", "string"), Column("colour", "string")), Task.regression)
    colours = np.array(["red", "green"] * 500_000, object)
    profile = profile_of({"id": ids, "colour": colours}, signature, np.zeros(1))
    one = profile.column("id")
    assert one is not None
    assert (one.complete, one.distinct, one.singletons, len(one.known)) == (False, 1_000_000, 1_000_000, 0)
    plan = Plan.of(profile, signature)
    block = plan.count({"input_id": arrow.strings(ids.tolist()), "input_colour": arrow.strings(ids.tolist())})
    found, colour = block.column("id"), block.column("colour")
    assert found is not None
    assert colour is not None
    assert (found.unseen, found.other) == (0, 1_000_000 - 64)
    assert colour.unseen == 1_000_000
    assert len(block.dumps()) < 2000


def test_columns_that_vanish_change_type_or_hold_nothing(profile: Profile) -> None:
    """What cannot be read counts as missing, what is not there is not counted, and nothing raises."""
    plan = Plan.of(profile, SIGNATURE)
    block = plan.count(
        {
            "input_amount": pa.array(["12", "many", None, "3.5"]),
            "input_pieces": pa.array([None] * 4, pa.null()),
            "input_share": pa.array([[1.0], [], None, [2.0]]),
            "input_colour": pa.array([1, 2, 2, None]),
            "input_city": np.full(4, None, object),
            "unknown": np.arange(4),
        }
    )
    amount, pieces, share, colour, city, when = (
        block.column(name) for name in ("amount", "pieces", "share", "colour", "city", "when")
    )
    assert amount is not None
    assert (amount.n, amount.missing) == (2, 2)
    assert amount.mean == pytest.approx(7.75)
    assert pieces is not None
    assert (pieces.missing, pieces.mean) == (4, None)
    assert share is not None
    assert share.missing == 4
    assert colour is not None
    assert (colour.unseen, colour.missing) == (3, 1)
    assert city is not None
    assert city.missing == 4
    assert when is not None
    assert when.rows == 0
    assert block.rows == 4
    assert block.column("nothing") is None


def test_a_plan_without_a_profile_counts_answers() -> None:
    """Rows, latency, predictions and scores are counted without any reference."""
    signature = Signature((Column("x", "double"),), Task.classification, "t", (0, 1, 2))
    block = Plan.of(None, signature).count(
        {
            "prediction": np.array([0, 2, 2, 7]),
            "probability": pa.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], None, [0.2, 0.2, 0.6]]),
            "latency_ms": np.array([1, 2, np.nan, 4], np.float32),
        }
    )
    assert block.prediction.bins.tolist() == [1, 0, 2, 1, 0]
    assert block.prediction.unseen == 1
    assert block.score is not None
    assert (block.score.n, block.score.missing) == (3, 1)
    assert block.score.mean == pytest.approx(0.6)
    assert block.latency_mean == pytest.approx(7 / 3)
    numbers = Plan.of(None, None).count({"prediction": np.array([1.0, 3.0])})
    assert (numbers.prediction.mean, numbers.score) == (2.0, None)


def test_whole_decimals_are_the_classes_they_stand_for() -> None:
    """Class labels 1 and 2.5 are logged as decimals: 1.0 is the class 1."""
    signature = Signature((), Task.classification, "t", (1, 2.5))
    counts = Plan.of(None, signature).count({"prediction": np.array([1.0, 2.5, 2.5])}).prediction
    assert counts.bins.tolist() == [1, 2, 0, 0]


def test_of_several_outputs_the_first_is_counted() -> None:
    """A prediction that is a list counts by its first value, as the profile does."""
    plan = Plan.of(None, None)
    for column in (pa.array([[1.0, 9.0], [3.0, 9.0], None]), np.array([[1.0, 9.0], [3.0, 9.0], [np.nan, 0]])):
        counts = plan.count({"prediction": column}).prediction
        assert (counts.mean, counts.missing) == (2.0, 1)


@given(st.lists(st.floats(0.01, 1e5), min_size=1, max_size=300), st.floats(0.01, 0.99))
def test_latency_quantiles_are_within_a_bin(values: list[float], quantile: float) -> None:
    """The quantile lies in the bin of the exact one: off by less than 7.5 %."""
    block = Plan.of(None, None).count({"latency_ms": np.array(values)})
    found = block.latency(quantile)
    exact = np.quantile(values, quantile, method="inverted_cdf")
    assert found is not None
    assert found == pytest.approx(exact, rel=LATENCY_EDGES[1] / LATENCY_EDGES[0] - 1 + 1e-9)


def test_blocks_of_other_bins_are_not_added(profile: Profile) -> None:
    """Counts in different bins are not comparable: adding and reading them is refused."""
    mine, other = Plan.of(profile, SIGNATURE), Plan.of(None, SIGNATURE)
    assert mine.digest == Plan.of(profile, SIGNATURE).digest != other.digest
    with pytest.raises(InvalidInput, match="cannot be added"):
        mine.empty().add(other.empty())
    with pytest.raises(InvalidInput, match="The block has the bins"):
        mine.loads(other.empty().dumps())


@pytest.mark.parametrize("damage", [b"", b"nothing at all here", None])
def test_a_damaged_block_is_noticed(profile: Profile, damage: bytes | None) -> None:
    """Bytes that are no block, or half of one, are called so."""
    plan = Plan.of(profile, SIGNATURE)
    data = plan.count(logged(50)).dumps()
    with pytest.raises(Damaged, match="no block of counts"):
        plan.loads(data[: len(data) // 2] if damage is None else damage)


def test_huge_numbers_do_not_break_the_moments() -> None:
    """Squares beyond all decimals make the spread unknown, not the counts wrong."""
    signature = Signature((Column("x", "double"),), Task.regression)
    profile = profile_of({"x": np.arange(100.0)}, signature, np.zeros(1))
    counts = Plan.of(profile, signature).count({"input_x": np.array([1e300, -1e300, 5.0])}).column("x")
    assert counts is not None
    assert (counts.n, counts.above, counts.below) == (3, 1, 1)
    assert counts.std is None


def test_counting_does_not_load_pandas(profile: Profile) -> None:
    """Following a log for months must not cost the memory of pandas."""
    code = (
        "import sys, numpy as np, pyarrow as pa\n"
        "from loopwright.monitor.blocks import Plan\n"
        "from loopwright.predictions import columns as c\n"
        "from loopwright.records import *\n"
        "from loopwright.registry.profile import profile_of\n"
        "s = Signature((Column('x', 'double'), Column('w', 'string')), Task.regression)\n"
        "x, w = np.arange(2000.0), np.array(['a', 'b'] * 1000, object)\n"
        "plan = Plan.of(profile_of({'x': x, 'w': w}, s, x), s)\n"
        "for n in (100, 2000):\n"
        "    table = pa.table({'input_x': c.numbers(x[:n], pa.float64(), x[:n] > 50), 'input_w': c.strings(w[:n]),\n"
        "        'prediction': c.numbers(x[:n], pa.float64()), 'latency_ms': c.numbers(x[:n], pa.float64())})\n"
        "    assert plan.count(table).rows == n\n"
        "assert 'pandas' not in sys.modules, 'pandas was loaded'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
