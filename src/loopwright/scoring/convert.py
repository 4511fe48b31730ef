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
from loopwright.records import Column, Signature, Task
from loopwright.registry.estimator import final_step
from loopwright.registry.layout import Layout

__all__ = ["Graph", "candidates", "is_trees", "refusal"]

Inputs = Literal["matrix", "blocks", "columns"]
Precision = Literal["float64", "float32"]

#: ONNX Runtime has all operators of these sets, and the boosting converters know no newer `ai.onnx.ml`.
OPSET = {"": 17, "ai.onnx.ml": 3}


@dataclass(frozen=True, slots=True)
class Graph:
    """One conversion: the serialized graph, how it is fed, which columns are not, and what stands for missing text."""

    data: bytes
    inputs: Inputs
    precision: Precision
    missing_text: dict[str, str]
    unused: tuple[str, ...] = ()


def refusal(model: Any, signature: Signature) -> str:
    """Return why no graph can take these inputs, or an empty text. Columns that the model drops do not matter."""
    unused = _unused(model, signature)
    for column in signature.inputs:
        if column.type == "datetime" and column.name not in unused:
            return f"the column {column.name!r} holds times, which ONNX has no type for"
    return ""


def _unused(model: Any, signature: Signature) -> tuple[str, ...]:
    """Return the columns of times that a column transformer at the front drops."""
    columns = getattr(_first(model), "transformers_", None)
    if columns is None:
        return ()
    names = list(signature.names)
    used: set[int] = set()
    for _, part, which in columns:
        if not (isinstance(part, str) and part == "drop"):
            used.update(_positions(which, names))
    return tuple(
        column.name
        for place, column in enumerate(signature.inputs)
        if column.type == "datetime" and place not in used
    )


def candidates(model: Any, signature: Signature, layout: Layout) -> Iterator[Graph | str]:
    """Convert an estimator in each precision worth trying; where that fails, give the reason as text instead.

    Most trees compare in float32 whatever they are given, so trees alone are tried in float32 first. Behind other steps,
    which compute in float64, their input is cast just before them, as they do themselves: without that cast, a scaled
    value can fall on the other side of a threshold. Everything else is tried in float64 first. Where text and numbers
    meet in a column transformer, all columns of a kind go in as one input; a graph that cannot be made so, or is not
    proven, is tried with one input for each column.
    """
    if getattr(model, "network", None) is not None:
        yield _exported(model.network, signature)
        return
    unused = _unused(model, signature)
    fed = [column for column in signature.inputs if column.name not in unused]
    given = _best(model)
    trees, pipeline = is_trees(given), _last_pipeline(given)
    precisions: tuple[Precision, ...] = ("float64", "float32")
    if trees and pipeline is None and not _is_hist(given):
        precisions = ("float32", "float64")
    feeds: tuple[Inputs, ...] = ("matrix",)
    if any(column.type == "string" for column in fed):
        feeds = ("blocks", "columns") if hasattr(_first(given), "transformers_") else ("columns",)
    for precision in precisions:
        for inputs in feeds:
            try:
                part = _portable(given, _order(fed, inputs), layout)
                if trees and pipeline is not None and precision == "float64":
                    part = _with_cast(part)
                graph = _convert(part, signature, fed, layout, inputs, precision, unused)
            except Exception as error:  # noqa: BLE001  (converters raise whatever they stumble over)
                text = " ".join(str(error).split())
                yield f"{precision}: {type(error).__name__}: {text[:120]}"
            else:
                yield graph


def _exported(network: Any, signature: Signature) -> Graph | str:
    """Export a PyTorch module, which takes a matrix of all columns in single precision."""
    import importlib
    import io

    torch: Any = importlib.import_module("torch")
    text = next((column.name for column in signature.inputs if column.type == "string"), None)
    if text is not None:
        return f"the column {text!r} holds text, which a PyTorch module does not take"
    made = io.BytesIO()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network.eval(),
                (torch.zeros(2, len(signature.inputs)),),
                made,
                input_names=["X"],
                output_names=["prediction"],
                dynamic_axes={"X": {0: "rows"}, "prediction": {0: "rows"}},
                opset_version=OPSET[""],
                dynamo=False,
            )
    except Exception as error:  # noqa: BLE001  (exporting runs the module, which may raise anything)
        return f"float32: {type(error).__name__}: {' '.join(str(error).split())[:120]}"
    return Graph(made.getvalue(), "matrix", "float32", {})


def _order(fed: list[Column], inputs: Inputs) -> list[str]:
    """Return the columns in the order in which a graph meets them."""
    if inputs != "blocks":
        return [column.name for column in fed]
    texts = [column.name for column in fed if column.type == "string"]
    return [column.name for column in fed if column.type != "string"] + texts


