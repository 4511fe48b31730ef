"""The compiled runtime: an ONNX graph in ONNX Runtime, on one thread.

Imports neither MLflow, pandas nor scikit-learn: a process that serves compiled models never loads them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loopwright.errors import Damaged
from loopwright.records import Column
from loopwright.registry.estimator import class_array
from loopwright.scoring.base import MODEL, Manifest, Scores, refuse_gaps

__all__ = ["OnnxRuntime"]


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
        self._columns = manifest.signature.inputs
        self._names = manifest.signature.names
        self._dtype = np.dtype(manifest.precision)
        self._matrix = manifest.inputs == "matrix"
        self._missing_text = manifest.missing_text
        self._classes = class_array(manifest.signature.classes) if manifest.signature.classes else None
        self._probability = manifest.probability
        self._argmax = manifest.labels_from_probability
        outputs = [output.name for output in self._session.get_outputs()]
        label, probability = outputs[0], outputs[1] if len(outputs) > 1 else ""
        if not manifest.probability:
            self._outputs = [label]
        else:
            # Where the label is the most probable class, the graph need not compute it as well.
            self._outputs = [probability] if self._argmax else [label, probability]

    def score(self, columns: Mapping[str, NDArray[Any]], rows: int) -> Scores:
        """Score typed columns of shape (rows,), rows >= 1."""
        feed = {"X": self._one_matrix(columns, rows)} if self._matrix else self._by_column(columns)
        found = self._session.run(self._outputs, feed)
        if not self._probability:
            return Scores(self._labels(found[0]))
        probability = np.asarray(found[-1], dtype=np.float64)
        if self._argmax and self._classes is not None:
            return Scores(self._classes[probability.argmax(axis=1)], probability)
        return Scores(self._labels(found[0]), probability)

    def _labels(self, values: NDArray[Any]) -> NDArray[Any]:
        flat = values.reshape(-1)
        return flat.astype(np.float64 if self._classes is None else self._classes.dtype, copy=False)

    def _one_matrix(self, columns: Mapping[str, NDArray[Any]], rows: int) -> NDArray[Any]:
        if rows == 1:
            # For one row, plain numbers are twice as quick as filling an array column by column.
            row = [columns[name].item() for name in self._names]
            if (total := sum(row)) != total:
                refuse_gaps(columns, self._columns)
            return np.array([row], dtype=self._dtype)
        matrix = np.empty((rows, len(self._columns)), dtype=self._dtype)
        for position, column in enumerate(self._columns):
            matrix[:, position] = columns[column.name]
        # One look at the whole matrix instead of one at each column.
        if np.isnan(matrix).any():
            refuse_gaps(columns, self._columns)
        return matrix

    def _by_column(self, columns: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        refuse_gaps(columns, self._columns)
        feed = {}
        for position, column in enumerate(self._columns):
            values = columns[column.name]
            prepared = self._text(column, values) if column.type == "string" else values.astype(self._dtype)
            feed[f"c{position}"] = prepared.reshape(-1, 1)
        return feed

    def _text(self, column: Column, values: NDArray[Any]) -> NDArray[Any]:
        items = values.tolist()
        if None not in items:
            return values
        stand_in = self._missing_text[column.name]
        return np.array([stand_in if item is None else item for item in items], dtype=object)

    def close(self) -> None:
        """Give back the session's memory."""
        self._session = None
