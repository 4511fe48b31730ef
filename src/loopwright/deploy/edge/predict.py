"""Answer rows on a device, offline, with onnxruntime and numpy alone.

On the command line, with a file of one JSON object or a list of them; one answer is printed per line:

    python predict.py row.json

As a module:

    from predict import Predictor
    Predictor("bundle").predict([{"x": 1.0}])

With an outbox each answer is kept, with its row, until it is handed over; see outbox.py:

    python predict.py row.json answers.db
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime


class Predictor:
    """The model in a bundle's folder. With an `Outbox`, an answer is kept there before it is given."""

    def __init__(self, folder: str | Path = ".", outbox: Any = None) -> None:
        folder = Path(folder)
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        onnxruntime.disable_telemetry_events()
        self._session = onnxruntime.InferenceSession(
            str(folder / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        self._outputs = [output.name for output in self._session.get_outputs()]
        self.columns = manifest["signature"]["inputs"]
        self.classes = manifest["signature"]["classes"]
        self._several = bool(manifest["signature"].get("outputs"))
        self._graph = manifest["graph"]
        self._unused = set(self._graph.get("unused", ()))
        self._taken = [given.name for given in self._session.get_inputs()]
        self._outbox = outbox
        self._bundle = {name: manifest.get(name, "") for name in ("model", "version", "digest", "deployment")}

    def predict(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return one answer per row: `prediction`, and where the model gives it `probability` by class.

        Rows are dictionaries with the model's inputs; others are ignored. Raises ValueError for a row that does not fit.
        """
        if not rows:
            return []
        started = time.perf_counter()
        answers = self._answers(rows)
        if self._outbox is not None:
            names = [column["name"] for column in self.columns]
            given = [{name: row.get(name) for name in names} for row in rows]
            took_ms = (time.perf_counter() - started) * 1000
            self._outbox.add(self._bundle, given, answers, latency_ms=took_ms)
        return answers

    def _answers(self, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        feed = self._feed([column for column in self.columns if column["name"] not in self._unused], rows)
        found = self._session.run(self._outputs, {name: feed[name] for name in self._taken})
        if not self._graph["probability"]:
            return [{"prediction": label} for label in self._labels(found[0])]
        probability = np.asarray(found[1], dtype=np.float64)
        if self._graph["labels_from_probability"]:
            labels = [self.classes[best] for best in probability.argmax(axis=1)]
        else:
            labels = self._labels(found[0])
        names = [str(label) for label in self.classes]
        return [
            {"prediction": label, "probability": dict(zip(names, row, strict=True))}
            for label, row in zip(labels, probability.tolist(), strict=True)
        ]

    def _feed(self, columns: list[dict[str, Any]], rows: list[dict[str, Any]]) -> dict[str, Any]:
        if self._graph["inputs"] == "matrix":
            return {"X": self._matrix(columns, rows, self._graph["precision"])}
        if self._graph["inputs"] == "blocks":
            texts = [column for column in columns if column["type"] == "string"]
            numbers = [column for column in columns if column["type"] != "string"]
            return {
                "numbers": self._matrix(numbers, rows, self._graph["precision"]),
                "texts": self._matrix(texts, rows, object),
            }
        return {
            f"c{number}": self._matrix(
                [column], rows, object if column["type"] == "string" else self._graph["precision"]
            )
            for number, column in enumerate(columns)
        }

    def _matrix(self, columns: list[dict[str, Any]], rows: list[dict[str, Any]], dtype: Any) -> Any:
        made = np.empty((len(rows), len(columns)), dtype)
        for number, column in enumerate(columns):
            made[:, number] = self._values(column, rows)
        return made

    def _values(self, column: dict[str, Any], rows: list[dict[str, Any]]) -> list[Any]:
        name = column["name"]
        values = [row.get(name) for row in rows]
        for number, value in enumerate(values):
            if value is None and column["required"]:
                raise ValueError(f"row {number}: the column {name!r} is missing")
            if value is not None and isinstance(value, str) != (column["type"] == "string"):
                raise ValueError(
                    f"row {number}: the column {name!r} is {value!r}, which is no {column['type']}"
                )
        if column["type"] == "string":
            return [self._graph["missing_text"].get(name) if value is None else value for value in values]
        return [np.nan if value is None else value for value in values]

    def _labels(self, found: Any) -> list[Any]:
        labels = np.asarray(found)
        labels = labels.reshape(len(labels), -1) if self._several else labels.reshape(-1)
        if not self.classes:
            return labels.astype(np.float64).tolist()
        return labels.astype(np.array(self.classes).dtype).tolist()


def main() -> int:
    """Answer the rows of the file named on the command line."""
    if len(sys.argv) not in {2, 3}:
        print("usage: python predict.py row.json [answers.db]", file=sys.stderr)  # noqa: T201
        return 2
    rows = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    outbox = None
    if len(sys.argv) == 3:
        sys.path.insert(0, str(Path(__file__).parent))
        from outbox import Outbox  # type: ignore[import-not-found]

        outbox = Outbox(sys.argv[2])
    try:
        predictor = Predictor(Path(__file__).parent, outbox)
        answers = predictor.predict(rows if isinstance(rows, list) else [rows])
    except ValueError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    for answer in answers:
        print(json.dumps(answer))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main())
