"""Additive counts: the unit of all live numbers, and of the drift of a window.

A block holds the counts of rows in the bins of a version's reference profile. Blocks of the same plan are added up: over
workers, minutes, hours and segments, in any order, to exactly what counting all rows at once gives.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from loopwright.errors import Damaged, InvalidInput
from loopwright.monitor import counting
from loopwright.monitor.binning import Bins, NumericBins
from loopwright.records import Signature, Task
from loopwright.registry.column_profile import ColumnProfile
from loopwright.registry.profile import SCORE_EDGES, Profile

__all__ = ["LATENCY_EDGES", "Block", "ColumnCounts", "Plan"]

#: Where latencies are cut, in milliseconds: 32 bins a decade from 10 us to 100 s.
LATENCY_EDGES: NDArray[np.float64] = np.logspace(-2, 5, 7 * 32 + 1)
_LATENCIES = len(LATENCY_EDGES) + 1
#: Where the counts of numeric columns begin: behind the rows and the latencies.
_NUMBERS = 1 + _LATENCIES
#: Where each column of the log comes from.
_INPUT, _PREDICTION, _PROBABILITY, _LATENCY = "input_", "prediction", "probability", "latency_ms"
_NAMED = {"prediction": _PREDICTION, "score": _PROBABILITY}
_HEAD = struct.Struct("<4s8sB")
_MAGIC = b"LWB\x01"


@dataclass(frozen=True, slots=True)
class ColumnCounts:
    """The counts of one column in a block.

    Attributes
    ----------
    bins
        Laid out as the profile's `reference`: one count per bin, or one per category and then all other values; the
        missing values last.
    rows
        How many rows were counted, 0 where the log did not have the column.
    missing
        Null, NaN, or not readable as the column's type.
    unseen
        Categories that the training data did not have; they are in `bins` among the other values. Always 0 where the
        profile cannot tell (`ColumnProfile.tells_unseen`).
    other
        Rare categories that the training data had; where the profile cannot tell, unseen ones as well.
    infinite, below, above
        Numbers that are infinite, and those below and above the range of the training data, infinite ones among them.
    n, mean, std, minimum, maximum
        Of the finite numbers; None where there are none. The standard deviation is the population's. It and the mean are
        None as well where squares are beyond all decimals.
    """

    name: str
    kind: Literal["numeric", "categorical"]
    bins: NDArray[np.int64]
    rows: int
    missing: int
    unseen: int = 0
    other: int = 0
    infinite: int = 0
    below: int = 0
    above: int = 0
    n: int = 0
    mean: float | None = None
    std: float | None = None
    minimum: float | None = None
    maximum: float | None = None


class Plan:
    """The bins of one version: from its reference profile, or without inputs where it has none.

    Blocks are only added to blocks of a plan with the same `digest`, which stands for all bins.
    """

    def __init__(self, columns: tuple[tuple[str, ColumnProfile], ...]) -> None:
        self.columns = columns
        self._numeric = tuple((source, NumericBins(one)) for source, one in columns if one.kind == "numeric")
        self._texts = tuple((source, one) for source, one in columns if one.kind == "categorical")
        self._places = tuple(counting.Places(one) for _, one in self._texts)
        self._bins = Bins([one for _, one in self._numeric])
        after = _NUMBERS + len(self._numeric) * self._bins.stride
        starts = np.cumsum([after, *(places.width for places in self._places)]).tolist()
        self._starts, self._width = starts[:-1], starts[-1]
        self._known: dict[str, tuple[Literal["numeric", "categorical"], int]] = {
            **{source: ("numeric", place) for place, (source, _) in enumerate(self._numeric)},
            **{source: ("categorical", place) for place, (source, _) in enumerate(self._texts)},
        }
        self.digest = self._digest()

    @classmethod
    def of(cls, profile: Profile | None, signature: Signature | None = None) -> Plan:
        """Return the plan of a version.

        Parameters
        ----------
        profile
            Its reference profile. Without one only predictions, scores, latencies and rows are counted.
        signature
            Says what is predicted where no profile does.
        """
        columns: list[tuple[str, ColumnProfile]] = []
        if profile is not None:
            columns = [(_INPUT + column.name, column) for column in profile.columns]
            prediction = profile.prediction
        elif signature is not None and signature.task is Task.classification:
            classes = tuple(map(str, signature.classes))
            nothing = (0,) * len(classes)
            prediction = ColumnProfile(_PREDICTION, "categorical", 0, counts=nothing, categories=classes)
        else:
            prediction = ColumnProfile(_PREDICTION, "numeric", 0, counts=(0,))
        columns.append((_PREDICTION, prediction))
        if prediction.kind == "categorical":
            nothing = (0,) * (len(SCORE_EDGES) + 1)
            scores = ColumnProfile("score", "numeric", 0, edges=SCORE_EDGES, counts=nothing)
            columns.append((_PROBABILITY, (profile and profile.scores) or scores))
        return cls(tuple(columns))

    def _digest(self) -> str:
        digest = blake2b(digest_size=8)
        for source, one in self.columns:
            facts = (
                source,
                one.kind,
                one.edges,
                one.categories,
                one.complete,
                one.minimum,
                one.maximum,
                one.mean,
            )
            digest.update(repr(facts).encode("utf-8", "surrogatepass"))
            digest.update(one.known)
        return digest.hexdigest()

    @property
    def sources(self) -> tuple[str, ...]:
        """The columns of the log that are counted."""
        return (*(source for source, _ in self.columns), _LATENCY)

    def place(self, source: str) -> tuple[Literal["numeric", "categorical"], int] | None:
        """Return the kind of a column of the log and its number among those of its kind; None where it is not counted."""
        return self._known.get(source)

    def numeric(self, place: int) -> tuple[NumericBins, int, int]:
        """Return the bins of a numeric column, how many counts each such column has, and how many there are."""
        return self._numeric[place][1], self._bins.stride, len(self._numeric)

    def texts(self, place: int) -> tuple[counting.Places, int]:
        """Return the places of a categorical column, and where its counts begin."""
        return self._places[place], self._starts[place]

    def empty(self) -> Block:
        """Return a block without rows."""
        return Block(
            self,
            np.zeros(self._width, np.int64),
            np.zeros(2 * len(self._numeric) + 1),
            np.full(2 * len(self._numeric), np.inf),
        )

    def count(self, columns: Any) -> Block:
        """Count rows into a new block.

        Parameters
        ----------
        columns
            A pyarrow Table or RecordBatch, or a mapping of arrays of one length, NumPy or Arrow, with the log's names:
            ``input_<name>``, ``prediction``, ``probability``, ``latency_ms``. What is not there is not counted; what no
            plan has is passed over.
        """
        block = self.empty()
        for rows, batch in counting.batches(columns):
            if rows:
                block.counts[0] += rows
                self._count_latency(block, batch)
                self._count_numbers(block, batch, rows)
                self._count_texts(block, batch)
        return block

    def _count_latency(self, block: Block, batch: Mapping[str, Any]) -> None:
        if _LATENCY not in batch:
            return
        found = counting.numbers(batch[_LATENCY])
        values = np.empty(len(found.values))
        found.into(values, 0)
        values = values[np.isfinite(values)]
        bins = np.searchsorted(LATENCY_EDGES, values, side="left")
        block.counts[1:_NUMBERS] += np.bincount(bins, minlength=_LATENCIES)
        block.sums[-1] += values.sum()

    def _count_texts(self, block: Block, batch: Mapping[str, Any]) -> None:
        for (source, _), places, start in zip(self._texts, self._places, self._starts, strict=True):
            if source in batch:
                column = counting.first_of_each(batch[source]) if source == _PREDICTION else batch[source]
                block.counts[start : start + places.width] += places.counts(column)

    def _count_numbers(self, block: Block, batch: Mapping[str, Any], rows: int) -> None:
        found: list[counting.Numbers | None] = []
        for source, _ in self._numeric:
            column = batch.get(source)
            if column is None:
                found.append(None)
            elif source == _PROBABILITY:
                found.append(counting.Numbers(counting.scores(column, rows)))
            else:
                column = counting.first_of_each(column) if source == _PREDICTION else column
                found.append(counting.numbers(column))
        counts = block.counts[_NUMBERS : _NUMBERS + len(found) * self._bins.stride]
        self._bins.count(found, rows, counts, block.sums[:-1], block.ends)

    def loads(self, data: bytes) -> Block:
        """Return a block from what `Block.dumps` gave.

        Raises
        ------
        Damaged
            It is no block.
        InvalidInput
            It is a block of another plan.
        """
        try:
            magic, digest, width = _HEAD.unpack_from(data)
            if magic != _MAGIC or width not in {1, 2, 4, 8}:
                raise ValueError("it begins otherwise")
            if digest.hex() != self.digest:
                raise InvalidInput(
                    f"The block has the bins {digest.hex()}.",
                    valid=f"This plan's are {self.digest}: blocks are read and added with the bins they were counted in.",
                )
            body = zlib.decompress(data[_HEAD.size :])
            whole = self._width * width
            counts = np.frombuffer(body[:whole], f"<u{width}").astype(np.int64)
            rest = np.frombuffer(body[whole:], "<f8").copy()
        except (struct.error, zlib.error, ValueError) as error:
            raise Damaged(f"These {len(data)} bytes are no block of counts: {error}.") from error
        k = 2 * len(self._numeric)
        if len(counts) != self._width or len(rest) != 2 * k + 1:
            raise Damaged(f"A block of {len(counts)} counts was expected to have {self._width}.")
        return Block(self, counts, rest[: k + 1], rest[k + 1 :])


class Block:
    """Counts of n rows in the bins of a plan, made by `Plan.count`, `Plan.empty` and `Plan.loads`.

    Three flat arrays, so that adding is three additions: `counts`, `sums` (of numbers and of their squares, around the
    mean of the training data, and of latencies) and `ends` (smallest, and largest with its sign changed).
    """

    __slots__ = ("counts", "ends", "plan", "sums")

    def __init__(
        self, plan: Plan, counts: NDArray[np.int64], sums: NDArray[np.float64], ends: NDArray[np.float64]
    ) -> None:
        self.plan, self.counts, self.sums, self.ends = plan, counts, sums, ends

    @property
    def rows(self) -> int:
        """How many rows were counted."""
        return int(self.counts[0])

    def add(self, other: Block) -> None:
        """Add the counts of another block of the same plan.

        Raises
        ------
        InvalidInput
            It has other bins.
        """
        if other.plan is not self.plan and other.plan.digest != self.plan.digest:
            raise InvalidInput(
                f"A block with the bins {other.plan.digest} cannot be added to one with {self.plan.digest}.",
                valid="Blocks of one version are added up.",
            )
        self.counts += other.counts
        self.sums += other.sums
        np.minimum(self.ends, other.ends, out=self.ends)

    def column(self, name: str) -> ColumnCounts | None:
        """Return the counts of an input, of ``prediction`` or of ``score``; None where the plan has none such.

        Of an input that is called as they are, the input's.
        """
        for source in (_INPUT + name, _NAMED.get(name, "")):
            found = self.plan.place(source)
            if found is not None:
                return self._column(name, *found)
        return None

    @property
    def prediction(self) -> ColumnCounts:
        """The counts of the predictions."""
        found = self.plan.place(_PREDICTION)
        assert found is not None  # every plan has it
        return self._column(_PREDICTION, *found)

    @property
    def score(self) -> ColumnCounts | None:
        """The counts of the scores; None for a regression."""
        found = self.plan.place(_PROBABILITY)
        return self._column("score", *found) if found else None

    def _column(self, name: str, kind: Literal["numeric", "categorical"], place: int) -> ColumnCounts:
        if kind == "categorical":
            places, start = self.plan.texts(place)
            counts = self.counts[start : start + places.width]
            *_, other, unseen, missing = counts.tolist()
            bins = np.r_[counts[:-3], other + unseen, missing]
            return ColumnCounts(name, kind, bins, int(counts.sum()), missing, unseen, other)
        bins_of, stride, columns = self.plan.numeric(place)
        start = _NUMBERS + place * stride
        counts = self.counts[start : start + len(bins_of.cuts) + 1]
        bins = np.zeros(len(bins_of.profile.edges) + 2, np.int64)
        np.add.at(bins, bins_of.bins, counts)
        infinite, missing, rows = int(counts[bins_of.infinite].sum()), int(counts[0]), int(counts.sum())
        n = rows - missing - infinite
        mean = std = low = high = None
        if n:
            shift, square = self.sums[place] / n, self.sums[place + columns] / n
            with np.errstate(over="ignore", invalid="ignore"):
                variance = square - shift * shift
            # Beyond all decimals both are unknown.
            if np.isfinite(variance):
                mean = float((bins_of.profile.mean or 0.0) + shift)
                std = math.sqrt(max(0.0, float(variance)))
            low, high = float(self.ends[place]), float(-self.ends[place + columns])
        return ColumnCounts(
            name,
            kind,
            bins,
            rows,
            missing,
            infinite=infinite,
            below=int(counts[bins_of.below].sum()),
            above=int(counts[bins_of.above].sum()),
            n=n,
            mean=mean,
            std=std,
            minimum=low,
            maximum=high,
        )

    @property
    def latencies(self) -> NDArray[np.int64]:
        """The latency histogram: the last count is of those above 100 s, count i of those up to `LATENCY_EDGES[i]`."""
        return self.counts[1:_NUMBERS]

    @property
    def latency_mean(self) -> float | None:
        """The mean latency in milliseconds, None where none was logged."""
        n = int(self.latencies.sum())
        return float(self.sums[-1] / n) if n else None

    def latency(self, quantile: float) -> float | None:
        """Return a quantile of the latency in milliseconds, None where none was logged.

        Read off the histogram, and in between by the logarithm: it lies in the bin of the exact one, which is 7.5 % wide,
        so it is off by less than that from 10 us to 100 s. Beyond, it is the nearest of the two.

        Parameters
        ----------
        quantile
            From 0 to 1.
        """
        counts = self.latencies
        n = int(counts.sum())
        if not n:
            return None
        below = np.cumsum(counts)
        rank = quantile * n
        place = int(np.searchsorted(below, max(rank, 1e-9), side="left"))
        place = min(place, len(counts) - 1)
        if place in {0, len(counts) - 1}:
            return float(LATENCY_EDGES[0 if place == 0 else -1])
        low, high = LATENCY_EDGES[place - 1], LATENCY_EDGES[place]
        share = (rank - (below[place] - counts[place])) / counts[place]
        return float(low * (high / low) ** min(1.0, max(0.0, share)))

    def dumps(self) -> bytes:
        """Return the block in a compact form for `Plan.loads`: about 1.5 kB for a minute of thirty columns."""
        most = int(self.counts.max())
        width = next(width for width in (1, 2, 4, 8) if most < 1 << 8 * width)
        head = _HEAD.pack(_MAGIC, bytes.fromhex(self.plan.digest), width)
        floats = self.sums.astype("<f8").tobytes() + self.ends.astype("<f8").tobytes()
        return head + zlib.compress(self.counts.astype(f"<u{width}").tobytes() + floats, 1)
