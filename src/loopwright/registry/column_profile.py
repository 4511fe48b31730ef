"""The profile of one column: fixed edges or categories, cut once on the training data, and the counts in them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import compress
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "MISSING",
    "QUANTILES",
    "ColumnProfile",
    "categorical_profile",
    "choosing",
    "hash_of",
    "histogram",
    "numbers_of",
    "numeric_profile",
]

#: What the segment of the rows is called that have no value in the segment's column.
MISSING = "(missing)"
#: Bins of a numeric column with many values, cut at its quantiles.
BINS = 20
#: Categories counted one by one; rarer ones are counted together.
CATEGORIES = 64
#: Rarer categories that are still known one by one, by their hashes: 32 kB for a column at most.
KNOWN = 4096
#: Quantiles are taken from at most this many values: sorting a million costs more than everything else together.
SAMPLE = 200_000
#: The quantiles that are kept of a numeric column.
QUANTILES = (0.001, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.999)


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """The distribution of one column in the training data.

    A numeric column has ``len(edges) + 1`` counts: bin i holds the values v with ``edges[i-1] < v <= edges[i]``, the
    first and the last bin are open. A categorical column has a count for each of `categories`, most frequent first,
    and `other` for all the rest. `nulls` are in no count. Moments are None for a categorical column, and when every
    value is missing. Times are seconds since 1970, booleans are the categories ``False`` and ``True``.

    Attributes
    ----------
    infinite
        How many numbers are infinite. They count in the first or the last bin and not in moments, range and quantiles.
    quantiles
        At `QUANTILES`, of the finite values; empty when there are none, and for a categorical column.
    known
        Sorted hashes (`hash_of`, 8 bytes each, little-endian) of the categories that are counted in `other`.
    complete
        Whether `categories` and `known` together are all categories of the training data: then one that is in neither
        was never seen. Where there were too many to keep, what is rare cannot be told from what is new.
    distinct
        How many categories there were.
    singletons
        How many categories occurred once.
    held
        The counts in half of the rows, laid out as `reference`, where `categories` were chosen by the other half;
        empty where all categories have a count of their own. See `comparable`.
    """

    name: str
    kind: Literal["numeric", "categorical"]
    rows: int
    nulls: int = 0
    edges: tuple[float, ...] = ()
    counts: tuple[int, ...] = ()
    categories: tuple[str, ...] = ()
    other: int = 0
    mean: float | None = None
    std: float | None = None
    minimum: float | None = None
    maximum: float | None = None
    infinite: int = 0
    quantiles: tuple[float, ...] = ()
    known: bytes = b""
    complete: bool = False
    distinct: int = 0
    singletons: int = 0
    held: tuple[int, ...] = ()

    @property
    def reference(self) -> tuple[int, ...]:
        """The training data's own counts, laid out as `histogram` lays them out."""
        if self.kind == "numeric":
            return (*self.counts, self.nulls)
        return (*self.counts, self.other, self.nulls)

    @property
    def comparable(self) -> tuple[int, ...]:
        """The counts that new rows can be tested against, laid out as `reference`.

        The 64 most frequent of a thousand equally likely categories are those that chance favoured, in the rows they were
        chosen by; any other rows would seem to have drifted. So they are chosen by half of the rows and counted in the
        other half.
        """
        return self.held or self.reference

    @property
    def tells_unseen(self) -> bool:
        """Whether a category that was never seen in training can be told from a rare one."""
        return self.kind == "categorical" and (self.complete or not self.other)

    @property
    def unseen_chance(self) -> float:
        """The chance, 0 to 1, that a row without any change holds a category that was never seen in training.

        References
        ----------
        Good (1953), The population frequencies of species and the estimation of population parameters.
        """
        return self.singletons / max(1, self.rows - self.nulls)


def numbers_of(values: NDArray[Any]) -> NDArray[np.float64]:
    """Return numbers, or times in seconds since 1970, as float64 of shape (n,); what is missing is NaN."""
    if values.dtype.kind == "M":
        seconds = values.astype("datetime64[us]").astype(np.int64) / 1e6
        return np.where(np.isnat(values), np.nan, seconds)
    return values.astype(np.float64)


def numeric_profile(
    name: str, values: NDArray[Any], edges: NDArray[np.float64] | None = None
) -> ColumnProfile:
    """Profile numbers or times, shape (n,).

    Parameters
    ----------
    edges
        Where to cut, ascending; by default at the 20-quantiles, or between the values when there are few.
    """
    numbers = numbers_of(values)
    present = numbers[~np.isnan(numbers)]
    finite = present[np.isfinite(present)]
    nulls, infinite = len(numbers) - len(present), len(present) - len(finite)
    if not len(finite):
        return ColumnProfile(name, "numeric", len(numbers), nulls, counts=(len(present),), infinite=infinite)
    ranked = _ranked(finite)
    edges = _edges(ranked) if edges is None else edges
    counts = np.bincount(np.searchsorted(edges, present, side="left"), minlength=len(edges) + 1)
    with np.errstate(over="ignore"):
        mean, std = float(finite.mean()), float(finite.std())
    return ColumnProfile(
        name,
        "numeric",
        len(numbers),
        nulls,
        tuple(edges.tolist()),
        tuple(counts.tolist()),
        mean=mean if np.isfinite(mean) else None,
        std=std if np.isfinite(std) else None,
        minimum=float(finite.min()),
        maximum=float(finite.max()),
        infinite=infinite,
        quantiles=tuple(_quantiles(ranked, QUANTILES).tolist()),
    )


