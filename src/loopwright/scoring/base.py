"""What every runtime is: a prepared folder goes in, columns go through, scores come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from loopwright.errors import SchemaMismatch
from loopwright.records import Column, Scalar, Signature, now
from loopwright.registry.layout import Layout

__all__ = [
    "FORMAT",
    "GOLDEN",
    "MANIFEST",
    "MODEL",
    "NATIVE",
    "TREES",
    "Band",
    "Manifest",
    "Proof",
    "Runtime",
    "Scores",
    "Timing",
    "TreeInputs",
    "refuse_gaps",
]

FORMAT = 2
MANIFEST = "scorer.json"
MODEL = "model.onnx"
TREES = "model.treelite"
NATIVE = "native"
GOLDEN = "golden.arrow"


@dataclass(frozen=True, slots=True)
class Scores:
    """The answers for n rows.

    `prediction` has shape (n,): class labels of their own type, or numbers; (n, m) for a model with m
    `Signature.outputs`. `probability` has shape (n, k), its columns in the order of `Signature.classes`, or is None
    where the model gives none; a model with several outputs gives none.
    """

    prediction: NDArray[Any]
    probability: NDArray[np.float64] | None = None


@dataclass(frozen=True, slots=True)
class Proof:
    """What the replay found about one way to compute the model; `reason` says it in words.

    `max_difference` and `label_flips` compare with the model's own answers on real rows; None where it never answered.
    """

    runtime: str
    proven: bool
    reason: str
    max_difference: float | None = None
    label_flips: int | None = None


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a runtime took for one batch of `rows` rows on the machine that prepared it: the median of some."""

    runtime: str
    rows: int
    microseconds: float


@dataclass(frozen=True, slots=True)
class Band:
    """`runtime` answers batches of up to `rows` rows that are too large for the band before; None has no end."""

    runtime: str
    rows: int | None = None


@dataclass(frozen=True, slots=True)
class TreeInputs:
    """How trees in treelite are fed, and what their sums mean.

    `rounded` numbers are brought to single precision first, as scikit-learn's forests do. `codes` holds the categories
    of a column in the order of their codes, from 0; any other value counts as missing.
    """

    rounded: bool = False
    codes: dict[str, tuple[Scalar, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manifest:
    """The content of `scorer.json`: what was prepared, from what, and how well it was proven.

    `runtime` answers the smallest batches and is loaded at once; `bands` says which one answers how many rows, from
    the `timings` on the machine that prepared it, and is empty where `runtime` answers all. `proofs` has what each
    runtime showed in the replay of `replay_rows` real rows, `reason` the same in one sentence; `max_difference` and
    `label_flips` are those of `runtime`, or of the one that came closest where none was proven. A compiled runtime may
    differ by `tolerance`.

    `digest` is the model version's. `inputs` says how an ONNX graph is fed: ``matrix`` is one input ``X`` of shape
    (n, columns); ``blocks`` is one input ``numbers`` and one ``texts``, each with its columns in the signature's order;
    ``columns`` is one input of shape (n, 1) for each column, called ``c0``, ``c1``... Columns in `unused` do not go in.
    `precision` is the type of the numbers that go in. `missing_text` is what stands for missing text in each such
    column. `trees` is how treelite is fed. `direct` says that the native model is called with a matrix although it was
    fitted on a frame.
    `files` are the SHA-256 of all other files of the folder, by relative path.
    """

    model: str
    version: int
    runtime: str
    reason: str
    digest: str
    signature: Signature
    layout: Layout
    probability: bool = False
    labels_from_probability: bool = False
    inputs: Literal["matrix", "blocks", "columns"] = "matrix"
    precision: Literal["float64", "float32"] = "float64"
    missing_text: dict[str, str] = field(default_factory=dict)
    unused: tuple[str, ...] = ()
    trees: TreeInputs | None = None
    direct: bool = False
    replay_rows: int = 0
    max_difference: float | None = None
    label_flips: int | None = None
    tolerance: float = 1e-5
    proofs: tuple[Proof, ...] = ()
    bands: tuple[Band, ...] = ()
    timings: tuple[Timing, ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    format: int = FORMAT
    created: datetime = field(default_factory=now)

    @property
    def runtimes(self) -> tuple[str, ...]:
        """Every runtime that answers some batches, the one for single rows first."""
        return tuple(dict.fromkeys((self.runtime, *(band.runtime for band in self.bands))))

    @property
    def has_graph(self) -> bool:
        """Whether the folder has an ONNX graph that was proven, whatever answers here."""
        return any(proof.runtime == "onnx" and proof.proven for proof in self.proofs)

    @property
    def graph_reason(self) -> str:
        """What the proof of the ONNX graph says, or why none was tried."""
        return next((proof.reason for proof in self.proofs if proof.runtime == "onnx"), self.reason)


class Runtime(Protocol):
    """One way to compute a model. Loaded from a prepared folder; safe to call from several threads."""

    def __init__(self, folder: Path, manifest: Manifest) -> None: ...

    def score(self, columns: Mapping[str, NDArray[Any]], rows: int) -> Scores:
        """Score typed columns of shape (rows,), rows >= 1, of which all that the signature names are there."""
        ...

    def close(self) -> None:
        """Give back memory."""
        ...


def refuse_gaps(columns: Mapping[str, NDArray[Any]], inputs: Sequence[Column]) -> None:
    """Check that no required number is missing: models differ in what they answer then, and none was trained on it.

    Raises
    ------
    SchemaMismatch
        A required column holds NaN; the first one, with its first row.
    """
    for column in inputs:
        if not column.required:
            continue
        values = columns[column.name]
        # Comparing one value is 20 times quicker than asking NumPy about an array of one.
        if len(values) == 1:
            gap = 0 if values[0] is None or values[0] != values[0] else -1
        elif values.dtype.kind == "f":
            gap = int(np.isnan(values).argmax()) if np.isnan(values).any() else -1
        elif values.dtype == object:
            items = values.tolist()
            gap = items.index(None) if None in items else -1
        else:
            gap = (
                int(np.isnat(values).argmax()) if values.dtype.kind == "M" and np.isnat(values).any() else -1
            )
        if gap >= 0:
            raise SchemaMismatch(
                f"The column {column.name!r} is missing in row {gap}.",
                valid="The model was trained without any missing value there.",
                field=column.name,
                row=gap,
            )
