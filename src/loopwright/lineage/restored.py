"""Datasets of a run that is being repeated: reading one by its name gives the recorded snapshot, not today's source."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from loopwright.errors import InvalidInput
from loopwright.records import DatasetRef

__all__ = ["VARIABLE", "restored"]

#: Names a JSON file with the `DatasetRef` of each dataset that the run had read. Set where a run is repeated.
VARIABLE = "LOOPWRIGHT_RESTORED_DATASETS"


@cache
def _recorded(path: str) -> tuple[DatasetRef, ...]:
    return msgspec.json.decode(Path(path).read_bytes(), type=tuple[DatasetRef, ...])


def restored(name: str, source: Any) -> DatasetRef | None:
    """Return the recorded dataset to read in place of a source: a path, a description, or a table at hand.

    None outside of repetitions, for a name that the run had not read, and for a table with the recorded content.

    Raises
    ------
    InvalidInput
        The run had read several datasets of this name, and none of them is known to be the one.
    """
    path = os.environ.get(VARIABLE)
    if not path:
        return None
    found = {ref.digest: ref for ref in _recorded(path) if ref.name == name}
    if isinstance(source, (str, Path)):
        same = {ref.digest: ref for ref in found.values() if ref.source == str(source)}
        found = same or found
    elif _digest(source) in found:
        return None
    if len(found) > 1:
        raise InvalidInput(
            f"The run has read {len(found)} datasets called {name!r}; which of them is read here is not on record.",
            valid="A run can be repeated when different data has different names.",
        )
    return next(iter(found.values()), None)


def _digest(table: Any) -> str:
    from loopwright.lineage.fingerprints import fingerprint
    from loopwright.lineage.sources import table_from

    return fingerprint(table_from(table.to_pandas() if hasattr(table, "to_pandas") else table))
