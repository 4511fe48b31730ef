"""Statistics of two samples, against SciPy and by simulation; the exact comparison of two tables."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats
from scipy.spatial.distance import jensenshannon

from loopwright.errors import NotFound, SchemaMismatch
from loopwright.monitor.statistics import (
    benjamini_hochberg,
    benjamini_yekutieli,
    chi_square,
    jensen_shannon,
    jensen_shannon_null_quantile,
    kolmogorov_smirnov,
    kolmogorov_smirnov_binned,
    kolmogorov_smirnov_p,
    pooled,
    psi,
    psi_null_quantile,
    simulated_null_quantile,
    wasserstein,
    wasserstein_binned,
)
from loopwright.monitor.statistics.report import STATISTICS, compare
from loopwright.registry.column_profile import histogram, numeric_profile

values = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=60).map(lambda found: np.sort(np.array(found)))
counts = st.lists(st.integers(0, 500), min_size=2, max_size=30)


@given(values, values)
def test_exact_distances_are_scipys(one: NDArray[np.float64], other: NDArray[np.float64]) -> None:
    """Wasserstein and Kolmogorov-Smirnov of samples of any two sizes."""
    assert wasserstein(one, other) == pytest.approx(
        stats.wasserstein_distance(one, other), rel=1e-9, abs=1e-6
    )
    assert kolmogorov_smirnov(one, other) == pytest.approx(
        stats.ks_2samp(one, other, method="asymp").statistic, abs=1e-12
    )


@given(counts, st.randoms(use_true_random=False))
def test_jensen_shannon_is_scipys(one: list[int], order: random.Random) -> None:
    """The distance to base 2, and its bounds."""
    reference, current = np.array(one), np.array(order.sample(one, len(one)))
    found = jensen_shannon(reference, current)
    if reference.sum():
        assert found == pytest.approx(jensenshannon(reference, current, base=2), abs=1e-7)
        assert 0 <= found <= 1
    else:
        assert np.isnan(found)


def test_jensen_shannon_of_samples_with_nothing_in_common_is_one() -> None:
    """The largest distance there is."""
    assert jensen_shannon(np.array([3, 0]), np.array([0, 9])) == pytest.approx(1.0)


@given(
    st.lists(st.integers(1, 500), min_size=2, max_size=20),
    st.lists(st.integers(1, 500), min_size=20, max_size=20),
)
def test_chi_square_is_scipys(one: list[int], other: list[int]) -> None:
    """The two-sample test is that of a contingency table of two rows."""
    reference, current = np.array(one), np.array(other[: len(one)])
    expected = stats.chi2_contingency(np.array([reference, current]), correction=False).pvalue
    assert chi_square(reference, current) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(("n", "m"), [(50, 80), (1000, 300), (20_000, 5000)])
def test_kolmogorov_smirnov_p_is_scipys(n: int, m: int) -> None:
    """The p-value agrees with SciPy's to a sixth of it, over the range that decides."""
    for statistic in np.linspace(0.8, 2.1, 8) * np.sqrt((n + m) / (n * m)):
        expected = stats.kstwo.sf(statistic, round(n * m / (n + m)))
        assert kolmogorov_smirnov_p(float(statistic), n, m) == pytest.approx(expected, rel=1 / 6)


@pytest.mark.parametrize("shift", [0.0, 0.05, 0.3, 1.0])
def test_binned_distances_are_near_the_exact_ones(shift: float) -> None:
    """From twenty bins: Kolmogorov-Smirnov never above the exact one, Wasserstein off by at most a fifth, or 0.05 sd."""
    draw = np.random.default_rng(3)
    one, other = np.sort(draw.normal(size=20_000)), np.sort(draw.normal(shift, size=5000))
    profile = numeric_profile("x", one)
    reference, current = histogram(profile, one)[:-1], histogram(profile, other)[:-1]
    exact = kolmogorov_smirnov(one, other)
    assert exact - 0.05 <= kolmogorov_smirnov_binned(reference, current) <= exact
    low, high = min(one[0], other[0]), max(one[-1], other[-1])
    found = wasserstein_binned(np.array(profile.edges), reference, current, low, high)
    assert found == pytest.approx(wasserstein(one, other), rel=0.2, abs=0.05)


