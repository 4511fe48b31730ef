"""Drift: quiet when nothing has changed, at any sample size and cardinality; loud when something has."""

import numpy as np
import pytest
from numpy.typing import NDArray

from loopwright.monitor.drift import benjamini_hochberg, chi_square, pooled, psi, psi_null_quantile
from loopwright.registry.profile import ColumnProfile, categorical_profile, histogram, numeric_profile

CARDINALITIES = (2, 5, 20, 50, 100, 200, 500, 1000, 10, 1000)


class World:
    """Thirty features, twenty numeric and ten categorical with long tails, and their reference profiles."""

    def __init__(self, reference: int = 5000, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        shares = [1 / np.arange(1, size + 1) for size in CARDINALITIES]
        self.shares = [share / share.sum() for share in shares]
        self.profiles: list[ColumnProfile] = [
            numeric_profile(f"n{index}", column) for index, column in enumerate(self.numbers(reference))
        ] + [categorical_profile(f"c{index}", column) for index, column in enumerate(self.words(reference))]

    def numbers(self, rows: int) -> list[NDArray[np.float64]]:
        """Return twenty columns of normal numbers."""
        return [self.random.normal(size=rows) for _ in range(20)]

    def words(self, rows: int) -> list[NDArray[np.object_]]:
        """Return ten columns of words."""
        return [
            np.array([f"w{value}" for value in self.random.choice(len(share), rows, p=share)], object)
            for share in self.shares
        ]

    def fired(self, rows: int, shift: float = 0.0, floor: float = 0.02) -> list[bool]:
        """Return which features fire in a window; the first one is shifted by so many standard deviations."""
        columns = [*self.numbers(rows), *self.words(rows)]
        columns[0] = np.add(columns[0], shift)
        found = []
        for profile, column in zip(self.profiles, columns, strict=True):
            before, now = pooled(np.asarray(profile.reference, np.int64), histogram(profile, column))
            limit = max(floor, psi_null_quantile(len(before), int(before.sum()), int(now.sum())))
            found.append((psi(before, now) >= limit, chi_square(before, now)))
        sure = benjamini_hochberg(np.array([p for _, p in found]), 0.05)
        return [bool(large and significant) for (large, _), significant in zip(found, sure, strict=True)]


@pytest.mark.parametrize("rows", [200, 1000, 10_000])
def test_quiet_windows_do_not_alarm(rows: int) -> None:
    """Without any change, at most one window in twenty has a feature that fires."""
    world = World()
    assert sum(any(world.fired(rows)) for _ in range(40)) <= 2


@pytest.mark.parametrize(("rows", "shift"), [(1000, 0.5), (10_000, 0.2)])
def test_a_shift_that_matters_is_found_and_named(rows: int, shift: float) -> None:
    """Half a standard deviation in a thousand rows, or a fifth in ten thousand, fires for the shifted feature."""
    world = World()
    windows = [world.fired(rows, shift) for _ in range(20)]
    assert sum(window[0] for window in windows) >= 18
    assert sum(any(window[1:]) for window in windows) <= 2


def test_a_shift_too_small_to_matter_does_not_alarm() -> None:
    """A fiftieth of a standard deviation is significant in 200,000 rows, and still no alarm."""
    assert not World().fired(200_000, 0.02)[0]


def test_psi_of_the_same_shares_is_zero_and_grows_with_the_shift() -> None:
    """PSI is zero for equal shares, and more for more."""
    counts = np.array([100, 200, 300])
    assert psi(counts, counts) == 0.0
    assert psi(counts, counts[::-1]) > psi(counts, np.array([120, 200, 280])) > 0


def test_an_empty_bin_keeps_psi_finite() -> None:
    """A category that was never seen does not make the effect infinite."""
    assert np.isfinite(psi(np.array([100, 0]), np.array([50, 50])))


def test_thin_bins_are_pooled_and_no_row_is_lost() -> None:
    """Bins in which hardly a row is expected become one; the totals stay."""
    reference, current = np.array([500, 3, 2, 1, 400]), np.array([50, 1, 0, 1, 40])
    before, now = pooled(reference, current)
    assert len(before) < 5
    assert (before.sum(), now.sum()) == (reference.sum(), current.sum())


def test_benjamini_hochberg_on_the_published_example() -> None:
    """The fifteen p-values of Benjamini and Hochberg (1995), section 3.2: four are rejected at 5 %."""
    p = np.array(
        [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719]
    )
    p = np.append(p, [0.6528, 0.7590, 1.0])
    assert benjamini_hochberg(p, 0.05).sum() == 4
