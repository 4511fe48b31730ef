"""What is known about a version from its files: its signature and layout, real rows to replay, a profile.

A version made by `register` brings all of it. For one registered by hand it is put together from what there is: the
signature in its `MLmodel`, the estimator itself, the snapshot of the dataset its run names.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
from numpy.typing import NDArray

from loopwright.config import Project
from loopwright.errors import Damaged, InvalidInput, LoopwrightError
from loopwright.ledger import Ledger
from loopwright.records import Column, DatasetRef, ModelVersion, Signature, Task
from loopwright.registry.artifacts import EXTRA, LAYOUT, PROFILE, REPLAY, Shape
from loopwright.registry.columns import arrays_of
from loopwright.registry.description import targets_of
from loopwright.registry.estimator import classes_of, outputs_of, task_of
from loopwright.registry.layout import Layout, plain_layout
from loopwright.registry.origin import training_of
from loopwright.registry.profile import Profile, profile_of, read_profile
from loopwright.scoring.golden import read_rows
from loopwright.scoring.native import PyfuncModel, read_mlmodel

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Evidence", "gather"]


@dataclass(frozen=True)
class Evidence:
    """Signature and layout of a version, its replay rows by column (None when there are none), its profile.

    `missing` names what is not known; it is empty for a version made by `register`. `example` says that the replay rows
    are MLflow's input example: a handful, which show that the model answers and prove no compilation.
    """

    signature: Signature
    layout: Layout
    replay: dict[str, NDArray[Any]] | None
    profile: Profile | None
    training: DatasetRef | None = None
    missing: tuple[str, ...] = ()
    example: bool = False


def gather(project: Project, version: ModelVersion, folder: Path, model: Any) -> Evidence:
    """Put together what is known about a version whose files are in `folder`.

    Raises
    ------
    InvalidInput
        Nothing says which inputs the model takes.
    Damaged
        The files that `register` wrote are not readable any more.
    """
    extra = folder / EXTRA
    if (extra / LAYOUT).is_file():
        return _own(project, extra, version)
    return _by_hand(project, version, folder, model)


def _own(project: Project, extra: Path, version: ModelVersion) -> Evidence:
    try:
        shape = msgspec.json.decode((extra / LAYOUT).read_bytes(), type=Shape)
    except msgspec.DecodeError as error:
        raise Damaged(f"{extra / LAYOUT} is not readable: {error}.") from error
    rows = arrays_of(read_rows(extra / REPLAY), shape.signature.inputs)
    profile = read_profile(extra / PROFILE)
    # Registered again by hand, such a version has lost its dataset, but its profile names it.
    training = version.training or _dataset(project, profile.dataset)
    return Evidence(shape.signature, shape.layout, rows, profile, training)


def _dataset(project: Project, digest: str) -> DatasetRef | None:
    ledger = Ledger.open(project)
    try:
        state = ledger.get("dataset", digest)
        return state.read(DatasetRef) if state else None
    finally:
        ledger.close()


def _training_rows(
    project: Project, version: ModelVersion, inputs: tuple[str, ...]
) -> tuple[pa.Table | None, DatasetRef | None]:
    """Return the snapshot that the version learned from, where something says which and it is there."""
    from loopwright import lineage

    training = training_of(project, version, inputs)
    if training is None:
        return None, None
    try:
        return lineage.read_snapshot(project, training.digest), training
    except LoopwrightError:
        return None, None


def _example(folder: Path, inputs: tuple[Column, ...]) -> dict[str, NDArray[Any]] | None:
    """Return the rows of MLflow's input example, where the model has one with these inputs by name."""
    import pyarrow as pa

    facts = read_mlmodel(folder).get("saved_input_example_info") or {}
    if facts.get("type") != "dataframe" or facts.get("pandas_orient") != "split":
        return None
    try:
        example = json.loads((folder / facts["artifact_path"]).read_bytes())
        columns = [list(values) for values in zip(*example["data"], strict=True)]
        return arrays_of(pa.table(dict(zip(example["columns"], columns, strict=True))), inputs)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException, LoopwrightError):
        return None


def _by_hand(project: Project, version: ModelVersion, folder: Path, model: Any) -> Evidence:
    declared = _declared_inputs(folder, model)
    table, training = _training_rows(project, version, tuple(column.name for column in declared))
    target = _target(project, version.model, table, declared, _declared_outputs(folder))
    monitor = project.config.monitor.get(version.model)
    watched = monitor.segments if monitor else ()
    known = table is not None and set(targets_of(target, table.column_names)) <= set(table.column_names)
    if (
        known
        and not isinstance(model, PyfuncModel)
        and (described := _described(model, table, target, declared, training, watched))
    ):
        return described
    signature = _signature(folder, model, declared, target)
    container: Literal["frame", "matrix"] = (
        "frame"
        if isinstance(model, PyfuncModel) or getattr(model, "feature_names_in_", None) is not None
        else "matrix"
    )
    layout = plain_layout(signature, container)
    rows = None
    if table is not None:
        try:
            rows = _sample(arrays_of(table, signature.inputs))
        except LoopwrightError:
            rows = None
    example = rows is None
    if example:
        rows = _example(folder, signature.inputs)
    absent = ("profile", *(() if rows else ("replay rows",)), *(() if training else ("training",)))
    return Evidence(signature, layout, rows, None, training, absent, example=example)


