"""The scorer: one model version, ready to answer. All four deployment modes call models through it alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from loopwright import plugins
from loopwright.errors import Damaged, InvalidInput, LoopwrightError, NotFound, SchemaMismatch
from loopwright.lineage.digests import file_digest
from loopwright.registry.columns import missing
from loopwright.registry.estimator import class_array
from loopwright.scoring import golden
from loopwright.scoring.base import FORMAT, GOLDEN, MANIFEST, Manifest, Runtime, Scores

__all__ = ["Scorer", "load", "read_manifest"]


class Scorer:
    """One prepared model version. Made by `load`; safe to use from several threads.

    Parameters
    ----------
    folder
        The prepared folder.
    manifest
        Its `scorer.json`.
    runtime
        What computes the model.
    """

    def __init__(self, folder: Path, manifest: Manifest, runtime: Runtime) -> None:
        self.folder = folder
        self.manifest = manifest
        self.model = manifest.model
        self.version = manifest.version
        self.signature = manifest.signature
        self.runtime = manifest.runtime
        self.digest = manifest.digest
        self._runtime: Runtime | None = runtime
        self._columns = manifest.signature.inputs
        self._names = manifest.signature.names

    def __repr__(self) -> str:
        return f"Scorer({self.model}/{self.version}, {self.runtime})"

    def score(self, columns: Mapping[str, NDArray[Any]]) -> Scores:
        """Score rows given as columns.

        Parameters
        ----------
        columns
            One array of shape (n,) for each input of the signature, n >= 0, of the type its column type stands for:
            see `loopwright.registry.DTYPES`. Others are ignored. A missing number is NaN, missing text is None; an
            input that is not required may be absent.

        Returns
        -------
        Scores
            Prediction of shape (n,) and probability of shape (n, k) or None.

        Raises
        ------
        SchemaMismatch
            An input is absent, has another length, or misses values where the model was trained without any.
        InvalidInput
            The model itself refuses the rows.
        """
        if self._runtime is None:
            raise InvalidInput(f"The scorer of {self.model}/{self.version} is closed.")
        rows, complete = self._rows(columns)
        if not complete:
            columns = self._filled(columns, rows)
        if rows == 0:
            return self._empty()
        try:
            return self._runtime.score(columns, rows)
        except LoopwrightError:
            raise
        except Exception as error:
            raise InvalidInput(
                f"The model {self.model}/{self.version} refuses the rows: {error}", model=self.model
            ) from error

    def _rows(self, columns: Mapping[str, NDArray[Any]]) -> tuple[int, bool]:
        """Return the number of rows, the same in all columns, and whether every input is there."""
        rows, complete = -1, True
        for name in self._names:
            values = columns.get(name)
            if values is None:
                complete = False
            elif rows < 0:
                rows = len(values)
            elif len(values) != rows:
                raise SchemaMismatch(
                    f"The column {name!r} has {len(values)} rows, the others have {rows}.", field=name
                )
        if rows < 0:
            raise _absent(self._names[0], columns)
        return rows, complete

    def _filled(self, columns: Mapping[str, NDArray[Any]], rows: int) -> dict[str, NDArray[Any]]:
        complete = {}
        for column in self._columns:
            if column.name in columns:
                complete[column.name] = columns[column.name]
            elif column.required:
                raise _absent(column.name, columns)
            else:
                complete[column.name] = missing(column, rows)
        return complete

    def _empty(self) -> Scores:
        classes = class_array(self.signature.classes) if self.signature.classes else np.empty(0)
        probability = np.empty((0, len(classes))) if self.manifest.probability else None
        return Scores(np.empty(0, dtype=classes.dtype), probability)

    def verify(self) -> None:
        """Score the golden rows kept with the version and compare; a version without any passes.

        Raises
        ------
        Damaged
            An answer differs by more than the tolerance, or a label at all.
        """
        path = self.folder / GOLDEN
        if not path.is_file():
            return
        columns, expected = golden.read(path, self.manifest)
        found = self.score(columns)
        difference, flips = golden.compare(expected, found)
        if flips or not difference <= self.manifest.tolerance:
            raise Damaged(
                f"The scorer of {self.model}/{self.version} does not give its golden answers: they differ by up to "
                f"{difference:.3g}, with {flips} labels of {len(expected.prediction)} changed.",
                valid=f"The tolerance is {self.manifest.tolerance:g}.",
                hint=f"python -m loopwright.scoring.prepare {self.model} {self.version} --force",
            )

    def close(self) -> None:
        """Give back the model's memory. Calls under way in other threads end normally or fail."""
        runtime, self._runtime = self._runtime, None
        if runtime is not None:
            runtime.close()


def _absent(name: str, columns: Mapping[str, NDArray[Any]]) -> SchemaMismatch:
    error = NotFound.among("column", name, columns)
    return SchemaMismatch(f"The column {name!r} is missing.", valid=error.valid, field=name)


def read_manifest(folder: Path) -> Manifest:
    """Read the `scorer.json` of a prepared folder.

    Raises
    ------
    NotFound
        Nothing was prepared there.
    Damaged
        It is no manifest, or one of another release.
    """
    path = folder / MANIFEST
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=Manifest)
    except FileNotFoundError:
        model, version = folder.parent.name, folder.name
        raise NotFound(
            f"No scorer is prepared in {folder}.",
            hint=f"python -m loopwright.scoring.prepare {model} {version}",
        ) from None
    except msgspec.DecodeError as error:
        raise Damaged(f"{path} is no scorer's manifest: {error}.", hint=_again(folder)) from error
    if manifest.format != FORMAT:
        raise Damaged(f"{path} has the format {manifest.format}, not {FORMAT}.", hint=_again(folder))
    return manifest


def _again(folder: Path) -> str:
    return f"python -m loopwright.scoring.prepare {folder.parent.name} {folder.name} --force"


def load(folder: Path | str) -> Scorer:
    """Load a prepared scorer, checking the hash of every file, and warm it up.

    Loads neither MLflow, pandas nor scikit-learn when the runtime is compiled.

    Parameters
    ----------
    folder
        What `prepare` returned, such as ``.loopwright/scorers/digits/3``.

    Raises
    ------
    NotFound
        Nothing was prepared there.
    Damaged
        A file is missing or was changed since, or cannot be loaded.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    for name, digest in manifest.files.items():
        path = folder / name
        found = file_digest(path) if path.is_file() else "missing"
        if found != digest:
            raise Damaged(
                f"{path} is not what was prepared: its SHA-256 is {found}, not {digest}.",
                hint=_again(folder),
                file=name,
            )
    runtime = plugins.load("runtime", manifest.runtime)(folder, manifest)
    scorer = Scorer(folder, manifest, runtime)
    _warm_up(scorer)
    return scorer


def _warm_up(scorer: Scorer) -> None:
    """Score once, so that the first request does not pay for what a runtime allocates lazily."""
    path = scorer.folder / GOLDEN
    if path.is_file():
        columns, _ = golden.read(path, scorer.manifest)
        scorer.score({name: values[:1] for name, values in columns.items()})