def test_binned_wasserstein_is_exact_for_evenly_spread_bins() -> None:
    """A uniform sample moved by a tenth, in bins of a tenth: every value has moved by a tenth."""
    edges = np.linspace(0.1, 1.0, 10)
    reference, current = np.r_[np.full(10, 100), 0], np.r_[0, np.full(10, 100)]
    assert wasserstein_binned(edges, reference, current, 0.0, 1.1) == pytest.approx(0.1)
    swapped = wasserstein_binned(np.array([1.0]), np.array([1, 0]), np.array([0, 1]), 0.0, 2.0)
    assert swapped == pytest.approx(1.0)


def test_psi_of_the_same_shares_is_zero_and_grows_with_the_shift() -> None:
    """PSI is zero for equal shares, and more for more."""
    same = np.array([100, 200, 300])
    assert psi(same, same) == 0.0
    assert psi(same, same[::-1]) > psi(same, np.array([120, 200, 280])) > 0
    p, q = np.array([0.2, 0.3, 0.5]), np.array([0.3, 0.3, 0.4])
    large = psi((p * 1e9).astype(np.int64), (q * 1e9).astype(np.int64))
    assert large == pytest.approx(((q - p) * np.log(q / p)).sum(), rel=1e-6)


def test_an_empty_bin_keeps_psi_finite() -> None:
    """A category that was never seen does not make the effect infinite."""
    assert np.isfinite(psi(np.array([100, 0]), np.array([50, 50])))


@given(counts, counts)
def test_thin_bins_are_pooled_and_no_row_is_lost(one: list[int], other: list[int]) -> None:
    """The totals stay, and more than one bin is left only where each expects five rows in both samples."""
    size = min(len(one), len(other))
    reference, current = np.array(one[:size]), np.array(other[:size])
    before, now = pooled(reference, current)
    assert (before.sum(), now.sum()) == (reference.sum(), current.sum())
    if len(before) > 1:
        smaller = min(before.sum(), now.sum()) / (before.sum() + now.sum())
        assert ((before + now) * smaller >= 5).all()


def _far(
    statistic: object, quantile: object, shares: NDArray[np.float64], n: int, m: int, draws: int
) -> float:
    """Return how often a statistic of pooled counts exceeds its null quantile at 1 %, as a multiple of 1 %."""
    draw = np.random.default_rng(11)
    pairs = zip(draw.multinomial(n, shares, draws), draw.multinomial(m, shares, draws), strict=True)
    hits = 0
    for one, other in pairs:
        before, now = pooled(one, other)
        hits += statistic(before, now) >= quantile(len(before), n, m, level=0.99)  # type: ignore[operator]
    return 100 * hits / draws


ZIPF = 1 / np.arange(1, 67) / (1 / np.arange(1, 67)).sum()


@pytest.mark.parametrize("shares", [np.full(20, 0.05), ZIPF, np.array([0.97, 0.02, 0.01])])
@pytest.mark.parametrize(("n", "m"), [(900, 200), (10_000, 200), (10_000, 10_000), (500, 50_000)])
def test_the_null_quantile_of_psi_holds(shares: NDArray[np.float64], n: int, m: int) -> None:
    """Without any change PSI of pooled bins exceeds its 1 % quantile in half to twice 1 % of draws, 4000 of them."""
    assert 0.4 <= _far(psi, psi_null_quantile, shares, n, m, 4000) <= 2.0


def test_the_null_quantile_of_jensen_shannon_holds_for_full_bins() -> None:
    """With fifty rows and more in each bin; below that the simulated one is to be used, which agrees."""
    shares = np.full(20, 0.05)
    assert 0.5 <= _far(jensen_shannon, jensen_shannon_null_quantile, shares, 10_000, 1000, 4000) <= 1.8
    simulated = simulated_null_quantile(jensen_shannon, shares, 10_000, 10_000, level=0.99, draws=4000)
    assert simulated == pytest.approx(jensen_shannon_null_quantile(20, 10_000, 10_000, level=0.99), rel=0.05)


def test_nothing_can_be_told_of_one_bin() -> None:
    """One bin, or no rows: no effect is ever large enough, and no test significant."""
    assert psi_null_quantile(1, 100, 100) == np.inf
    assert psi_null_quantile(5, 0, 100) == np.inf
    assert chi_square(np.array([3]), np.array([5])) == 1.0
    assert chi_square(np.array([0, 0]), np.array([5, 1])) == 1.0


def test_benjamini_hochberg_on_the_published_example() -> None:
    """The fifteen p-values of Benjamini and Hochberg (1995), section 3.2: four are rejected at 5 %."""
    p = np.array(
        [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719]
    )
    p = np.append(p, [0.6528, 0.7590, 1.0])
    assert benjamini_hochberg(p, 0.05).sum() == 4