def _described(
    model: Any,
    table: pa.Table,
    target: str,
    declared: tuple[Column, ...],
    training: DatasetRef | None,
    segments: tuple[str, ...],
) -> Evidence | None:
    """Derive everything from the training rows, as `register` does; None when they are not what it was fitted on."""
    from loopwright.registry.description import describe

    names = [column.name for column in declared if column.name in table.column_names]
    kept = [*names, *targets_of(target, table.column_names)] if names else table.column_names
    try:
        described = describe(model, table.select(kept).to_pandas(), target)
    except LoopwrightError:
        return None
    digest = training.digest if training else ""
    performance = described.performance()
    profile = profile_of(
        described.columns,
        described.signature,
        described.prediction,
        performance=performance,
        dataset=digest,
        probability=described.probability,
        actual=described.labels(),
        segments=segments,
    )
    return Evidence(described.signature, described.layout, _sample(described.columns), profile, training)


def _sample(columns: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    from loopwright.registry.registration import replay_positions

    positions = replay_positions(columns)
    return {name: values[positions] for name, values in columns.items()}


def _declared_inputs(folder: Path, model: Any) -> tuple[Column, ...]:
    """Return the inputs as the `MLmodel` declares them, else those the estimator remembers, all as decimals."""
    declared = (read_mlmodel(folder).get("signature") or {}).get("inputs")
    columns = json.loads(declared) if declared else []
    known = {"boolean", "integer", "long", "float", "double", "string", "datetime"}
    if columns and all(item.get("type") in known and item.get("name") for item in columns):
        return tuple(Column(item["name"], item["type"], item.get("required", True)) for item in columns)
    names = getattr(model, "feature_names_in_", None)
    if names is not None:
        return tuple(Column(str(name), "double") for name in names)
    count = getattr(model, "n_features_in_", None)
    return tuple(Column(f"x{position}", "double") for position in range(int(count))) if count else ()


def _target(
    project: Project,
    name: str,
    table: pa.Table | None,
    declared: tuple[Column, ...],
    outputs: list[tuple[str, str]],
) -> str:
    """Return the target: as configured, else the one column of the dataset that is no input.

    Of a model with several outputs, those columns that are called as they are.
    """
    if name in project.config.model:
        return project.config.model[name].target
    if table is not None and declared:
        rest_of = [column for column in table.column_names if column not in {item.name for item in declared}]
        if len(rest_of) == 1:
            return str(rest_of[0])
        several = [output for output, _ in outputs]
        if len(several) > 1 and set(several) <= set(rest_of):
            return ",".join(several)
    return "target"


def _signature(folder: Path, model: Any, declared: tuple[Column, ...], target: str) -> Signature:
    if not declared:
        raise InvalidInput(
            f"Nothing says which inputs the model in {folder} takes.",
            valid="The model needs a signature with named columns.",
            hint="log it with signature=mlflow.models.infer_signature(table), or use loopwright.register",
        )
    kinds = _declared_outputs(folder)
    outputs = tuple(name for name, _ in kinds) if len(kinds) > 1 else ()
    if isinstance(model, PyfuncModel):
        labels = bool(kinds) and kinds[0][1] in {"string", "boolean", "long", "integer"}
        task = Task.classification if labels else Task.regression
        return Signature(declared, task, target, outputs=outputs)
    task = task_of(model)
    if not outputs:
        outputs = outputs_of(model, int(getattr(model, "n_outputs_", 1)), (target,))
    return Signature(
        declared, task, target, classes_of(model) if task == Task.classification else (), outputs
    )


def _declared_outputs(folder: Path) -> list[tuple[str, str]]:
    """Return name and type of each output that the `MLmodel` declares."""
    declared = (read_mlmodel(folder).get("signature") or {}).get("outputs")
    outputs = json.loads(declared) if declared else []
    if len(outputs) == 1 and outputs[0].get("type") == "tensor":
        tensor = outputs[0]["tensor-spec"]
        kind = "long" if tensor["dtype"].startswith(("int", "uint")) else "double"
        shape = tensor["shape"]
        width = shape[1] if len(shape) == 2 and shape[1] > 1 else 1
        return [(f"output_{place}", kind) for place in range(width)]
    return [
        (str(output.get("name") or f"output_{place}"), str(output.get("type", "")))
        for place, output in enumerate(outputs)
    ]
