"""Labels out of a file, once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from loopwright.config import LabelSourceConfig, Project
from loopwright.deploy.labels.rows import Rows
from loopwright.deploy.labels.table import is_textual, read_csv, read_parquet
from loopwright.errors import InvalidInput, NotFound
from loopwright.predictions import Ids, LabelLog, PredictionStore

__all__ = ["Imported", "import_file"]


@dataclass(frozen=True, slots=True)
class Imported:
    """What came of a file.

    Attributes
    ----------
    rows, taken
        Rows that were read, and how many were labels.
    unlogged
        Labels for ids that were given out but are not in the log: they are kept and count when it has them.
    refused
        How many rows were no labels, for each reason; and the first of them, each with its number from 1 on.
    """

    rows: int
    taken: int
    unlogged: int
    refused: dict[str, int] = field(default_factory=dict)
    examples: tuple[tuple[int, str], ...] = ()


def import_file(
    project: Project,
    file: Path,
    config: LabelSourceConfig,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Imported:
    """Append the labels of a CSV or Parquet file; rows that are none stop nothing.

    Parameters
    ----------
    config
        Which columns say what.
    progress
        Told how much has been read of how much.

    Raises
    ------
    NotFound
        There is no such file, or it lacks a column.
    InvalidInput
        It is neither CSV nor Parquet.
    Unavailable
        The disk does not take them; what was appended before stays.
    """
    if not file.is_file():
        raise NotFound(f"There is no file {file}.", hint=f"ls {file.parent}")
    csv = is_textual(file.name)
    if not csv and file.suffix.lower() not in {".parquet", ".pq"}:
        raise InvalidInput(
            f"{file} is neither CSV nor Parquet.", valid="Endings: .csv, .csv.gz, .tsv, .parquet."
        )
    log = LabelLog(project, durability=project.config.serving.durability)
    rows = Rows(config, Ids.open(project), log, textual=csv)
    ids: list[str] = []
    taken = 0
    try:
        read = read_csv if csv else read_parquet
        for labels in read(file, rows, progress):
            log.append(labels)
            log.maintain()
            taken += len(labels)
            ids += [label.prediction_id for label in labels if label.prediction_id]
    finally:
        log.close()
    unlogged = len(set(ids)) - len(PredictionStore(project).logged(ids)) if ids else 0
    refused = rows.refused
    return Imported(rows.seen, taken, unlogged, dict(refused.reasons), tuple(refused.rows))
