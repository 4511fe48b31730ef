"""From a fitted estimator to ONNX graphs: the candidates, most exact first, that a replay then decides between."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from loopwright.errors import InvalidInput
from loopwright.records import Signature, Task
from loopwright.registry.estimator import final_step
from loopwright.registry.layout import Layout

__all__ = ["Graph", "candidates", "refusal"]

Inputs = Literal["matrix", "columns"]
Precision = Literal["float64", "float32"]

#: ONNX Runtime has all operators of these sets, and the boosting converters know no newer `ai.onnx.ml`.
OPSET = {"": 17, "ai.onnx.ml": 3}
_NUMBERS = {"boolean", "integer", "long", "float", "double"}


@dataclass(frozen=True, slots=True)
class Graph:
    """One conversion: the serialized graph, how it is fed, and what stands for missing text in which column."""

    data: bytes
    inputs: Inputs
    precision: Precision
    missing_text: dict[str, str]


def refusal(signature: Signature) -> str:
    """Return why no graph can take these inputs, or an empty text."""
    for column in signature.inputs:
        if column.type == "datetime":
            return f"the column {column.name!r} holds times, which ONNX has no type for"
        if column.type == "boolean" and not column.required:
            return f"the boolean column {column.name!r} has missing values, which ONNX has no value for"
    return ""


def candidates(model: Any, signature: Signature, layout: Layout) -> Iterator[Graph | str]:
    """Convert an estimator in each precision worth trying; where that fails, give the reason as text instead.

    Trees compare in float32 whatever they are given, so trees alone are tried in float32 first. Behind other steps,
    which compute in float64, their input is cast just before them, as they do themselves: without that cast, a scaled
    value can fall on the other side of a threshold. Everything else is tried in float64 first.
    """
    model = _portable(model, layout)
    trees, pipeline = _is_trees(model), _last_pipeline(model)
    order: tuple[Precision, ...] = ("float64", "float32")
    if trees and pipeline is None:
        order = ("float32", "float64")
    for precision in order:
        part = _with_cast(model) if trees and pipeline is not None and precision == "float64" else model
        try:
            yield _convert(part, signature, layout, precision)
        except Exception as error:  # noqa: BLE001  (converters raise whatever they stumble over)
            text = " ".join(str(error).split())
            yield f"{precision}: {type(error).__name__}: {text[:120]}"


def _last_pipeline(model: Any) -> Any:
    """Return the pipeline whose last step predicts in the end, or None when the model is no pipeline."""
    found = None
    while getattr(model, "steps", None):
        found, model = model, model.steps[-1][1]
    return found if found is not None and len(found.steps) > 1 else None


def _with_cast(model: Any) -> Any:
    from skl2onnx.sklapi import CastTransformer

    model = copy.deepcopy(model)
    _last_pipeline(model).steps.insert(-1, ("loopwright_cast", CastTransformer(dtype=np.float32)))
    return model


def _is_trees(model: Any) -> bool:
    kind = type(final_step(model))
    root, name = kind.__module__.partition(".")[0], kind.__name__
    return root in {"xgboost", "lightgbm"} or any(
        word in name for word in ("Tree", "Forest", "GradientBoosting")
    )


def _portable(model: Any, layout: Layout) -> Any:
    """Return a copy whose inputs go by position: ONNX has no room for names with blanks and brackets."""
    model = copy.deepcopy(model)
    if getattr(model, "best_estimator_", None) is not None:
        model = model.best_estimator_
    names = [field.name for field in layout.fields]
    first = model
    while getattr(first, "steps", None):
        first = first.steps[0][1]
    if hasattr(first, "transformers_"):
        first.transformers_ = [
            (key, part, _positions(which, names)) for key, part, which in first.transformers_
        ]
    last = final_step(model)
    if type(last).__module__.startswith("xgboost"):
        last.get_booster().feature_names = None
    return model


def _positions(which: Any, names: list[str]) -> list[int]:
    if isinstance(which, str):
        return [names.index(which)]
    if isinstance(which, slice):
        return list(range(len(names)))[which]
    if isinstance(which, int | np.integer):
        return [int(which)]
    items = list(which)
    if items and all(isinstance(item, bool | np.bool_) for item in items):
        return [position for position, kept in enumerate(items) if kept]
    return [names.index(item) if isinstance(item, str) else int(item) for item in items]


def _convert(model: Any, signature: Signature, layout: Layout, precision: Precision) -> Graph:
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType

    _add_boosting_converters()
    number = DoubleTensorType if precision == "float64" else FloatTensorType
    inputs: Inputs = "matrix" if all(column.type in _NUMBERS for column in signature.inputs) else "columns"
    if inputs == "matrix":
        types = [("X", number([None, len(signature.inputs)]))]
    else:
        types = [
            (f"c{position}", (StringTensorType if column.type == "string" else number)([None, 1]))
            for position, column in enumerate(signature.inputs)
        ]
    made = _graph(model, types, classifier=signature.task == Task.classification and _is_classifier(model))
    markers = {field.name: "None" if field.missing == "none" else "nan" for field in layout.fields}
    gaps = {c.name: markers[c.name] for c in signature.inputs if c.type == "string" and not c.required}
    return Graph(made.SerializeToString(), inputs, precision, gaps)


def _graph(model: Any, types: list[tuple[str, Any]], *, classifier: bool) -> Any:
    from skl2onnx import convert_sklearn

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if classifier:
            # Without the option each row's probabilities come as a dictionary. Classifiers that have none lack it.
            with contextlib.suppress(NameError):
                return convert_sklearn(
                    model, initial_types=types, options={"zipmap": False}, target_opset=OPSET
                )
        return convert_sklearn(model, initial_types=types, target_opset=OPSET)


def _is_classifier(model: Any) -> bool:
    from sklearn.base import is_classifier

    try:
        return bool(is_classifier(model))
    except (AttributeError, TypeError) as error:
        raise InvalidInput(f"A {type(model).__name__} is no scikit-learn estimator.") from error


def _add_boosting_converters() -> None:
    """Teach skl2onnx the estimators of XGBoost and LightGBM, whichever the model has brought in."""
    import sys

    from skl2onnx import update_registered_converter
    from skl2onnx.common.shape_calculator import (
        calculate_linear_classifier_output_shapes,
        calculate_linear_regressor_output_shapes,
    )

    options = {"nocl": [True, False], "zipmap": [True, False, "columns"]}
    pairs: list[tuple[str, str, str, Any, Any, Any]] = []
    if xgboost := sys.modules.get("xgboost"):
        from onnxmltools.convert.xgboost.operator_converters.XGBoost import convert_xgboost

        pairs.append(("XGBClassifier", "XGBRegressor", "XGBoostXGB", xgboost, convert_xgboost, None))
    if lightgbm := sys.modules.get("lightgbm"):
        from onnxmltools.convert.lightgbm.operator_converters.LightGbm import convert_lightgbm

        pairs.append(
            ("LGBMClassifier", "LGBMRegressor", "LightGbmLGBM", lightgbm, convert_lightgbm, {"split": None})
        )
    for classifier, regressor, alias, module, converter, of_regressor in pairs:
        update_registered_converter(
            getattr(module, classifier),
            f"{alias}Classifier",
            calculate_linear_classifier_output_shapes,
            converter,
            options=options,
            overwrite=True,
        )
        update_registered_converter(
            getattr(module, regressor),
            f"{alias}Regressor",
            calculate_linear_regressor_output_shapes,
            converter,
            options=of_regressor,
            overwrite=True,
        )