def _best(model: Any) -> Any:
    found = getattr(model, "best_estimator_", None)
    return model if found is None else found


def _first(model: Any) -> Any:
    model = _best(model)
    while getattr(model, "steps", None):
        model = model.steps[0][1]
    return model


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


def is_trees(model: Any) -> bool:
    """Whether the model, or the last step of a pipeline, is made of trees."""
    kind = type(final_step(model))
    root, name = kind.__module__.partition(".")[0], kind.__name__
    return root in {"xgboost", "lightgbm"} or any(
        word in name for word in ("Tree", "Forest", "GradientBoosting")
    )


def _is_hist(model: Any) -> bool:
    return type(final_step(model)).__name__.startswith("HistGradientBoosting")


def _portable(model: Any, order: list[str], layout: Layout) -> Any:
    """Return a copy whose inputs go by position: ONNX has no room for names with blanks and brackets."""
    model = copy.deepcopy(model)
    first = _first(model)
    if hasattr(first, "transformers_"):
        names = [field.name for field in layout.fields]
        first.transformers_ = [
            (key, part, [order.index(names[place]) for place in _positions(which, names)])
            for key, part, which in first.transformers_
            if not (isinstance(part, str) and part == "drop")
        ]
        markers = {field.name: _marker(field.missing) for field in layout.fields}
        for _, part, places in first.transformers_:
            _say_missing_text(part, {markers[order[place]] for place in places})
    last = final_step(model)
    if _is_hist(last) and any(last.is_categorical_ if last.is_categorical_ is not None else ()):
        raise InvalidInput("its categories have no form in ONNX")
    if type(last).__module__.startswith("xgboost"):
        booster = last.get_booster()
        booster.feature_names = None
        if "c" not in (booster.feature_types or ()):
            # A split of booleans has no threshold in the dump that the converter reads, unless they count as numbers.
            booster.feature_types = None
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


def _convert(
    model: Any,
    signature: Signature,
    fed: list[Column],
    layout: Layout,
    inputs: Inputs,
    precision: Precision,
    unused: tuple[str, ...],
) -> Graph:
    from skl2onnx.common.data_types import DoubleTensorType, FloatTensorType, StringTensorType

    _mend_hist_converters()
    _mend_imputer_converter()
    _add_boosting_converters()
    number = DoubleTensorType if precision == "float64" else FloatTensorType
    texts = [column.name for column in fed if column.type == "string"]
    if inputs == "matrix":
        types = [("X", number([None, len(fed)]))]
    elif inputs == "blocks":
        types = [("numbers", number([None, len(fed) - len(texts)]))] if len(texts) < len(fed) else []
        types.append(("texts", StringTensorType([None, len(texts)])))
    else:
        types = [
            (f"c{position}", (StringTensorType if column.type == "string" else number)([None, 1]))
            for position, column in enumerate(fed)
        ]
    made = _graph(model, types, classifier=signature.task == Task.classification and _is_classifier(model))
    markers = {field.name: _marker(field.missing) for field in layout.fields}
    gaps = {c.name: markers[c.name] for c in fed if c.type == "string" and not c.required}
    return Graph(made.SerializeToString(), inputs, precision, gaps, unused)


def _graph(model: Any, types: list[tuple[str, Any]], *, classifier: bool) -> Any:
    from skl2onnx import convert_sklearn

    with warnings.catch_warnings(), _columns_in_order():
        warnings.simplefilter("ignore")
        if classifier:
            # Without the option each row's probabilities come as a dictionary. Classifiers that have none lack it.
            with contextlib.suppress(NameError):
                return convert_sklearn(
                    model, initial_types=types, options={"zipmap": False}, target_opset=OPSET
                )
        return convert_sklearn(model, initial_types=types, target_opset=OPSET)


@contextlib.contextmanager
def _columns_in_order() -> Iterator[None]:
    """Let skl2onnx (1.20) pick columns also where a transformer takes all of an input's in another order.

    It compares how many there are, takes the input as it is, and each column for another one.
    """
    import skl2onnx._parse as parse

    usual = parse._fetch_input_slice

    def picked(scope: Any, inputs: list[Any], indices: list[int]) -> Any:
        if list(indices) == list(range(len(indices))):
            return usual(scope, inputs, indices)
        operator = scope.declare_local_operator("SklearnArrayFeatureExtractor")
        operator.inputs = inputs
        operator.column_indices = indices
        operator.outputs.append(scope.declare_local_variable("extracted_feature_columns", inputs[0].type))
        return operator.outputs

    parse._fetch_input_slice = picked
    try:
        yield
    finally:
        parse._fetch_input_slice = usual


