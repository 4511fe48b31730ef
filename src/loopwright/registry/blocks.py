"""Rows as blocks: the columns of one array type side by side in one matrix.

Requests arrive row by row, models and the prediction log take matrices. One conversion for all columns of a type, and
none at all on the way on, is what makes a single row cheap.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loopwright.records import Column
from loopwright.registry.columns import DTYPES

__all__ = ["Block", "Blocks", "blocks_of", "in_block"]

#: Names of columns of one array type and those columns as a matrix of shape (n, columns) in C order.
Block = tuple[tuple[str, ...], NDArray[Any]]


class Blocks(Mapping[str, NDArray[Any]]):
    """n rows by column name, as `Scorer.score` takes them, kept as blocks. Never changed once made.

    Parameters
    ----------
    rows
        How many rows there are.
    blocks
        Matrices of shape (rows, columns); a column may be in one block only.
    others
        Columns of their own, shape (rows,): times, and booleans or whole numbers with gaps.

    Examples
    --------
    >>> two = Blocks(2, ((("a", "b"), np.array([[1.0, 2.0], [3.0, 4.0]])),), {"c": np.array([5, 6])})
    >>> two["b"].tolist(), two["c"].tolist(), list(two)
    ([2.0, 4.0], [5, 6], ['a', 'b', 'c'])
    """

    __slots__ = ("_at", "blocks", "others", "rows")

    def __init__(self, rows: int, blocks: tuple[Block, ...], others: Mapping[str, NDArray[Any]]) -> None:
        self.rows = rows
        self.blocks = blocks
        self.others = others
        self._at: dict[str, NDArray[Any]] | None = None

    def _by_name(self) -> dict[str, NDArray[Any]]:
        if self._at is None:
            self._at = {
                name: matrix[:, place] for names, matrix in self.blocks for place, name in enumerate(names)
            } | dict(self.others)
        return self._at

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self._by_name()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name())

    def __len__(self) -> int:
        return len(self._by_name())

    def matrix(self, names: tuple[str, ...]) -> NDArray[Any] | None:
        """Return the matrix of a block that has exactly these columns in this order, else None."""
        for own, matrix in self.blocks:
            if own == names:
                return matrix
        return None

    def take(self, at: NDArray[np.intp] | slice) -> Blocks:
        """Return some of the rows."""
        blocks = tuple((names, matrix[at]) for names, matrix in self.blocks)
        rows = len(range(self.rows)[at]) if isinstance(at, slice) else len(at)
        return Blocks(rows, blocks, {name: values[at] for name, values in self.others.items()})

    @staticmethod
    def concatenated(parts: Sequence[Blocks]) -> Blocks:
        """Return the rows of several, which all have the same blocks, below each other."""
        first = parts[0]
        if len(parts) == 1:
            return first
        blocks = tuple(
            (names, np.concatenate([part.blocks[place][1] for part in parts]))
            for place, (names, _) in enumerate(first.blocks)
        )
        others = {name: np.concatenate([part.others[name] for part in parts]) for name in first.others}
        return Blocks(sum(part.rows for part in parts), blocks, others)


def in_block(column: Column) -> bool:
    """Whether a column goes into the block of its type: text, decimals, and what has no gaps."""
    if column.type in {"double", "float", "string"}:
        return True  # NaN and None stand for what is missing
    return column.required and column.type in {"boolean", "integer", "long"}


def blocks_of(columns: Mapping[str, NDArray[Any]], inputs: Sequence[Column], rows: int) -> Blocks:
    """Return columns of shape (rows,) as blocks of the inputs' types, in the inputs' order.

    The result has the same blocks for the same inputs, so that several can be put together with
    `Blocks.concatenated`. Every input must be there.
    """
    places: dict[Any, list[str]] = {}
    others = {}
    for column in inputs:
        if in_block(column):
            places.setdefault(DTYPES[column.type], []).append(column.name)
        else:
            others[column.name] = columns[column.name]
    made = []
    for dtype, names in places.items():
        matrix = np.empty((rows, len(names)), dtype)
        for place, name in enumerate(names):
            matrix[:, place] = columns[name]
        made.append((tuple(names), matrix))
    return Blocks(rows, tuple(made), others)
