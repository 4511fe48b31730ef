"""Counting rows of the prediction log into the blocks of their version's spans, before anything is written."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from loopwright.monitor.blocks import Block, Plan
from loopwright.monitor.live.kept import Key
from loopwright.monitor.live.spans import HOUR_S, MINUTE_S, SPANS_S
from loopwright.predictions import columns

__all__ = ["Counted"]


class Counted:
    """Rows that were read and not yet written.

    Parameters
    ----------
    plan
        Returns the bins of a version.
    hidden
        Columns of the log that do not hold what the model was given.
    minutes_from_us
        Rows before this moment are not counted by the minute.

    Attributes
    ----------
    rows
        How far each file is read, by its stem.
    blocks
        What is to be added.
    total
        How many rows were counted.
    """

    def __init__(self, plan: Callable[[int], Plan], hidden: frozenset[str], minutes_from_us: int) -> None:
        self._plan = plan
        self._hidden = hidden
        self._minutes_from_us = minutes_from_us
        self.rows: dict[str, int] = {}
        self.blocks: dict[Key, Block] = {}
        self.total = 0

    def add(self, batch: Any, model: str) -> None:
        """Count a record batch of the log's table. Rows of another model than the deployment's have no bins here."""
        if model and pc.unique(batch.column("model")).to_pylist() != [model]:
            batch = batch.filter(pc.equal(batch.column("model"), model))
        if not batch.num_rows:
            return
        for version, span_s, start_us, part in self._parts(batch):
            plan = self._plan(version)
            names = {*plan.sources} - self._hidden
            counted = plan.count({name: part.column(name) for name in part.schema.names if name in names})
            for wider_s in SPANS_S:
                if wider_s >= span_s:
                    self._into(Key(version, wider_s, start_us - start_us % (wider_s * 1_000_000)), counted)
        self.total += batch.num_rows

    def _into(self, key: Key, counted: Block) -> None:
        block = self.blocks.get(key)
        if block is None:
            block = self.blocks[key] = counted.plan.empty()
        block.add(counted)

    def _parts(self, batch: Any) -> Iterator[tuple[int, int, int, Any]]:
        """Yield the rows of each version and minute, or hour where minutes are not counted: both, the start, the rows."""
        at = columns.values_of(batch.column("at"), np.int64)
        versions = columns.values_of(batch.column("version"), np.int32).astype(np.int64)
        spans = np.where(at >= self._minutes_from_us, MINUTE_S, HOUR_S)
        starts = at - at % (spans * 1_000_000)
        if not _changes(starts, versions).any():
            yield int(versions[0]), int(spans[0]), int(starts[0]), batch
            return
        order = np.lexsort((starts, versions))
        if (np.diff(order) != 1).any():
            batch = batch.take(columns.numbers(order, pa.int64()))
            starts, versions, spans = starts[order], versions[order], spans[order]
        cuts = [0, *(np.flatnonzero(_changes(starts, versions)) + 1).tolist(), batch.num_rows]
        for first, last in itertools.pairwise(cuts):
            part = batch.slice(first, last - first)
            yield int(versions[first]), int(spans[first]), int(starts[first]), part


def _changes(starts: NDArray[np.int64], versions: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return behind which rows another span or version begins, shape (n - 1,)."""
    return np.asarray((np.diff(starts) != 0) | (np.diff(versions) != 0))
