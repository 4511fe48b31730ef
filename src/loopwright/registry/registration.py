"""Registering a model: logging it to MLflow with all that later stages need, and creating its version."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from loopwright import parts
from loopwright.config import Project
from loopwright.errors import InvalidInput
from loopwright.lineage.context import is_plain
from loopwright.records import DatasetRef, ModelVersion, Signature, Task
from loopwright.registry import rest
from loopwright.registry.artifacts import LAYOUT, PROFILE, REPLAY, Shape, download, local_folder
from loopwright.registry.catalog import record
from loopwright.registry.columns import table_of
from loopwright.registry.description import Description, describe
from loopwright.registry.estimator import supervised
from loopwright.registry.logged import log, run_for
from loopwright.registry.profile import profile_of

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["mlflow_signature", "register", "replay_positions", "write_extra_files"]

#: Real rows kept with a version, to prove a compiled runtime on: a difference in one row of a thousand must show.
REPLAY_ROWS = 2000


def register(
    name: str,
    model: Any,
    table: pd.DataFrame,
    *,
    target: str | None = None,
    project: Project | None = None,
    metrics: Mapping[str, float] | None = None,
    reference: pd.DataFrame | None = None,
) -> ModelVersion:
    """Register a fitted model with the table it was fitted on.

    The model is logged in the active MLflow run, or in a run of its own. Its signature, a reference profile and a
    sample of real rows are stored with it, and the table is kept as a snapshot. No alias is moved and nothing is
    deployed.

    Parameters
    ----------
    name
        The registered model's name; the next version number is taken.
    model
        A fitted scikit-learn, XGBoost or LightGBM estimator or pipeline, or an object with ``predict(rows)``.
    table
        The training rows: the features as the model was given them, and the target column.
    target
        The target column, or several between commas (``"low,high"``) for a model that predicts several; by default
        `target` of ``[model.<name>]`` in `loopwright.toml`.
    project
        By default the project of the current folder.
    metrics
        Metrics of this model, such as ``{"accuracy": 0.97}`` on rows held out. They are logged to the run and go
        before the metrics on the training rows.
    reference
        The rows that drift is measured against, by default the training rows: the newest of them, for a model that
        learned from old and new rows and will only see new ones. Columns as in `table`.

    Returns
    -------
    ModelVersion
        The version made.

    Raises
    ------
    InvalidInput
        The table is empty, lacks the target or has gaps in it, or is not what the model was fitted on.
    Unavailable
        The MLflow server does not answer.
    """
    project = project or Project.find()
    frame = _frame(table)
    wanted = _target(project, name, model, frame, target)
    described = describe(model, frame, wanted)
    expected = described if reference is None else describe(model, _frame(reference), wanted)
    if is_plain():
        return ModelVersion(name, 0, "", "", signature=described.signature)
    parts.connect(project)
    training = _snapshot(project, name, described)
    with tempfile.TemporaryDirectory(prefix="loopwright-") as folder, run_for(project) as run_id:
        segments = project.config.monitor[name].segments if name in project.config.monitor else ()
        files = write_extra_files(Path(folder), described, training, metrics or {}, expected, segments)
        assert run_id is not None  # within a project there always is one
        # Not skops: whoever serves the model would need MLflow to load it.
        info = log(
            model,
            run_id,
            name="model",
            serialization="cloudpickle",
            signature=mlflow_signature(described.signature, described.prediction),
            extra_files=files,
        )
        model_id = str(info.model_id)
        _annotate(run_id, training, metrics or {})
        facts = rest.create_version(project, name, f"models:/{model_id}", run_id, model_id)
        made = _version(project, facts, run_id, described, training, Path(folder))
    record(project, made)
    return made


def _frame(table: Any) -> pd.DataFrame:
    import pandas as pd

    if isinstance(table, pd.DataFrame):
        return table
    for convert in ("to_pandas", "to_frame"):
        if hasattr(table, convert):
            converted: pd.DataFrame = getattr(table, convert)()
            return converted
    raise InvalidInput(
        f"The training table is a {type(table).__name__}.",
        valid="Valid: a pandas DataFrame, or an Arrow or polars table.",
        hint="pass the features and the target column as one DataFrame",
    )


def _target(project: Project, name: str, model: Any, frame: pd.DataFrame, given: str | None) -> str:
    if given is not None:
        return given
    if name in project.config.model:
        return project.config.model[name].target
    if supervised(model):
        raise InvalidInput(
            f"The target column of model {name!r} is not known.",
            valid=f"Columns of the table: {', '.join(map(repr, frame.columns))}.",
            hint=f"loopwright.register({name!r}, model, table, target=<column>), or [model.{name}] in loopwright.toml",
        )
    return "target"


def _snapshot(project: Project, name: str, described: Description) -> DatasetRef:
    from loopwright import lineage

    return lineage.snapshot(project, described.table, f"{name}-training", "")


def write_extra_files(
    folder: Path,
    described: Description,
    training: DatasetRef,
    metrics: Mapping[str, float],
    expected: Description | None = None,
    segments: Sequence[str] = (),
) -> list[str]:
    """Write what is stored beside the model: signature and layout, profile of the expected rows, replay rows.

    The profile counts the values of the columns in `segments` apart.
    """
    import msgspec
    import pyarrow.parquet as pq

    signature = described.signature
    expected = expected or described
    profile = profile_of(
        expected.columns,
        signature,
        expected.prediction,
        performance=described.performance() | {key: float(value) for key, value in metrics.items()},
        dataset=training.digest,
        probability=expected.probability,
        actual=expected.labels(),
        segments=segments,
    )
    (folder / LAYOUT).write_bytes(msgspec.json.encode(Shape(signature, described.layout)))
    (folder / PROFILE).write_bytes(msgspec.json.encode(profile))
    replay = table_of(described.rows(replay_positions(described.columns)), signature.inputs)
    pq.write_table(replay, folder / REPLAY, compression="zstd")
    return [str(folder / name) for name in (LAYOUT, PROFILE, REPLAY)]


def replay_positions(columns: Mapping[str, NDArray[Any]]) -> NDArray[np.int64]:
    """Return which rows are kept for replay, in the table's order: all of a small table, else 2000.

    Most are spread evenly by chance. The others are the rows a chance of 2000 would rarely hold: some where each
    column is missing, and one for each of the rarest values of text.
    """
    rows = len(next(iter(columns.values())))
    if rows <= REPLAY_ROWS:
        return np.arange(rows)
    chosen = dict.fromkeys(_rare(columns))
    for row in np.random.default_rng(1).permutation(rows).tolist():
        if len(chosen) >= REPLAY_ROWS:
            break
        chosen[row] = None
    return np.sort(np.array(list(chosen), dtype=np.int64))


#: Rows with a gap that are kept for each column, rare values of each column of text, and how many rows those may take
#: up together.
_GAPS, _RARE_VALUES, _MOST_RARE = 8, 32, REPLAY_ROWS // 4


def _rare(columns: Mapping[str, NDArray[Any]]) -> list[int]:
    """Return rows with gaps and with rare values of text, of each column in turn."""
    found: list[list[int]] = []
    for values in columns.values():
        if values.dtype.kind == "f":
            found.append(np.flatnonzero(np.isnan(values))[:_GAPS].tolist())
        elif values.dtype.kind == "M":
            found.append(np.flatnonzero(np.isnat(values))[:_GAPS].tolist())
        elif values.dtype == object:
            items = values.tolist()
            gaps = [row for row, item in enumerate(items) if item is None][:_GAPS]
            where = {item: row for row, item in enumerate(items) if item is not None}
            rarest = sorted(
                Counter(item for item in items if item is not None).items(), key=lambda pair: pair[1]
            )
            found.append(gaps + [where[item] for item, _ in rarest[:_RARE_VALUES]])
    turns = zip_longest(*found)
    return [row for turn in turns for row in turn if row is not None][:_MOST_RARE]


def mlflow_signature(signature: Signature, prediction: Any) -> Any:
    """Return the signature in MLflow's own form."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    kinds = {"b": "boolean", "i": "long", "u": "long", "f": "double"}
    output = "double" if signature.task == Task.regression else kinds.get(prediction.dtype.kind, "string")
    inputs = [ColSpec(column.type, column.name, required=column.required) for column in signature.inputs]
    outputs = [ColSpec(output, name) for name in signature.outputs] or [ColSpec(output)]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs))


def _annotate(run_id: str, training: DatasetRef, metrics: Mapping[str, float]) -> None:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, RunTag

    now = int(time.time() * 1000)
    points = [Metric(key, float(value), now, 0) for key, value in metrics.items()]
    MlflowClient().log_batch(run_id, points, tags=[RunTag("loopwright.dataset", training.digest)])


def _version(
    project: Project,
    facts: dict[str, Any],
    run_id: str,
    described: Description,
    training: DatasetRef,
    folder: Path,
) -> ModelVersion:
    from loopwright.lineage.digests import digest_of

    model, number = facts["name"], int(facts["version"])
    uri = rest.artifact_uri(project, model, number)
    files = download(project, uri, folder / "registered")
    local = local_folder(project, uri)
    return ModelVersion(
        model=model,
        version=number,
        run_id=run_id,
        uri=str(local) if local else uri,
        digest=digest_of(files),
        signature=described.signature,
        training=training,
        replay_rows=min(described.table.num_rows, REPLAY_ROWS),
    )
