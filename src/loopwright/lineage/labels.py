"""`labelled`: what was predicted and what turned out to be true, as training data."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal

from loopwright.config import Project
from loopwright.ledger import Ledger
from loopwright.lineage.context import recorder
from loopwright.lineage.restored import restored
from loopwright.lineage.snapshots import read_snapshot, snapshot
from loopwright.lineage.sources import table_from
from loopwright.records import ModelVersion, Signature

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["labelled"]

_PREFIX = "input_"


def labelled(
    model: str,
    *,
    split: Literal["train", "holdout"] | None = "train",
    newest: int | None = None,
    since: datetime | None = None,
    project: Project | None = None,
) -> pd.DataFrame:
    """Return the predictions of a model whose label has arrived, as rows to train on.

    Parameters
    ----------
    model
        The registered model's name; predictions of all its deployments count.
    split
        ``train`` leaves out one row in four, ``holdout`` gives only these: the gate of a release compares models on
        them. None gives all.
    newest
        At most so many rows, the newest ones; >= 1.
    since
        Only predictions made at or after this moment.
    project
        By default the project of the current folder.

    Returns
    -------
    pandas.DataFrame
        The model's inputs under their own names and the label under the target's name, oldest first. Empty, with
        these columns where they are known, when no label has arrived yet.

    Raises
    ------
    InvalidInput
        `newest` is below 1.
    NotFound
        There is no such model in `loopwright.toml` or in the ledger.
    """
    from loopwright.predictions import PredictionStore

    project = project or Project.find()
    conditions = f"split={split or 'all'}" + (f"&newest={newest}" if newest else "")
    name, source = f"labelled-{model}", f"predictions:{model}?{conditions}"
    if kept := restored(name, source):
        frame: pd.DataFrame = read_snapshot(project, kept.digest).to_pandas()
        return _noted(project, frame, name, source)
    target, signature = _shape(project, model)
    store = PredictionStore(project)
    found = store.table(model=model, since=since, labelled=True, split=split, newest=newest)
    names = {
        column: column.removeprefix(_PREFIX) for column in found.column_names if column.startswith(_PREFIX)
    }
    if signature:
        order = {name: position for position, name in enumerate(signature.names)}
        names = dict(sorted(names.items(), key=lambda pair: order.get(pair[1], len(order))))
    if not found.num_rows:
        return _empty(signature, target)
    table = found.select([*names, "actual"]).rename_columns([*names.values(), target])
    return _noted(project, table.to_pandas(), name, source)


def _noted(project: Project, frame: pd.DataFrame, name: str, source: str) -> pd.DataFrame:
    # Hashed as pandas has it, so that steps that take the frame name the same dataset.
    ref = snapshot(project, table_from(frame), name, source)
    if running := recorder.get():
        running.remember(frame, ref.digest)
    return frame


def _shape(project: Project, model: str) -> tuple[str, Signature | None]:
    """Return the target's name, and the signature of the newest version that has one."""
    ledger = Ledger.open(project)
    try:
        versions = [state.read(ModelVersion) for state in ledger.states("model_version")]
    finally:
        ledger.close()
    mine = [version for version in versions if version.model == model and version.signature]
    if mine:
        signature = max(mine, key=lambda version: version.version).signature
        assert signature is not None
        return signature.target, signature
    return project.model(model).target, None


def _empty(signature: Signature | None, target: str) -> pd.DataFrame:
    import pandas as pd

    kinds: dict[str, Any] = {"double": "float64", "float": "float32", "long": "int64", "integer": "int32"}
    kinds |= {"boolean": "bool", "string": "str", "datetime": "datetime64[us]"}
    inputs = signature.inputs if signature else ()
    columns = {column.name: pd.Series([], dtype=kinds[column.type]) for column in inputs}
    return pd.DataFrame({**columns, target: pd.Series([], dtype="float64")})
