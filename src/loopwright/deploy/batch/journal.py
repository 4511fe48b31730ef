"""What a killed job leaves behind, so that the next one neither loses nor repeats a logged prediction."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from loopwright.config import Project
from loopwright.predictions import PredictionStore

__all__ = ["Journal"]


class Journal:
    """The ids of the one chunk that may be logged but not yet written to the sink.

    A chunk goes first to the prediction log and then to the sink, because the sink is what a new run looks at to find
    out what is done: in the other order a kill between the two would leave rows in the sink that no run ever logs
    again. In this order it leaves rows in the log that the next run scores again and must not log again. Which ones
    those are is found by asking the log for the ids in this file: once, after a crash, and never in a normal run.

    Parameters
    ----------
    project
        The project.
    deployment
        The batch deployment.
    """

    def __init__(self, project: Project, deployment: str) -> None:
        self._path = project.state / "batch" / f"{deployment}.unfinished"
        self._logged = self._left_over(project, deployment)

    def _left_over(self, project: Project, deployment: str) -> set[str]:
        try:
            ids = json.loads(self._path.read_text())
        except FileNotFoundError:
            return set()
        if not ids:
            return set()
        wanted = ", ".join(f"'{one}'" for one in ids)
        query = f"select prediction_id from predictions where prediction_id in ({wanted})"
        return set(PredictionStore(project).query(query, deployment=deployment)["prediction_id"].to_pylist())

    def logged(self, ids: Sequence[str]) -> list[bool]:
        """Return for each id whether a killed run has logged it."""
        return [one in self._logged for one in ids]

    @contextmanager
    def chunk(self, ids: Sequence[str]) -> Iterator[None]:
        """Remember these ids until the block ends well. They stay remembered when it does not, or never ends."""
        self._write(sorted(self._logged.union(ids)))
        yield
        self._logged.difference_update(ids)
        if self._logged:
            self._write(sorted(self._logged))
        else:
            self._path.unlink()

    def finish(self) -> None:
        """Forget what is left when all rows are done: rows that have gone, or are another version's to score now."""
        self._path.unlink(missing_ok=True)

    def _write(self, ids: list[str]) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix(f".{os.getpid()}")
        with temporary.open("w") as file:
            json.dump(ids, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._path)