@settings(max_examples=200)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=50), st.floats(0.001, 0.4))
def test_false_discovery_rates_are_scipys(found: list[float], rate: float) -> None:
    """Both procedures reject what SciPy's adjusted p-values reject."""
    p = np.array(found)
    for ours, method in ((benjamini_hochberg, "bh"), (benjamini_yekutieli, "by")):
        adjusted = stats.false_discovery_control(p, method=method)
        far = np.abs(adjusted - rate) > 1e-12
        np.testing.assert_array_equal(ours(p, rate)[far], (adjusted <= rate)[far])


def tables(n: int, m: int) -> tuple[dict[str, NDArray[np.generic]], dict[str, NDArray[np.generic]]]:
    """Return two tables of a shifted number, an unchanged one with gaps, and a category."""
    draw = np.random.default_rng(5)

    def one(rows: int, shift: float) -> dict[str, NDArray[np.generic]]:
        gaps = draw.gamma(2, size=rows)
        gaps[draw.random(rows) < 0.1] = np.nan
        words = np.array(["a", "b", "c", None], object)[
            draw.choice(4, rows, p=[0.5 - shift / 4, 0.3, 0.1 + shift / 4, 0.1])
        ]
        return {"x": draw.normal(shift, 2.0, rows), "gaps": gaps, "word": words}

    return one(n, 0.0), one(m, 1.0)


def as_arrow(columns: dict[str, NDArray[np.generic]]) -> pa.Table:
    """Return a table with nulls for what is missing."""
    return pa.table({name: pa.array(values, from_pandas=True) for name, values in columns.items()})


@pytest.mark.parametrize(("n", "m"), [(900, 800), (5000, 5000), (5000, 3000)])
@pytest.mark.parametrize("arrow", [False, True])
def test_tables_are_compared_as_scipy_does(n: int, m: int, arrow: bool) -> None:
    """All statistics of NumPy and Arrow tables, and which are the defaults for few and for many rows."""
    before, now = tables(n, m)
    one, other = (as_arrow(before), as_arrow(now)) if arrow else (before, now)
    x, gaps, word = compare(one, other, statistics=STATISTICS)
    a, b = np.asarray(before["x"], np.float64), np.asarray(now["x"], np.float64)
    assert x.value["wasserstein"] == pytest.approx(stats.wasserstein_distance(a, b) / a.std())
    assert x.value["kolmogorov_smirnov"] == pytest.approx(stats.ks_2samp(a, b).statistic)
    assert x.p["kolmogorov_smirnov"] < 1e-6
    assert x.value["psi"] > 0.1 > gaps.value["psi"]
    assert gaps.missing_reference == np.isnan(np.asarray(before["gaps"], np.float64)).sum()
    shares = [np.array([(side["word"] == name).sum() for name in "abc"]) for side in (before, now)]
    assert word.value["jensen_shannon"] == pytest.approx(jensenshannon(*shares, base=2))
    assert word.p["chi_square"] == pytest.approx(
        stats.chi2_contingency(np.array(shares)).pvalue, rel=1e-6, abs=1e-12
    )
    assert "wasserstein" not in word.value
    defaults = [set(one.value) for one in compare(one, other)]
    large = n > 1000
    assert defaults[0] == ({"wasserstein"} if large else {"kolmogorov_smirnov"})
    assert defaults[2] == ({"jensen_shannon"} if large else {"chi_square"})


def test_a_column_without_values_is_compared() -> None:
    """All missing on one side: nothing to say, and no error; a constant that moved has moved infinitely far."""
    nothing, some = np.full(2000, np.nan), np.arange(2000.0)
    assert np.isnan(compare({"x": some}, {"x": nothing})[0].value["wasserstein"])
    assert compare({"x": np.zeros(2000)}, {"x": np.ones(9)})[0].value["wasserstein"] == np.inf
    assert compare({"x": np.zeros(2000)}, {"x": np.zeros(9)})[0].value["wasserstein"] == 0.0
    none = np.full(3, None, object)
    assert np.isnan(compare({"w": none}, {"w": none})[0].value["chi_square"])


def test_what_cannot_be_compared_is_named() -> None:
    """A statistic or column that is not there, and a column that changed its type."""
    one = {"x": np.arange(3.0)}
    with pytest.raises(NotFound, match="wasserstien"):
        compare(one, one, statistics=["wasserstien"])
    with pytest.raises(NotFound, match="'y'"):
        compare(one, one, columns=["y"])
    with pytest.raises(SchemaMismatch, match="'x'"):
        compare(one, {"x": np.array(["1"], object)})
