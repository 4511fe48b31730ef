"""The compiled runtime for trees that ONNX has no exact form for: treelite's own library, without a compiler.

Calls the C interface of the installed package directly: its Python part would import SciPy and read its settings anew
for each call, which takes longer than the trees do. Imports neither MLflow, pandas nor scikit-learn.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loopwright.errors import Damaged, InvalidInput, Unavailable
from loopwright.records import Task
from loopwright.registry.estimator import class_array
from loopwright.scoring.base import TREES, Manifest, Scores, TreeInputs
from loopwright.scoring.feed import Codes, Numbers

__all__ = ["TreeliteRuntime"]

#: One request is one thread.
_SETTINGS = b'{"predict_type": "default", "nthread": 1}'


@cache
def _library() -> Any:
    """Load the library of the installed package."""
    spec = importlib.util.find_spec("treelite")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [] if spec else [])]
    for folder in folders:
        for name in ("libtreelite.so", "libtreelite.dylib", "treelite.dll"):
            if (folder / "lib" / name).is_file():
                library = ctypes.CDLL(str(folder / "lib" / name))
                library.TreeliteGetLastError.restype = ctypes.c_char_p
                library.TreeliteGTILPredict.argtypes = [
                    ctypes.c_void_p,
                    ctypes.c_void_p,
                    ctypes.c_char_p,
                    ctypes.c_uint64,
                    ctypes.c_void_p,
                    ctypes.c_void_p,
                ]
                return library
    raise Unavailable("The package treelite is not installed here.", hint="uv add treelite")


class _Forest:
    """A model in the library's memory. Freed when nobody holds it any more, so never under a call."""

    def __init__(self, path: Path) -> None:
        self._library = _library()
        self.model = ctypes.c_void_p()
        self.settings = ctypes.c_void_p()
        self._do("TreeliteDeserializeModelFromFile", str(path).encode(), ctypes.byref(self.model))
        self._do("TreeliteGTILParseConfig", _SETTINGS, ctypes.byref(self.settings))
        self.input_type = self._text("TreeliteGetInputType")
        self.output_type = self._text("TreeliteGetOutputType")
        self.predict = self._library.TreeliteGTILPredict

    def _do(self, name: str, *arguments: Any) -> None:
        if getattr(self._library, name)(*arguments):
            raise InvalidInput(self.problem())

    def problem(self) -> str:
        """Return what the library says went wrong in the last call of this thread."""
        return str((self._library.TreeliteGetLastError() or b"").decode(errors="replace"))

    def _text(self, name: str) -> bytes:
        found = ctypes.c_char_p()
        self._do(name, self.model, ctypes.byref(found))
        return found.value or b""

    def width(self) -> tuple[int, ...]:
        """Return the shape of one row's answer: (outputs, values)."""
        shape = ctypes.POINTER(ctypes.c_uint64)()
        count = ctypes.c_uint64()
        self._do(
            "TreeliteGTILGetOutputShape",
            self.model,
            ctypes.c_uint64(1),
            self.settings,
            ctypes.byref(shape),
            ctypes.byref(count),
        )
        return tuple(int(shape[place]) for place in range(1, count.value))

    def features(self) -> int:
        """Return how many columns a row must have: the library reads that many, whatever it is given."""
        count = ctypes.c_int()
        self._do("TreeliteQueryNumFeature", self.model, ctypes.byref(count))
        return count.value

    def __del__(self) -> None:
        if self.settings:
            self._library.TreeliteGTILDeleteConfig(self.settings)
        if self.model:
            self._library.TreeliteFreeModel(self.model)


class TreeliteRuntime:
    """Boosted trees or a forest, from a checkpoint of treelite."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        try:
            self._forest: _Forest | None = _Forest(folder / TREES)
            outputs, values = self._forest.width()
        except (InvalidInput, ValueError) as error:
            raise Damaged(f"{folder / TREES} cannot be loaded: {error}") from error
        signature, given = manifest.signature, manifest.trees or TreeInputs()
        self._input_type = self._forest.input_type
        self._output = np.dtype(self._forest.output_type.decode())
        dtype = self._input_type.decode()
        inputs = signature.inputs
        self._feed = (
            Codes(inputs, dtype, given.codes, rounded=given.rounded)
            if given.codes
            else Numbers(inputs, dtype, rounded=given.rounded)
        )
        self._width = outputs * values
        self._classes = class_array(signature.classes) if signature.task == Task.classification else None
        self._several = bool(signature.outputs)
        expected = len(signature.outputs or (0,)) if self._classes is None else len(self._classes)
        if (taken := self._forest.features()) != len(inputs):
            raise Damaged(f"{folder / TREES} takes {taken} columns, not {len(inputs)}.")
        if self._width != expected and not (self._width == 1 and expected == 2):
            raise Damaged(f"{folder / TREES} gives {self._width} numbers for each row, not {expected}.")

    def score(self, columns: Mapping[str, NDArray[Any]], rows: int) -> Scores:
        """Score typed columns of shape (rows,), rows >= 1."""
        forest = self._forest
        if forest is None:
            raise InvalidInput("The trees are closed.")
        matrix = self._feed.matrix(columns, rows)
        found = np.zeros((rows, self._width), self._output)
        if forest.predict(
            forest.model,
            matrix.__array_interface__["data"][0],
            self._input_type,
            rows,
            found.__array_interface__["data"][0],
            forest.settings,
        ):
            raise InvalidInput(f"The trees refuse the rows: {forest.problem()}")
        answers = found.astype(np.float64, copy=False)
        if self._classes is None:
            return Scores(answers if self._several else answers[:, 0])
        if self._width == 1:
            answers = np.concatenate((1.0 - answers, answers), axis=1)
        return Scores(self._classes[answers.argmax(axis=1)], answers)

    def close(self) -> None:
        """Give back the trees' memory."""
        self._forest = None
