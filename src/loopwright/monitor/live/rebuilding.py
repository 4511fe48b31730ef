"""Counting a deployment's log anew, and how far the counting is."""

from __future__ import annotations

from typing import NamedTuple

from loopwright.config import Project
from loopwright.errors import Conflict, NotFound
from loopwright.ledger import Ledger
from loopwright.monitor.live.kept import Kept, Known
from loopwright.predictions import files
from loopwright.predictions.compaction import locked
from loopwright.predictions.files import LogFolder

__all__ = ["Progress", "begin", "progress", "rebuild"]


class Progress(NamedTuple):
    """Rows of sealed segments that are counted, of how many; tails, which are counted as they grow, are in neither."""

    rows: int
    of: int

    @property
    def done(self) -> bool:
        """Whether all are counted."""
        return self.rows >= self.of


def begin(kept: Kept, folder: LogFolder, deployment: str, known: Known) -> Known:
    """Forget the live numbers of a deployment, and note that no row of the segments there are is counted.

    No segment is merged meanwhile: who merges asks what is counted, and notes it of what it makes.

    Raises
    ------
    Conflict
        The segments are being merged, or somebody counts at this moment.
    """
    with locked(folder) as mine:
        if not mine:
            raise Conflict(
                f"The predictions of {deployment!r} are being merged at this moment.",
                hint="try again in a minute",
            )
        return kept.begin(deployment, [segment.stem for segment in folder.segments()], known.changes)


def rebuild(project: Project, ledger: Ledger, deployment: str) -> int:
    """Forget the live numbers of a deployment and return how many rows of segments are to be counted anew.

    A `Follower` does the counting, the newest first: that of the controller, which sees it within two seconds, or one
    that the caller turns.

    Raises
    ------
    Conflict
        The controller counted, or merged segments, at this moment; call it again.
    NotFound
        Nothing was ever logged under this name.
    """
    known = files.deployments(project)
    if deployment not in known:
        raise NotFound.among("log of a deployment", deployment, known, hint="loopwright deployment list")
    kept, folder = Kept(ledger), files.of_deployment(project, deployment)
    begin(kept, folder, deployment, kept.known(deployment))
    return sum(segment.rows for segment in folder.segments())


def progress(project: Project, ledger: Ledger, deployment: str) -> Progress:
    """Return how far a deployment's segments are counted."""
    known = Kept(ledger).known(deployment).rows
    segments = files.of_deployment(project, deployment).segments()
    counted = sum(min(known.get(one.stem, 0), one.rows) for one in segments)
    return Progress(counted, sum(one.rows for one in segments))
