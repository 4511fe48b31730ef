"""The reference profile: how the training data and the predictions on it were distributed.

Fixed edges are cut once, on the training data, and stored with the version; monitors only count into them, which
needs no sort and can be added up over windows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from loopwright.errors import Damaged
from loopwright.records import Signature, Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = [
    "ColumnProfile",
    "Profile",
    "categorical_profile",
    "histogram",
    "numeric_profile",
    "profile_of",
    "read_profile",
]

#: Bins of a numeric column with many values, cut at its quantiles.
BINS = 20
#: Categories counted one by one; rarer ones are counted together.
CATEGORIES = 64
#: Quantiles are taken from at most this many values: sorting a million costs more than everything else together.
SAMPLE = 200_000


@dataclass(frozen=True, slots=True)
class ColumnProfile:
    """The distribution of one column in the training data.

    A numeric column has ``len(edges) + 1`` counts: bin i holds the values v with ``edges[i-1] < v <= edges[i]``, the
    first and the last bin are open. A categorical column has a count for each of `categories`, most frequent first,
    and `other` for all the rest. `nulls` are in no count. Moments are None for a categorical column, and when every
    value is missing. Times are seconds since 1970, booleans are the categories ``False`` and ``True``.
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

    @property
    def reference(self) -> tuple[int, ...]:
        """The training data's own counts, laid out as `histogram` lays them out."""
        if self.kind == "numeric":
            return (*self.counts, self.nulls)
        return (*self.counts, self.other, self.nulls)


@dataclass(frozen=True, slots=True)
class Profile:
    """The profiles of all inputs and of the prediction, with the model's metrics when it was registered.

    `performance` holds metrics by name; those passed to `register` go before those on the training rows. `dataset` is
    the digest of the training snapshot.
    """

    columns: tuple[ColumnProfile, ...]
    prediction: ColumnProfile
    rows: int
    performance: dict[str, float] = field(default_factory=dict)
    dataset: str = ""

    def column(self, name: str) -> ColumnProfile | None:
        """Return the profile of one input, or None."""
        return next((column for column in self.columns if column.name == name), None)


def profile_of(
    columns: Mapping[str, NDArray[Any]],
    signature: Signature,
    prediction: NDArray[Any],
    *,
    performance: Mapping[str, float] | None = None,
    dataset: str = "",
) -> Profile:
    """Profile training rows and the predictions on them.

    Parameters
    ----------
    columns
        One array of shape (n,) for each input of the signature, as `arrays_of` gives them.
    prediction
        The model's answers on those rows or a sample of them, shape (m,), m >= 1. Of several outputs, shape
        (m, outputs), the first is profiled.
    """
    profiles = tuple(
        categorical_profile(column.name, columns[column.name])
        if column.type in {"string", "boolean"}
        else numeric_profile(column.name, columns[column.name])
        for column in signature.inputs
    )
    prediction = prediction[:, 0] if prediction.ndim == 2 else prediction
    of_prediction = numeric_profile if signature.task == Task.regression else categorical_profile
    rows = len(next(iter(columns.values()))) if columns else len(prediction)
    return Profile(profiles, of_prediction("prediction", prediction), rows, dict(performance or {}), dataset)


def _numbers(values: NDArray[Any]) -> NDArray[np.float64]:
    if values.dtype.kind == "M":
        seconds = values.astype("datetime64[us]").astype(np.int64) / 1e6
        return np.where(np.isnat(values), np.nan, seconds)
    return values.astype(np.float64)


def numeric_profile(name: str, values: NDArray[Any]) -> ColumnProfile:
    """Profile numbers or times, shape (n,): bins at the 20-quantiles, or one for each value when there are few."""
    numbers = _numbers(values)
    present = numbers[~np.isnan(numbers)]
    finite = present[np.isfinite(present)]
    nulls = len(numbers) - len(present)
    if not len(finite):
        return ColumnProfile(name, "numeric", len(numbers), nulls, counts=(len(present),))
    edges = _edges(finite)
    counts = np.bincount(np.searchsorted(edges, present, side="left"), minlength=len(edges) + 1)
    return ColumnProfile(
        name,
        "numeric",
        len(numbers),
        nulls,
        tuple(edges.tolist()),
        tuple(counts.tolist()),
        mean=float(finite.mean()),
        std=float(finite.std()),
        minimum=float(finite.min()),
        maximum=float(finite.max()),
    )


def _edges(values: NDArray[np.float64]) -> NDArray[np.float64]:
    if len(values) > SAMPLE:
        values = np.random.default_rng(0).choice(values, SAMPLE, replace=False)
    distinct = np.unique(values)
    if len(distinct) <= BINS:
        # Half-way between neighbours, so that 3.0000001 still counts as 3. A constant gets a bin of its own: with one
        # open bin no change would ever show.
        if len(distinct) == 1:
            value = float(distinct[0])
            return np.array([np.nextafter(value, -np.inf), value])
        return np.asarray((distinct[:-1] + distinct[1:]) / 2)
    # Ties make quantiles equal; an empty bin between two equal edges would make every index infinite.
    return np.unique(np.quantile(values, np.linspace(0, 1, BINS + 1)[1:-1]))


def _texts(values: NDArray[Any]) -> tuple[list[str], int]:
    """Return the present values as text, and how many are missing."""
    items = values.tolist()
    texts = [str(item) for item in items if item is not None and item == item]
    return texts, len(items) - len(texts)


def categorical_profile(name: str, values: NDArray[Any]) -> ColumnProfile:
    """Profile text, booleans or class labels, shape (n,): the 64 most frequent values and the rest."""
    texts, nulls = _texts(values)
    # Counter keeps the order of first appearance among equals, so the same data always give the same profile.
    kept = Counter(texts).most_common(CATEGORIES)
    return ColumnProfile(
        name,
        "categorical",
        len(texts) + nulls,
        nulls,
        counts=tuple(count for _, count in kept),
        categories=tuple(text for text, _ in kept),
        other=len(texts) - sum(count for _, count in kept),
    )


def histogram(profile: ColumnProfile, values: NDArray[Any]) -> NDArray[np.int64]:
    """Count new values into the bins of a reference column.

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
        numbers = _numbers(values)
        present = numbers[~np.isnan(numbers)]
        bins = np.searchsorted(np.asarray(profile.edges, dtype=np.float64), present, side="left")
        counts = np.bincount(bins, minlength=len(profile.edges) + 1)
        return np.append(counts, len(numbers) - len(present)).astype(np.int64)
    texts, nulls = _texts(values)
    places = {category: place for place, category in enumerate(profile.categories)}
    known = len(profile.categories)
    counts = np.bincount([places.get(text, known) for text in texts] or [known], minlength=known + 1)
    if not texts:
        counts[known] = 0
    return np.append(counts, nulls).astype(np.int64)


def read_profile(path: Path) -> Profile:
    """Read a profile back from `profile.json`.

    Raises
    ------
    Damaged
        The file is no profile.
    """
    import msgspec

    try:
        return msgspec.json.decode(path.read_bytes(), type=Profile)
    except msgspec.DecodeError as error:
        raise Damaged(f"{path} is no reference profile: {error}.") from error