def _is_classifier(model: Any) -> bool:
    from sklearn.base import is_classifier

    try:
        return bool(is_classifier(model))
    except (AttributeError, TypeError) as error:
        raise InvalidInput(f"A {type(model).__name__} is no scikit-learn estimator.") from error


def _marker(missing: str) -> str:
    """Return what stands in a graph for missing text: what Python writes for it."""
    return "None" if missing == "none" else "nan"


def _say_missing_text(part: Any, markers: set[str]) -> None:
    """Let an imputer of text look for what stands for missing text in the graph: no text is a NaN."""
    while getattr(part, "steps", None):
        part = part.steps[0][1]
    filled = getattr(part, "statistics_", None)
    if type(part).__name__ == "SimpleImputer" and np.asarray(filled).dtype == object and len(markers) == 1:
        part.missing_values = markers.pop()
        part.fill_value = None


def _mend_imputer_converter() -> None:
    """Let gaps in numbers be filled in double precision too: ONNX Runtime's own operator knows single only."""
    from skl2onnx import update_registered_converter
    from skl2onnx.common._registration import get_shape_calculator
    from sklearn.impute import SimpleImputer

    alias = "SklearnSimpleImputer"
    update_registered_converter(
        SimpleImputer, alias, get_shape_calculator(alias), _convert_imputer, overwrite=True
    )


def _convert_imputer(scope: Any, operator: Any, container: Any) -> None:
    from skl2onnx.common.data_types import DoubleTensorType
    from skl2onnx.operator_converters.common import concatenate_variables
    from skl2onnx.operator_converters.imputer_op import convert_sklearn_imputer
    from skl2onnx.proto import onnx_proto

    imputer = operator.raw_operator
    filled = np.asarray(imputer.statistics_)
    usual = (
        isinstance(operator.inputs[0].type, DoubleTensorType)
        and filled.dtype.kind == "f"
        and not np.isnan(filled).any()
        and imputer.missing_values != imputer.missing_values
        and not imputer.add_indicator
    )
    if not usual:
        convert_sklearn_imputer(scope, operator, container)
        return
    joined = concatenate_variables(scope, operator.inputs, container)
    gaps, fill = scope.get_unique_variable_name("gaps"), scope.get_unique_variable_name("fill")
    container.add_initializer(fill, onnx_proto.TensorProto.DOUBLE, [1, len(filled)], filled.tolist())
    container.add_node("IsNaN", [joined], [gaps], op_version=13)
    container.add_node("Where", [gaps, fill, joined], [operator.outputs[0].full_name], op_version=9)


class _Whole:
    """What a converter writes its nodes to, with truth values as the whole numbers that ONNX wants."""

    def __init__(self, container: Any) -> None:
        self._container = container

    def __getattr__(self, name: str) -> Any:
        return getattr(self._container, name)

    def add_node(self, *given: Any, **facts: Any) -> Any:
        """Add a node."""
        mended = {
            name: [int(value) if isinstance(value, bool | np.bool_) else value for value in values]
            if isinstance(values, list)
            else values
            for name, values in facts.items()
        }
        return self._container.add_node(*given, **mended)


def _mend_hist_converters() -> None:
    """Let skl2onnx 1.20 convert histogram-based boosting: it marks leaves with a False that onnx 1.23 refuses."""
    from skl2onnx import update_registered_converter
    from skl2onnx.common.shape_calculator import (
        calculate_linear_classifier_output_shapes,
        calculate_linear_regressor_output_shapes,
    )
    from skl2onnx.operator_converters.random_forest import (
        convert_sklearn_random_forest_classifier,
        convert_sklearn_random_forest_regressor_converter,
    )
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    pairs: list[tuple[Any, str, Any, Any, Any]] = [
        (
            HistGradientBoostingClassifier,
            "SklearnHistGradientBoostingClassifier",
            calculate_linear_classifier_output_shapes,
            convert_sklearn_random_forest_classifier,
            {
                "zipmap": [True, False, "columns"],
                "raw_scores": [True, False],
                "output_class_labels": [False, True],
                "nocl": [True, False],
            },
        ),
        (
            HistGradientBoostingRegressor,
            "SklearnHistGradientBoostingRegressor",
            calculate_linear_regressor_output_shapes,
            convert_sklearn_random_forest_regressor_converter,
            None,
        ),
    ]
    for kind, alias, shapes, converter, options in pairs:
        update_registered_converter(kind, alias, shapes, _mended(converter), options=options, overwrite=True)


def _mended(converter: Any) -> Any:
    def convert(scope: Any, operator: Any, container: Any) -> Any:
        return converter(scope, operator, _Whole(container), op_version=3)

    return convert


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
