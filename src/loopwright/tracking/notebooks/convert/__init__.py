"""From a notebook to a pipeline: the plan of its steps, readable source that keeps later edits, and a proof.

Works by the notebook's text alone: no language model, no network.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from loopwright.config import Project
from loopwright.errors import Denied, InvalidInput, NotFound

if TYPE_CHECKING:
    from loopwright.tracking.notebooks.convert.merge import Change
    from loopwright.tracking.notebooks.convert.parameters import Parameter
    from loopwright.tracking.notebooks.convert.proof import Proof

__all__ = ["Conversion", "StepMade", "convert"]


@dataclass(frozen=True, slots=True)
class StepMade:
    """One step of the pipeline: its function, the code cells it comes from (from 1), and what flows in and out."""

    name: str
    cells: tuple[int, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Conversion:
    """What came of a conversion. `entrypoint` is what ``loopwright pipeline run`` takes.

    `missing` says why no model is registered, and is empty when one is. `left_out` has one line for each part of the
    notebook that the pipeline does without. `proof` is None when none was asked for.
    """

    notebook: Path
    file: Path
    entrypoint: str
    steps: tuple[StepMade, ...]
    parameters: tuple[Parameter, ...]
    metrics: tuple[str, ...]
    missing: str
    left_out: tuple[str, ...]
    notes: tuple[str, ...]
    changes: tuple[Change, ...]
    proof: Proof | None

    @property
    def ok(self) -> bool:
        """Whether the pipeline was shown to compute what the notebook computes, or no proof was asked for."""
        return self.proof is None or self.proof.equal


def convert(
    notebook: Path | str,
    *,
    out: Path | None = None,
    prove: bool = True,
    take: Collection[str] = (),
    tolerance: float = 1e-6,
    timeout_s: float = 600.0,
) -> Conversion:
    """Write the pipeline of a notebook, and show that it computes the same.

    Parameters
    ----------
    notebook
        The ``.ipynb`` file. It is not changed and not run, except for the proof.
    out
        The Python file to write; by default ``pipelines.py`` in the project's folder, or beside the notebook where
        there is no project. Converted again, a function that was changed since is kept.
    prove
        Run the notebook's code and the pipeline, with the same seed, and compare what flows between the steps.
    take
        Names of functions that are written anew although they were changed.
    tolerance
        Largest difference between two numbers that counts as none, relative to the larger one; above 0.
    timeout_s
        After so many seconds the proof is given up.

    Raises
    ------
    NotFound, InvalidInput
        There is no such notebook, or it cannot be converted; the message names the cell.
    Conflict
        The file to write is there and comes from somewhere else.
    """
    from loopwright.tracking.notebooks.convert import proof
    from loopwright.tracking.notebooks.convert.cells import read
    from loopwright.tracking.notebooks.convert.merge import merge
    from loopwright.tracking.notebooks.convert.plan import plan
    from loopwright.tracking.notebooks.convert.source import blocks, left_out_lines

    if tolerance <= 0 or timeout_s <= 0:
        raise InvalidInput(f"tolerance={tolerance} and timeout_s={timeout_s} must be above 0.")
    path = Path(notebook)
    file = _file(path, out)
    made = plan(read(path), file.parent)
    written = blocks(made)
    left = left_out_lines(made)
    current = file.read_text(encoding="utf-8") if file.is_file() else ""
    merged = merge(current, written, path.name, left, take)
    _write(file, merged.text)
    shown = proof.prove(made, file, tolerance=tolerance, timeout_s=timeout_s) if prove else None
    return Conversion(
        notebook=path,
        file=file,
        entrypoint=f"{file.stem}:{made.pipeline}",
        steps=tuple(StepMade(step.name, step.cells, step.inputs, step.outputs) for step in made.steps),
        parameters=tuple(made.parameters),
        metrics=tuple(made.metrics),
        missing=made.registration if isinstance(made.registration, str) else "",
        left_out=tuple(line.removeprefix("#").strip() for line in left[1:]),
        notes=tuple(made.notes),
        changes=merged.changes,
        proof=shown,
    )


def _file(notebook: Path, out: Path | None) -> Path:
    if out is not None:
        if out.suffix != ".py" or not out.stem.isidentifier():
            raise InvalidInput(
                f"{out} cannot be a Python module.", valid="Write to a file such as pipelines.py or wine.py."
            )
        return out.resolve()
    folder = notebook.resolve().parent
    with contextlib.suppress(NotFound):
        folder = Project.find(folder).root
    return folder / "pipelines.py"


def _write(file: Path, text: str) -> None:
    temporary = file.with_name(f".{file.name}.new")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(file)
    except OSError as error:
        raise Denied(f"{file} cannot be written: {error.strerror}.", hint=f"ls -ld {file.parent}") from error
