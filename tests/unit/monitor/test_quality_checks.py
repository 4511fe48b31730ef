"""Data-quality checks: quiet on quiet data at every size, and awake when something is wrong."""

import dataclasses
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from loopwright.config import MonitorConfig, QualityConfig
from loopwright.ledger import Ledger
from loopwright.monitor.arrays import ArrayWindow
from loopwright.monitor.base import Check, Context
from loopwright.monitor.blocks import Plan
from loopwright.monitor.duplicates import DuplicatesCheck
from loopwright.monitor.freshness import FreshnessCheck
from loopwright.monitor.missing import MissingCheck
from loopwright.monitor.out_of_range import OutOfRangeCheck, coverage_bound
from loopwright.monitor.quality import chance, upper_bound
from loopwright.monitor.results import Results
from loopwright.monitor.schema import SchemaCheck, family
from loopwright.monitor.unseen import UnseenCheck
from loopwright.monitor.volume import VolumeCheck, usual
from loopwright.records import Column, Judged, Mode, Signal, Signature, Task, Window
from loopwright.registry.profile import Profile, profile_of

START = datetime(2026, 1, 5, tzinfo=UTC)
HOUR = timedelta(hours=1)
WINDOW = Window(START, START + HOUR)
CARDINALITIES = (2, 3, 5, 10, 20, 50, 100, 200, 500, 1000)
WIDE = Signature(
    (
        *(Column(f"n{number}", "double", False) for number in range(20)),
        *(Column(f"c{number}", "string", False) for number in range(10)),
    ),
    Task.regression,
)