def _ranked(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the values, or a sample of them, in ascending order."""
    if len(values) > SAMPLE:
        values = np.random.default_rng(0).choice(values, SAMPLE, replace=False)
    return np.sort(values)


def _quantiles(ranked: NDArray[np.float64], shares: Sequence[float]) -> NDArray[np.float64]:
    """Return values of the data themselves: half-way between two of them there may be no number."""
    return ranked[np.clip(np.ceil(np.multiply(shares, len(ranked))).astype(np.intp) - 1, 0, None)]


def _edges(ranked: NDArray[np.float64]) -> NDArray[np.float64]:
    distinct = ranked[np.r_[True, ranked[1:] != ranked[:-1]]]
    if len(distinct) <= BINS:
        # Half-way between neighbours, so that 3.0000001 still counts as 3. A constant gets a bin of its own: with one
        # open bin no change would ever show.
        if len(distinct) == 1:
            value = float(distinct[0])
            below = math.nextafter(value, -math.inf)
            return np.array([below, value] if math.isfinite(below) else [value])
        return np.asarray(distinct[:-1] / 2 + distinct[1:] / 2)
    # Ties make quantiles equal; an empty bin between two equal edges would make every index infinite.
    return np.unique(_quantiles(ranked, [step / BINS for step in range(1, BINS)]))


def hash_of(text: str) -> int:
    """Return 64 bits that stand for a category: the same in every process and on every machine."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _counted(items: Sequence[Any]) -> tuple[Counter[str], int]:
    """Count the present values as text, in the order of their first appearance, and those that are missing."""
    texts: Counter[str] = Counter()
    nulls = 0
    for item, count in Counter(items).items():
        if item is None or item != item:
            nulls += count
        else:
            texts[str(item)] += count
    return texts, nulls


def categorical_profile(name: str, values: NDArray[Any]) -> ColumnProfile:
    """Profile text, booleans or class labels, shape (n,): the 64 most frequent values and the rest."""
    items = values.tolist()
    texts, nulls = _counted(items)
    total = len(items) - nulls
    kept = texts.most_common()
    held: tuple[int, ...] = ()
    if len(kept) > CATEGORIES:
        kept, held = _halved(items, texts)
    categories = tuple(text for text, _ in kept)
    counts = tuple(count for _, count in kept)
    rest = texts.keys() - set(categories)
    complete = len(rest) <= KNOWN
    known = np.sort(np.fromiter(map(hash_of, rest), np.uint64, len(rest))) if complete else np.empty(0)
    return ColumnProfile(
        name,
        "categorical",
        len(items),
        nulls,
        counts=counts,
        categories=categories,
        other=total - sum(counts),
        known=known.astype("<u8").tobytes(),
        complete=complete,
        distinct=len(texts),
        singletons=sum(count == 1 for count in texts.values()),
        held=held,
    )


def choosing(rows: int) -> NDArray[np.bool_]:
    """Return which of n rows choose the categories: half of them, by chance, as rows may take turns; always the same."""
    return np.random.default_rng(0).random(rows) < 0.5


def _halved(items: Sequence[Any], texts: Counter[str]) -> tuple[list[tuple[str, int]], tuple[int, ...]]:
    """Choose categories by one half of the rows; return them with their counts, and those of the other half."""
    chosen_by, nulls = _counted(list(compress(items, choosing(len(items)).tolist())))
    # Counter keeps the order of first appearance among equals, so the same data always give the same profile.
    chosen = {text for text, _ in chosen_by.most_common(CATEGORIES)}
    kept = [(text, count) for text, count in texts.most_common() if text in chosen]
    counts = [count - chosen_by[text] for text, count in kept]
    total = texts.total() - chosen_by.total()
    missing = len(items) - texts.total() - nulls
    return kept, (*counts, total - sum(counts), missing)


def histogram(profile: ColumnProfile, values: NDArray[Any]) -> NDArray[np.int64]:
    """Count new values into the bins of a reference column.

    `loopwright.monitor.blocks` does the same for whole tables, much quicker, and counts more.

    Parameters
    ----------
    values
        Shape (n,), of the column's own type.

    Returns
    -------
    NDArray[np.int64]
        Laid out as `ColumnProfile.reference`. Numeric: one count per bin, then the missing values. Categorical: one
        count per known category, then all other values (unseen ones among them), then the missing values.
    """
    if profile.kind == "numeric":
        numbers = numbers_of(values)
        present = numbers[~np.isnan(numbers)]
        bins = np.searchsorted(np.asarray(profile.edges, dtype=np.float64), present, side="left")
        counts = np.bincount(bins, minlength=len(profile.edges) + 1)
        return np.append(counts, len(numbers) - len(present)).astype(np.int64)
    texts, nulls = _counted(values.tolist())
    own = [texts[category] for category in profile.categories]
    return np.array([*own, texts.total() - sum(own), nulls], np.int64)
