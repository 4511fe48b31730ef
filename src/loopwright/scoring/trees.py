"""From fitted trees to a checkpoint of treelite, and to the thresholds at which their answers jump."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loopwright.errors import InvalidInput
from loopwright.records import Scalar, Signature, Task
from loopwright.registry.layout import Layout
from loopwright.scoring.base import TreeInputs
from loopwright.scoring.convert import is_trees

__all__ = ["Checkpoint", "alone", "checkpoint", "thresholds"]

_HIST = ("HistGradientBoostingClassifier", "HistGradientBoostingRegressor")
#: These round their input to single precision before they compare.
_ROUNDING = (
    "RandomForestClassifier",
    "RandomForestRegressor",
    "ExtraTreesClassifier",
    "ExtraTreesRegressor",
    "GradientBoostingClassifier",
    "GradientBoostingRegressor",
)

#: Thresholds beyond this tell nothing: whole numbers next to each other are the same decimal there.
LARGEST = 2.0**53


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Serialized trees and how they are fed."""

    data: bytes
    inputs: TreeInputs


def alone(model: Any) -> Any:
    """Return the ensemble itself where nothing stands before it, else None."""
    if getattr(model, "best_estimator_", None) is not None:
        return alone(model.best_estimator_)
    steps = getattr(model, "steps", None)
    if steps:
        return alone(steps[-1][1]) if len(steps) == 1 else None
    return model


def checkpoint(model: Any, signature: Signature, layout: Layout) -> Checkpoint | str:
    """Bring trees into treelite's form; where that cannot be, return why."""
    trees = alone(model)
    if trees is None:
        return "treelite: the trees stand behind other steps"
    name = type(trees).__name__
    if signature.task == Task.classification and (not hasattr(trees, "predict_proba") or signature.outputs):
        return "treelite: it carries classifiers of one target that give probabilities"
    for column in signature.inputs:
        if column.type == "datetime":
            return f"treelite: the column {column.name!r} holds times"
    try:
        made, codes = _imported(trees, layout)
        coded = {layout.fields[place].name: values for place, values in codes.items()}
        for column in signature.inputs:
            if column.type == "string" and column.name not in coded:
                return f"treelite: the column {column.name!r} holds text"
        return Checkpoint(made.serialize_bytes(), TreeInputs(name in _ROUNDING, coded))
    except Exception as error:  # noqa: BLE001  (importers raise whatever they stumble over)
        text = " ".join(str(error).split())
        return f"treelite: {type(error).__name__}: {text[:120]}"


def _imported(trees: Any, layout: Layout) -> tuple[Any, dict[int, tuple[Scalar, ...]]]:
    """Return treelite's model, and for each coded column, by its place, the values of the codes in order."""
    import treelite

    name, module = type(trees).__name__, type(trees).__module__.partition(".")[0]
    declared = {
        place: field.categories for place, field in enumerate(layout.fields) if field.dtype == "category"
    }
    if name in _HIST:
        plain, codes = _hist(trees)
        return treelite.sklearn.import_model(plain), codes
    if module == "sklearn":
        if name not in _ROUNDING:
            raise InvalidInput(f"a {name} has no form there")
        return treelite.sklearn.import_model(trees), {}
    if module == "xgboost":
        return _of_xgboost(trees.get_booster()), declared
    if module == "lightgbm":
        return treelite.frontend.from_lightgbm(trees.booster_), declared
    raise InvalidInput(f"a {name} has no form there")


def _hist(trees: Any) -> tuple[Any, dict[int, tuple[Scalar, ...]]]:
    """Return a copy whose categories are their own codes: treelite takes whole numbers only."""
    front = getattr(trees, "_preprocessor", None)
    if front is None:
        return trees, {}
    trees = copy.deepcopy(trees)
    encoder = trees._preprocessor.transformers_[0][1]
    present = [
        [value for value in values if value is not None and value == value] for values in encoder.categories_
    ]
    encoder.categories_ = [np.arange(len(values)) for values in present]
    places = np.flatnonzero(np.asarray(trees.is_categorical_)).tolist()
    plain = [
        tuple(value.item() if isinstance(value, np.generic) else value for value in values)
        for values in present
    ]
    return trees, dict(zip(places, plain, strict=True))


def _of_xgboost(booster: Any) -> Any:
    import treelite

    facts = json.loads(bytes(booster.save_raw("json")))
    model = facts["learner"]["gradient_booster"].get("model", {})
    if "cats" in model:
        # The categories that XGBoost remembers, to recode a frame whose categories are in another order. Ours are in
        # the order of the training table, and treelite knows no such table.
        model["cats"] = {"enc": [], "feature_segments": [], "sorted_idx": []}
    return treelite.frontend.from_xgboost_json(json.dumps(facts))


def thresholds(model: Any, layout: Layout, most: int) -> list[tuple[int, float]]:
    """Return up to `most` thresholds as (place of the column, value), those that every row meets first.

    Only of trees that see the columns as they come in; none for others. A threshold at the root of a tree is met by
    each row, one further down by some.
    """
    trees = alone(model)
    if trees is None or not is_trees(trees):
        return []
    found: dict[tuple[int, float], None] = {}
    try:
        for place, value in _splits(trees, layout):
            # A split between what is there and what is missing has its threshold at infinity.
            if abs(value) < LARGEST:
                found[place, value] = None
            if len(found) >= most:
                break
    except Exception:  # noqa: BLE001  (what cannot be read has no known thresholds)
        return list(found)
    return list(found)


def _splits(trees: Any, layout: Layout) -> Iterator[tuple[int, float]]:
    """Give the numeric splits of all trees, level by level."""
    nodes = list(_single(trees)) or list(_several(trees, layout))
    for depth in range(max((len(levels) for levels in nodes), default=0)):
        for levels in nodes:
            if depth < len(levels):
                yield from levels[depth]


_Levels = list[list[tuple[int, float]]]


def _single(trees: Any) -> Iterator[_Levels]:
    tree = getattr(trees, "tree_", None)
    if tree is not None:
        yield _levels(
            tree.children_left, tree.children_right, tree.feature, tree.threshold, tree.feature >= 0
        )


def _several(trees: Any, layout: Layout) -> Iterator[_Levels]:
    made, _ = _imported(trees, layout)
    for number in range(min(made.num_tree, 200)):
        tree = made.get_tree_accessor(number)
        left, right = tree.get_field("cleft"), tree.get_field("cright")
        numeric = tree.get_field("node_type") == _NUMERIC
        yield _levels(left, right, tree.get_field("split_index"), tree.get_field("threshold"), numeric)


#: treelite's number for a node that compares a number with its threshold.
_NUMERIC = 1


def _levels(
    left: NDArray[Any],
    right: NDArray[Any],
    feature: NDArray[Any],
    threshold: NDArray[Any],
    numeric: NDArray[Any],
    deepest: int = 6,
) -> _Levels:
    level, levels = [0], _Levels()
    while level and len(levels) < deepest:
        levels.append([(int(feature[node]), float(threshold[node])) for node in level if numeric[node]])
        level = [int(child) for node in level for child in (left[node], right[node]) if child >= 0]
    return levels
