"""What a check found: the records that both reports are made of, and the sentence at the top of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Cause", "CellFinding", "Kind", "Verdict"]

Kind = Literal[
    "missing file",
    "missing module",
    "name from a later cell",
    "name that no cell defines",
    "needs input",
    "network",
    "never ends",
    "process died",
    "error",
    "unseeded randomness",
    "time-dependent",
    "other output",
]


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a cell failed, or gives another output than it shows. `advice` is the next edit or command."""

    kind: Kind
    text: str
    advice: str = ""


@dataclass(frozen=True, slots=True)
class CellFinding:
    """One code cell; `number` counts code cells from 1, `stored_count` is the count in Jupyter's brackets.

    `output` compares with what the notebook shows; ``not stored`` where it shows nothing, ``none`` where the cell gives
    nothing either. `difference` says where the two differ first.
    """

    number: int
    source: str
    status: Literal["ran", "failed", "not reached"]
    seconds: float = 0.0
    output: Literal["equal", "different", "not stored", "none", ""] = ""
    difference: str = ""
    cause: Cause | None = None
    stored_count: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was found. `order` says in which way the stored counts are out of order; empty when they are not.

    `lock` holds ``name==version`` of each package that the notebook has imported; `written` the files outside of its
    folder that it has written, `hosts` the addresses it has asked for.
    """

    notebook: str
    python: str
    cells: tuple[CellFinding, ...]
    order: str = ""
    lock: tuple[str, ...] = ()
    written: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    runs: int = 1
    seconds: float = 0.0

    @property
    def ran(self) -> int:
        """How many code cells ran through."""
        return sum(cell.status == "ran" for cell in self.cells)

    @property
    def failed(self) -> CellFinding | None:
        """The cell that failed."""
        return next((cell for cell in self.cells if cell.status == "failed"), None)

    @property
    def different(self) -> tuple[CellFinding, ...]:
        """The cells that give another output than they show."""
        return tuple(cell for cell in self.cells if cell.output == "different")

    @property
    def reproduces(self) -> bool:
        """Whether all cells ran and none gives another output than it shows."""
        return self.failed is None and not self.different

    @property
    def sentence(self) -> str:
        """The verdict in one line."""
        whole = len(self.cells)
        if failed := self.failed:
            assert failed.cause is not None
            order = f" {self.order}." if self.order and failed.cause.kind.startswith("name") else ""
            return (
                f"{self.ran} of {whole} cells ran; cell {failed.number} failed: {failed.cause.text}.{order}"
            )
        start = f"{whole} of {whole} cells ran"
        if different := self.different:
            numbers = ", ".join(str(cell.number) for cell in different[:5])
            more = f" and {len(different) - 5} more" if len(different) > 5 else ""
            cell = "cell" if len(different) == 1 else "cells"
            cause = different[0].cause
            why = f": {cause.text}" if cause else ""
            return f"{start}, but {cell} {numbers}{more} gave another output than stored{why}."
        compared = sum(cell.output == "equal" for cell in self.cells)
        unstored = sum(cell.output == "not stored" for cell in self.cells)
        if not compared:
            return f"{start}; it stores no output to compare with."
        rest = f" ({unstored} had none stored)" if unstored else ""
        return f"{start}, {compared} outputs as stored{rest}."
