"""From columns to the matrices that compiled runtimes take: one conversion for all columns, and one look for gaps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loopwright.records import Column, Scalar
from loopwright.registry.blocks import Blocks
from loopwright.scoring.base import refuse_gaps

__all__ = ["Codes", "Numbers", "Texts"]

#: Up to this many values the sum of squares is the quickest way to find out that one is not a number. Above, the
#: library that computes it would take several threads.
SMALL = 4096

#: Where the columns of one block go: its place among the blocks, the columns of the matrix, the columns of the block.
_Move = tuple[int, Any, Any]


class _Assembly:
    """Some columns side by side, from blocks or from single columns."""

    def __init__(self, names: tuple[str, ...], dtype: np.dtype[Any]) -> None:
        self._names = names
        self._dtype = dtype
        self._at = {name: place for place, name in enumerate(names)}
        #: The blocks that were last met, and where their columns go. One value: another thread may replace it.
        self._known: tuple[tuple[tuple[str, ...], ...], list[_Move], list[str]] = ((), [], [])

    def matrix(self, columns: Mapping[str, NDArray[Any]], rows: int) -> NDArray[Any]:
        """Return the columns as one matrix of shape (rows, columns) in C order; KeyError names one that is absent."""
        if isinstance(columns, Blocks):
            found = columns.matrix(self._names)
            if found is not None:
                return found.astype(self._dtype, order="C", copy=False)
            return self._gathered(columns, rows)
        made = np.empty((rows, len(self._names)), self._dtype)
        for place, name in enumerate(self._names):
            made[:, place] = columns[name]
        return made

    def _gathered(self, columns: Blocks, rows: int) -> NDArray[Any]:
        seen = tuple([names for names, _ in columns.blocks])
        known = self._known
        if seen != known[0]:
            # Which block goes where is worked out once: the blocks of one signature are always the same.
            self._known = known = (seen, *self._plan(seen))
        made = np.empty((rows, len(self._names)), self._dtype)
        _, moves, single = known
        for block, there, here in moves:
            matrix = columns.blocks[block][1]
            made[:, there] = matrix if here is None else matrix[:, here]
        for name in single:
            made[:, self._at[name]] = columns.others[name]
        return made

    def _plan(self, seen: tuple[tuple[str, ...], ...]) -> tuple[list[_Move], list[str]]:
        moves: list[_Move] = []
        left = dict(self._at)
        for block, names in enumerate(seen):
            pairs = [(left.pop(name), place) for place, name in enumerate(names) if name in left]
            if pairs:
                there, here = [to for to, _ in pairs], [of for _, of in pairs]
                whole = len(here) == len(names)
                moves.append((block, _steps(there), None if whole else _steps(here)))
        return moves, list(left)


def _steps(places: list[int]) -> Any:
    """Return places as a slice where they follow each other, which is several times as quick as a list of them."""
    if places == list(range(places[0], places[0] + len(places))):
        return slice(places[0], places[0] + len(places))
    return places


class Numbers:
    """Columns of numbers and booleans as one matrix, in which no required one has a gap.

    Parameters
    ----------
    inputs
        The columns, in the order of the matrix.
    dtype
        The type of the matrix.
    rounded
        Bring the values to single precision first, whatever `dtype` is.
    """

    def __init__(self, inputs: Sequence[Column], dtype: Any, *, rounded: bool = False) -> None:
        self._inputs = tuple(inputs)
        self._dtype = np.dtype(dtype)
        self._rounded = rounded and self._dtype != np.float32
        self._assembly = _Assembly(
            tuple(column.name for column in inputs),
            np.dtype(np.float32) if rounded else self._dtype,
        )
        self._required = [place for place, column in enumerate(inputs) if column.required]

    def matrix(self, columns: Mapping[str, NDArray[Any]], rows: int) -> NDArray[Any]:
        """Return the matrix, shape (rows, columns).

        Raises
        ------
        SchemaMismatch
            A required number is missing; the first one, with its row.
        KeyError
            A column is absent.
        """
        made = self._assembly.matrix(columns, rows)
        if self._required and _has_gap(made) and _has_gap(made[:, self._required]):
            refuse_gaps(columns, self._inputs)
        return made.astype(self._dtype) if self._rounded else made


def _has_gap(matrix: NDArray[Any]) -> bool:
    if matrix.size <= SMALL:
        # A square is never below zero, so that no two infinities can make what is no number of them.
        total = np.vdot(matrix, matrix)
        return bool(total != total)
    return bool(np.isnan(matrix).any())


class Texts:
    """Columns of text as one matrix of `str`, with stand-ins for what is missing.

    Parameters
    ----------
    inputs
        The columns, in the order of the matrix.
    stand_ins
        What stands for missing text in the columns that may miss it.
    """

    def __init__(self, inputs: Sequence[Column], stand_ins: Mapping[str, str]) -> None:
        self._inputs = tuple(inputs)
        self._stand_ins = [stand_ins.get(column.name, "") for column in inputs]
        self._assembly = _Assembly(tuple(column.name for column in inputs), np.dtype(object))

    def matrix(self, columns: Mapping[str, NDArray[Any]], rows: int) -> NDArray[Any]:
        """Return the matrix, shape (rows, columns); raises as `Numbers.matrix` does."""
        made = self._assembly.matrix(columns, rows)
        if None in made.ravel().tolist():
            refuse_gaps(columns, self._inputs)
            made = made.copy()
            for place, stand_in in enumerate(self._stand_ins):
                items = made[:, place].tolist()
                made[:, place] = [stand_in if item is None else item for item in items]
        return made


class Codes:
    """Categories as the numbers that trees were fitted on, beside the columns of numbers.

    Parameters
    ----------
    inputs
        All columns, in the order of the matrix.
    dtype
        The type of the matrix.
    codes
        The values of each coded column, in the order of their codes. Any other value is missing.
    rounded
        Bring the numbers to single precision first.
    """

    def __init__(
        self,
        inputs: Sequence[Column],
        dtype: Any,
        codes: Mapping[str, Sequence[Scalar]],
        *,
        rounded: bool = False,
    ) -> None:
        self._dtype = np.dtype(dtype)
        self._width = len(inputs)
        self._coded = [column for column in inputs if column.name in codes]
        plain = [column for column in inputs if column.name not in codes]
        self._numbers = Numbers(plain, dtype, rounded=rounded) if plain else None
        places = {column.name: place for place, column in enumerate(inputs)}
        self._plain_at = _steps([places[column.name] for column in plain]) if plain else None
        self._look_up: list[tuple[str, int, Callable[..., Any]]] = [
            (name, places[name], {value: float(code) for code, value in enumerate(values)}.get)
            for name, values in codes.items()
        ]

    def matrix(self, columns: Mapping[str, NDArray[Any]], rows: int) -> NDArray[Any]:
        """Return the matrix, shape (rows, columns); raises as `Numbers.matrix` does."""
        refuse_gaps(columns, self._coded)
        made = np.empty((rows, self._width), self._dtype)
        if self._numbers is not None:
            made[:, self._plain_at] = self._numbers.matrix(columns, rows)
        for name, place, code in self._look_up:
            made[:, place] = [code(value, np.nan) for value in columns[name].tolist()]
        return made
