"""The scorer: one model version, ready to answer. All four deployment modes call models through it alone."""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from loopwright import plugins
from loopwright.errors import Damaged, InvalidInput, LoopwrightError, NotFound, SchemaMismatch
from loopwright.lineage.digests import file_digest
from loopwright.registry.blocks import Blocks
from loopwright.registry.columns import missing
from loopwright.registry.estimator import class_array
from loopwright.scoring import golden
from loopwright.scoring.base import FORMAT, GOLDEN, MANIFEST, MODEL, NATIVE, TREES, Manifest, Runtime, Scores

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
        bands = manifest.bands
        #: Up to this many rows the runtime at hand answers; more are looked up in the bands.
        self._own_rows = sys.maxsize
        if bands and bands[0].runtime == manifest.runtime and bands[0].rows is not None:
            self._own_rows = bands[0].rows
        self._others = {name: _Later(self, name) for name in manifest.runtimes[1:]}
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
        runtime = self._runtime
        if runtime is None:
            raise InvalidInput(f"The scorer of {self.model}/{self.version} is closed.")
        if type(columns) is Blocks:
            rows = columns.rows
        else:
            rows, complete = self._rows(columns)
            if not complete:
                columns = self._filled(columns, rows)
        if rows == 0:
            return self._empty()
        if rows > self._own_rows:
            runtime = self._for(rows, runtime)
        try:
            return runtime.score(columns, rows)
        except LoopwrightError:
            raise
        except Exception as error:
            if isinstance(error, KeyError) and any(name not in columns for name in self._names):
                # Blocks of another signature: a column is absent, which is an error or means that it is missing.
                return self.score(self._filled(columns, rows))
            raise InvalidInput(
                f"The model {self.model}/{self.version} refuses the rows: {error}", model=self.model
            ) from error

    def _for(self, rows: int, own: Runtime) -> Runtime:
        """Return the runtime for so many rows; the own one while that is being loaded, or where it cannot be."""
        for band in self.manifest.bands:
            if band.rows is None or rows <= band.rows:
                other = self._others.get(band.runtime)
                if other is None:
                    return own
                if other.runtime is None:
                    other.start()
                return other.runtime or own
        return own

    def load_for(self, rows: int) -> str:
        """Load now what answers batches of so many rows, instead of behind the first of them.

        For processes that only see large batches. Returns the name of the runtime that answers them from now on.
        """
        for band in self.manifest.bands:
            if band.rows is None or rows <= band.rows:
                other = self._others.get(band.runtime)
                if other is not None and other.wait():
                    return band.runtime
                break
        return self.manifest.runtime

    @property
    def own_rows(self) -> int:
        """The most rows that the runtime for single rows answers: more are for another one, which may be heavy to load."""
        return self._own_rows

    @property
    def loaded(self) -> tuple[str, ...]:
        """The runtimes that are in memory, the one for single rows first."""
        return (self.manifest.runtime, *(name for name, other in self._others.items() if other.runtime))

    @property
    def problems(self) -> dict[str, str]:
        """Why a runtime for larger batches could not be loaded, by its name; its batches are answered as others."""
        return {name: other.problem for name, other in self._others.items() if other.problem}

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
        outputs = len(self.signature.outputs)
        return Scores(np.empty((0, outputs) if outputs else 0, dtype=classes.dtype), probability)

    def verify(self) -> None:
        """Score the golden rows kept with the version and compare; a version without any passes.

        A runtime for larger batches is held against them when it is loaded.

        Raises
        ------
        Damaged
            An answer differs by more than the tolerance, or a label at all.
        """
        if self._runtime is None:
            raise InvalidInput(f"The scorer of {self.model}/{self.version} is closed.")
        _verify(self.folder, self.manifest, self._runtime)

    def close(self) -> None:
        """Give back the model's memory. Calls under way in other threads end normally or fail."""
        runtime, self._runtime = self._runtime, None
        if runtime is not None:
            runtime.close()
        for other in self._others.values():
            other.close()


class _Later:
    """A runtime for larger batches, which is loaded behind the first of them."""

    def __init__(self, scorer: Scorer, name: str) -> None:
        self._folder, self._manifest, self._name = scorer.folder, scorer.manifest, name
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self.runtime: Runtime | None = None
        self.problem = ""

    def start(self) -> None:
        """Begin to load, once. Not in a daemon thread: an interpreter that ends inside of an import crashes."""
        if self._thread is None:
            with self._lock:
                if self._thread is None and not self._closed:
                    self._thread = threading.Thread(target=self._load, name=f"load-{self._name}")
                    self._thread.start()

    def wait(self) -> bool:
        """Load, and return whether that went well."""
        self.start()
        if self._thread is not None:
            self._thread.join()
        return self.runtime is not None

    def _load(self) -> None:
        try:
            _check_files(self._folder, self._manifest, own=False, name=self._name)
            runtime: Runtime = plugins.load("runtime", self._name)(self._folder, self._manifest)
            _verify(self._folder, self._manifest, runtime)
        except Exception as error:  # noqa: BLE001  (loading a model runs code that is not ours)
            self.problem = f"{type(error).__name__}: {error}"
            return
        with self._lock:
            if not self._closed:
                self.runtime = runtime
                return
        runtime.close()

    def close(self) -> None:
        """Give back the memory; what is being loaded is given back when it is there."""
        with self._lock:
            self._closed = True
            runtime, self.runtime = self.runtime, None
        if runtime is not None:
            runtime.close()


def _verify(folder: Path, manifest: Manifest, runtime: Runtime) -> None:
    path = folder / GOLDEN
    if not path.is_file():
        return
    columns, expected = golden.read(path, manifest)
    count = len(expected.prediction)
    found = runtime.score(columns, count)
    difference, flips = golden.compare(expected, found)
    if flips or not difference <= manifest.tolerance:
        raise Damaged(
            f"The scorer of {manifest.model}/{manifest.version} does not give its golden answers: they differ by up to "
            f"{difference:.3g}, with {flips} labels of {count} changed.",
            valid=f"The tolerance is {manifest.tolerance:g}.",
            hint=_again(folder),
        )


def _files_of(name: str) -> tuple[str, ...]:
    """Return where the files of one runtime begin."""
    return {"native": (f"{NATIVE}/",), "treelite": (TREES,), "onnx": (MODEL,)}.get(name, ())


def _check_files(folder: Path, manifest: Manifest, *, own: bool, name: str = "") -> None:
    """Compare the hashes of files: all but those of runtimes that are loaded later, or those of one such runtime."""
    later = [start for other in manifest.runtimes[1:] for start in _files_of(other)]
    wanted = tuple(later) if own else _files_of(name)
    for file, digest in manifest.files.items():
        if file.startswith(wanted) is own:
            continue
        path = folder / file
        found = file_digest(path) if path.is_file() else "missing"
        if found != digest:
            raise Damaged(
                f"{path} is not what was prepared: its SHA-256 is {found}, not {digest}.",
                hint=_again(folder),
                file=file,
            )


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

    Loads neither MLflow, pandas nor scikit-learn when the runtime is compiled. Where another runtime is quicker for
    large batches, its files are checked and it is loaded in the background of the first such batch.

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
    _check_files(folder, manifest, own=True)
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
