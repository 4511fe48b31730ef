"""The verdict on a notebook: whether it runs from top to bottom and gives what it shows."""

from loopwright.tracking.notebooks.verdict.check import check
from loopwright.tracking.notebooks.verdict.findings import CellFinding, Verdict

__all__ = ["CellFinding", "Verdict", "check"]
