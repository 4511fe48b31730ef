"""The compiled runtime: an ONNX graph in ONNX Runtime, on one thread.

Imports neither MLflow, pandas nor scikit-learn: a process that serves compiled models never loads them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loopwright.errors import Damaged
from loopwright.registry.estimator import class_array
from loopwright.scoring.base import MODEL, Manifest, Scores, refuse_gaps
from loopwright.scoring.feed import Numbers, Texts

__all__ = ["OnnxRuntime"]

#: Columns and their number of rows as one input of the graph.
_Feeder = Callable[[Mapping[str, NDArray[Any]], int], NDArray[Any]]


class OnnxRuntime:
    """An ONNX graph with the signature's columns as its input."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        # One request is one thread; cores are used by processes. A pool would only add hand-overs.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        # What goes wrong is raised; ONNX Runtime would write it to stderr as well, once for each bad request.
        options.log_severity_level = 4
        onnxruntime.disable_telemetry_events()
        try:
            self._session: Any = onnxruntime.InferenceSession(
                str(folder / MODEL), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise Damaged(f"{folder / MODEL} cannot be loaded: {error}") from error
        # ONNX Runtime's own wrapper checks the names of each call, which are always the same here: a fifth of the time
        # of one row.
        direct = getattr(self._session, "_sess", None)
        self._run: Any = direct.run if direct is not None else self._session.run
        signature = manifest.signature
        self._classes = class_array(signature.classes) if signature.classes else None
        self._probability = manifest.probability
        self._argmax = manifest.labels_from_probability
        self._several = bool(signature.outputs)
        taken = {given.name for given in self._session.get_inputs()}
        # Converters leave out an input that nothing depends on, and ONNX Runtime refuses it.
        self._feeders = [(name, make) for name, make in _feeders(manifest) if name in taken]
        self._unfed = [
            column for column in signature.inputs if column.name in manifest.unused and column.required
        ]
        outputs = [output.name for output in self._session.get_outputs()]
        label, probability = outputs[0], outputs[1] if len(outputs) > 1 else ""
        if not manifest.probability:
            self._outputs = [label]
        else:
            # Where the label is the most probable class, the graph need not compute it as well.
            self._outputs = [probability] if self._argmax else [label, probability]

    def score(self, columns: Mapping[str, NDArray[Any]], rows: int) -> Scores:
        """Score typed columns of shape (rows,), rows >= 1."""
        if self._unfed:
            refuse_gaps(columns, self._unfed)
        feed = {name: make(columns, rows) for name, make in self._feeders}
        found = self._run(self._outputs, feed, None)
        if not self._probability:
            return Scores(self._labels(found[0]))
        probability = found[-1].astype(np.float64, copy=False)
        if self._argmax and self._classes is not None:
            return Scores(self._classes[probability.argmax(axis=1)], probability)
        return Scores(self._labels(found[0]), probability)

    def _labels(self, values: NDArray[Any]) -> NDArray[Any]:
        flat = values.reshape(len(values), -1) if self._several else values.reshape(-1)
        return flat.astype(np.float64 if self._classes is None else self._classes.dtype, copy=False)

    def close(self) -> None:
        """Give back the session's memory."""
        self._session = self._run = None


def _feeders(manifest: Manifest) -> list[tuple[str, _Feeder]]:
    """Return the graph's inputs by name, and what makes each of them."""
    fed = [column for column in manifest.signature.inputs if column.name not in manifest.unused]
    if manifest.inputs == "matrix":
        return [("X", Numbers(fed, manifest.precision).matrix)]
    if manifest.inputs == "columns":
        return [
            (
                f"c{place}",
                Texts([column], manifest.missing_text).matrix
                if column.type == "string"
                else Numbers([column], manifest.precision).matrix,
            )
            for place, column in enumerate(fed)
        ]
    texts = [column for column in fed if column.type == "string"]
    numbers = [column for column in fed if column.type != "string"]
    made: list[tuple[str, _Feeder]] = []
    if numbers:
        made.append(("numbers", Numbers(numbers, manifest.precision).matrix))
    if texts:
        made.append(("texts", Texts(texts, manifest.missing_text).matrix))
    return made
