"""Counting a deployment's log anew, and how far the counting is."""

from __future__ import annotations

from typing import NamedTuple

from loopwright.config import Project
from loopwright.ledger import Ledger
from loopwright.monitor.live.kept import Kept
from loopwright.monitor.live.source import Source
from loopwright.predictions import files

__all__ = ["Progress", "progress", "rebuild"]


class Progress(NamedTuple):
    """Rows of sealed segments that are counted, of how many; tails, which are counted as they grow, are in neither."""

    rows: int
    of: int

    @property
    def done(self) -> bool:
        """Whether all are counted."""
        return self.rows >= self.of


def rebuild(project: Project, ledger: Ledger, deployment: str) -> int:
    """Forget the live numbers of a deployment and return how many rows of segments are to be counted anew.

    A `Follower` does the counting, the newest first: that of the controller, which sees it within two seconds, or one
    that the caller turns.

    Raises
    ------
    Conflict
        The controller counted at this moment; call it again.
    """
    kept = Kept(ledger)
    source = Source(files.of_deployment(project, deployment))
    source.look()
    rows = {one.stem: one.rows if one.stem in source.replaced else 0 for one in source.segments}
    kept.begin(deployment, rows, kept.known(deployment).changes)
    return sum(one.rows for one in source.segments if one.stem not in source.replaced)


def progress(project: Project, ledger: Ledger, deployment: str) -> Progress:
    """Return how far a deployment's segments are counted."""
    known = Kept(ledger).known(deployment).rows
    counted = total = 0
    source = Source(files.of_deployment(project, deployment))
    source.look()
    for segment in source.segments:
        if segment.stem in known:
            counted += min(known[segment.stem], segment.rows)
            total += segment.rows
    return Progress(counted, total)