def wide(n: int, random: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Return n rows of 20 numeric and 10 categorical columns, as the evidence for drift was taken on."""
    made: dict[str, NDArray[Any]] = {}
    for number in range(20):
        kind = number % 4
        made[f"n{number}"] = (
            random.normal(size=n) if kind == 0
            else random.lognormal(size=n) if kind == 1
            else random.gamma(2.0, size=n) if kind == 2
            else np.round(random.uniform(0, 100, n))
        )  # fmt: skip
        if number < 4:
            made[f"n{number}"][random.random(n) < 0.02] = np.nan
    for number, size in enumerate(CARDINALITIES):
        shares = 1.0 / np.arange(1, size + 1)
        names = np.array([f"v{place}" for place in range(size)], object)
        made[f"c{number}"] = names[random.choice(size, n, p=shares / shares.sum())]
    return made


def profiled(table: dict[str, NDArray[Any]], signature: Signature = WIDE) -> Profile:
    """Return the profile of training rows."""
    n = len(next(iter(table.values())))
    return profile_of(table, signature, np.zeros(n))


def context(
    table: dict[str, NDArray[Any]],
    profile: Profile | None,
    *,
    signature: Signature = WIDE,
    segments: tuple[str, ...] = (),
    results: Any = None,
    window: Window = WINDOW,
    **quality: Any,
) -> Context:
    """Return a window of these rows."""
    return Context(
        model="m",
        deployment="m-api",
        mode=Mode.online,
        window=window,
        config=MonitorConfig(window=HOUR, quality=QualityConfig(**quality), segments=segments),
        champion=1,
        signature=signature,
        metric="rmse",
        data=ArrayWindow(table, Plan.of(profile, signature), segments=segments),
        profile=lambda _: profile,
        results=results,
        at=window.end,
    )


def fired(check: Check, found: Context) -> set[str]:
    """Return the subjects that fired."""
    return {signal.subject for signal in check.run(found) if signal.fired}


SHARES: tuple[Check, ...] = (MissingCheck(), UnseenCheck(), OutOfRangeCheck())


@pytest.mark.parametrize(("n", "windows"), [(200, 150), (1000, 100), (10_000, 20)])
@pytest.mark.parametrize("trained", [1000, 10_000])
def test_quiet_windows_stay_quiet(n: int, windows: int, trained: int) -> None:
    """Thirty columns of cardinality 2 to 1,000 against a small or a large reference: at most 1 % of windows fire."""
    random = np.random.default_rng(n + trained)
    alarms = 0
    profile = profiled(wide(trained, random))
    for number in range(windows):
        if number % 10 == 0:
            profile = profiled(wide(trained, random))
        found = context(wide(n, random), profile)
        alarms += any(fired(check, found) for check in SHARES)
    assert alarms <= stats.binom.ppf(0.999, windows, 0.01), f"{alarms} of {windows} windows alarm"


def test_segments_do_not_make_false_alarms() -> None:
    """Ten segments are ten times as many tests, at a level that is as much smaller."""
    random = np.random.default_rng(5)
    profile = profiled(wide(5000, random))
    alarms = sum(
        any(fired(check, context(wide(1000, random), profile, segments=("c3",))) for check in SHARES)
        for _ in range(40)
    )
    assert alarms <= 2


@pytest.mark.parametrize(
    ("check", "column", "spoil"),
    [
        (MissingCheck(), "n5", lambda values, where: np.where(where, np.nan, values)),
        (MissingCheck(), "c2", lambda values, where: np.where(where, None, values)),
        (UnseenCheck(), "c1", lambda values, where: np.where(where, "never seen", values)),
        (OutOfRangeCheck(), "n0", lambda values, where: np.where(where, 1e6, values)),
        (OutOfRangeCheck(), "n1", lambda values, where: np.where(where, np.inf, values)),
        (OutOfRangeCheck(), "n1", lambda values, where: np.where(where, -np.inf, values)),
    ],
)
def test_a_twentieth_of_spoilt_rows_fires(check: Check, column: str, spoil: Any) -> None:
    """In 1,000 rows five of a hundred are found, in this column and in no other; in 10 % of the segment alone too."""
    random = np.random.default_rng(7)
    profile = profiled(wide(5000, random))
    table = wide(1000, random)
    table[column] = spoil(table[column], random.random(1000) < 0.05)
    found = context(table, profile)
    assert fired(check, found) == {column}
    signal = next(one for one in check.run(found) if one.fired)
    assert 0.03 < signal.value < 0.09
    assert signal.detail["hits"] == round(signal.value * signal.rows)


def test_a_segment_that_is_spoilt_is_named() -> None:
    """Half of a small segment's rows have no value: the segment fires, and its share of all rows need not."""
    random = np.random.default_rng(8)
    profile = profiled(wide(5000, random))
    table = wide(4000, random)
    small = (table["c2"] == "v4") & (random.random(4000) < 0.12)
    table["n7"] = np.where(small, np.nan, table["n7"])
    signals = [one for one in MissingCheck().run(context(table, profile, segments=("c2",))) if one.fired]
    assert [(one.subject, one.segment) for one in signals] == [("n7", "c2=v4")]


def test_a_few_rows_are_no_ground() -> None:
    """One missing value of forty is 2.5 %, and chance."""
    random = np.random.default_rng(9)
    profile = profiled(wide(2000, random))
    table = wide(40, random)
    table["n7"][0] = np.nan
    assert not fired(MissingCheck(), context(table, profile))
    assert MissingCheck().run(context(wide(29, random), profile)) == []


def one_column(values: NDArray[Any], trained: NDArray[Any], kind: Any = "double", **quality: Any) -> Context:
    """Return a window of one column."""
    signature = Signature((Column("x", kind, False),), Task.regression)
    return context({"x": values}, profiled({"x": trained}, signature), signature=signature, **quality)


@pytest.mark.parametrize(
    ("values", "trained", "fires"),
    [
        (np.full(200, np.nan), np.arange(500.0), {"missing"}),
        (np.full(200, np.nan), np.full(500, np.nan), set()),
        (np.arange(200.0), np.full(500, np.nan), set()),
        (np.full(200, 3.0), np.full(500, 3.0), set()),
        (np.full(200, 4.0), np.full(500, 3.0), {"out_of_range"}),
        (np.full(200, np.inf), np.arange(500.0), {"out_of_range"}),
        (np.full(200, np.inf), np.full(500, np.inf), set()),
        (np.where(np.arange(200) % 2, np.inf, 5.0), np.where(np.arange(500) % 2, np.inf, 5.0), set()),
        (np.full(200, 1e308), np.arange(500.0), {"out_of_range"}),
    ],
)
def test_odd_numbers(values: NDArray[Any], trained: NDArray[Any], fires: set[str]) -> None:
    """All missing, constant, infinite: nothing raises, and only what is new fires."""
    found = one_column(values, trained)
    assert {check.name for check in SHARES if fired(check, found)} == fires


def test_a_column_of_ids_is_never_unseen() -> None:
    """Each value once, a million of them: new ones are what is to be expected, or cannot be told."""
    ids = np.array([f"id-{number}" for number in range(200_000)], object)
    assert not fired(UnseenCheck(), one_column(ids[100_000:], ids[:100_000], "string"))
    assert not fired(UnseenCheck(), one_column(ids[3000:6000], ids[:3000], "string"))


def test_declared_ranges_go_before_those_of_training() -> None:
    """What training had is allowed to be too much; what it never had can be allowed."""
    values = np.linspace(0, 100, 1000)
    assert fired(OutOfRangeCheck(), one_column(values, values, ranges={"x": (0, 90)})) == {"x"}
    assert not fired(OutOfRangeCheck(), one_column(values + 50, values, ranges={"x": (0, 200)}))
    [signal] = OutOfRangeCheck().run(one_column(values, values, ranges={"x": (0, 90)}))
    assert (signal.detail["above"], signal.detail["declared"]) == (100, True)
    assert not fired(OutOfRangeCheck(), one_column(values, values, ranges={"y": (0, 1)}))


def test_rows_that_repeat_what_is_declared_unique() -> None:
    """Together: the same place at another time is no duplicate."""
    signature = Signature((Column("place", "string"), Column("hour", "long")), Task.regression)
    table = {
        "place": np.array(["a", "b"] * 50, object),
        "hour": np.repeat(np.arange(50), 2),
    }
    profile = profiled(table, signature)
    quiet = context(table, profile, signature=signature, unique=("place", "hour"))
    assert fired(DuplicatesCheck(), quiet) == set()
    twice = {name: np.concatenate([values, values[:20]]) for name, values in table.items()}
    found = context(twice, profile, signature=signature, unique=("place", "hour"))
    [signal] = DuplicatesCheck().run(found)
    assert (signal.fired, signal.subject, signal.detail["hits"]) == (True, "place, hour", 20)
    assert DuplicatesCheck().run(context(twice, profile, signature=signature, unique=("nowhere",))) == []


def test_schema() -> None:
    """A column that vanished, one that appeared, one that holds something else; and none of it on quiet data."""
    random = np.random.default_rng(1)
    table = wide(100, random)
    profile = profiled(table)
    [quiet] = SchemaCheck().run(context(table, profile))
    assert (quiet.fired, quiet.value) == (False, 0.0)
    del table["n0"]
    table["new"] = np.arange(100.0)
    table["n1"] = np.array(["a"] * 100, object)
    found = {one.subject: one.detail["what"] for one in SchemaCheck().run(context(table, profile))}
    assert found == {"n0": "vanished", "new": "appeared", "n1": "changed"}
    hidden = dataclasses.replace(context(table, profile), hidden=frozenset({"n0"}))
    assert "n0" not in {one.subject for one in SchemaCheck().run(hidden)}


@pytest.mark.parametrize(
    ("kind", "words"),
    [("BIGINT", "a number"), ("DECIMAL(18,3)", "a number"), ("UINTEGER", "a number"), ("VARCHAR", "text"),
     ("TIMESTAMP WITH TIME ZONE", "a time"), ("BOOLEAN", "true or false"), ("STRUCT(a BIGINT)", "struct(a bigint)")],
)  # fmt: skip
def test_families_of_types(kind: str, words: str) -> None:
    """A whole number that is kept as a decimal one has not changed."""
    assert family(kind) == words


@pytest.fixture
def results(tmp_path: Path) -> Results:
    """Return what was found in no window yet."""
    return Results(Ledger(f"sqlite:///{tmp_path}/ledger.db", actor="test"))


def before(results: Results, rows: list[int]) -> None:
    """Record windows with these numbers of rows right before `WINDOW`."""
    for number, n in enumerate(rows):
        start = WINDOW.start - (len(rows) - number) * HOUR
        state: Any = "judged" if n else "empty"
        results.record(Judged("m-api", "m", "inputs", 1, Window(start, start + HOUR), state, n), [])


def volume(results: Results, n: int, **quality: Any) -> Signal:
    """Return what the volume check says of n rows."""
    [signal] = VolumeCheck().run(context({"x": np.arange(float(n))}, None, results=results, **quality))
    return signal


def test_volume_as_it_is_declared(results: Results) -> None:
    """Fewer or more rows than declared fire, whatever earlier windows had; also no rows at all."""
    assert volume(results, 0, rows_at_least=10).fired
    assert volume(results, 11, rows_at_most=10).fired
    quiet = volume(results, 10, rows_at_least=10, rows_at_most=10)
    assert not quiet.fired
    assert quiet.limit == 10


def test_volume_against_earlier_windows(results: Results) -> None:
    """Nothing before twenty windows; then nothing, or ten times as much, fires, and chance does not."""
    random = np.random.default_rng(2)
    before(results, random.poisson(100, 19).tolist())
    assert not volume(results, 0).fired
    before(results, random.poisson(100, 30).tolist())
    assert volume(results, 0).fired
    assert volume(results, 1000).fired
    assert not volume(results, 70).fired
    assert not volume(results, 160).fired


@pytest.mark.parametrize("rows", [[0] * 50, [0] * 45 + [10_000] * 5, [0, 0, 0, 5000] * 10])
def test_volume_of_what_comes_in_bursts_is_not_judged(results: Results, rows: list[int]) -> None:
    """A nightly batch is no surge, and the hours between are no drop."""
    before(results, rows)
    assert not volume(results, 20_000).fired
    assert not volume(results, 0).fired


def test_volume_with_a_rhythm_of_days_does_not_fire(results: Results) -> None:
    """A hundred times more by day than by night, over three weeks with weekends: no window of the last week fires."""
    random = np.random.default_rng(3)
    hours = np.arange(24 * 21)
    usual_rows = 20 + 2000 * np.maximum(0, np.sin((hours % 24 - 6) / 24 * 2 * np.pi)) * np.where(
        hours // 24 % 7 < 5, 1, 0.4
    )
    rows = random.negative_binomial(20, 20 / (20 + usual_rows))
    alarms = 0
    for at in range(24 * 14, len(rows)):
        low, high = usual(rows[at - 100 : at])
        mean = rows[at - 100 : at].mean()
        outside = rows[at] < min(low, mean / 2, rows[at - 100 : at].min())
        alarms += outside or rows[at] > max(high, mean * 2, rows[at - 100 : at].max())
    assert alarms == 0


@pytest.mark.parametrize("shape", [1e9, 10.0, 2.0])
def test_the_usual_volume_holds_its_chance(shape: float) -> None:
    """Counts that spread as Poisson ones do, or much more: one in a thousand new windows lies outside, or fewer."""
    random = np.random.default_rng(4)
    outside = 0
    for _ in range(4000):
        rates = random.gamma(shape, 200 / shape, 41)
        rows = random.poisson(rates)
        low, high = usual(rows[:40], 0.001)
        outside += not low <= rows[40] <= high
    assert outside <= stats.binom.ppf(0.999, 4000, 0.004)


def test_freshness_adds_up_over_empty_windows(results: Results) -> None:
    """The age at a window's end, also where it has no row; without a declaration nothing is said."""
    signature = Signature((Column("x", "double"),), Task.regression)
    check = FreshnessCheck()
    ages = []
    for number in range(4):
        span = Window(START + number * HOUR, START + (number + 1) * HOUR)
        found = context(
            {"x": np.empty(0)}, None, signature=signature, results=results, window=span, freshness="90m"
        )
        signals = check.run(found)
        results.record(Judged("m-api", "m", "inputs", 1, span, "empty"), signals)
        ages.append((signals[0].value / 3600, signals[0].fired))
    assert ages == [(1, False), (2, True), (3, True), (4, True)]
    assert check.run(context({"x": np.empty(0)}, None, signature=signature, results=results)) == []


@pytest.mark.parametrize(("hits", "rows"), [(0, 10), (3, 100), (99, 100), (100, 100), (500, 10**6)])
def test_bounds_and_chances_are_those_of_scipy(hits: int, rows: int) -> None:
    """Clopper and Pearson's bound, and the exact tail."""
    theirs = stats.binomtest(hits, rows).proportion_ci(0.99, "exact")
    assert upper_bound(hits, rows, 0.005) == pytest.approx(theirs.high)
    assert chance(hits, rows, 0.01) == pytest.approx(stats.binom.sf(hits - 1, rows, 0.01), rel=1e-9)


def test_the_range_of_training_covers_what_it_says() -> None:
    """The share of new values beyond the range of 200 exceeds the bound at 5 % in one of twenty draws."""
    random = np.random.default_rng(6)
    ends = random.uniform(size=(4000, 200))
    beyond = 1 - (ends.max(axis=1) - ends.min(axis=1))
    share = (beyond > coverage_bound(200, 0.05)).mean()
    assert 0.04 < share < 0.06
