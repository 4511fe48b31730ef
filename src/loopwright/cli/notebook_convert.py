"""``loopwright notebook convert`` and ``run``: from a notebook to a pipeline, and to a tracked run."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import cyclopts
from cyclopts import Parameter

from loopwright.cli.output import COMMON, Common, console, emit, emit_table

if TYPE_CHECKING:
    from loopwright.tracking.notebooks.convert import Conversion
    from loopwright.tracking.notebooks.convert.proof import Proof

__all__ = ["app", "convert", "run"]

app = cyclopts.App(name="notebook", help="Check a notebook, turn it into a pipeline, run it tracked.")


@app.command
def convert(
    notebook: Path,
    /,
    *,
    out: Path | None = None,
    prove: bool = True,
    take: Annotated[
        tuple[str, ...], Parameter(help="A function to write anew although you changed it.", negative="")
    ] = (),
    tolerance: float = 1e-6,
    timeout: float = 600.0,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Write a notebook's pipeline, keep later edits, and show that it computes the same.

    A comment `# step: features` on a cell's first line says which step the cell belongs to; `# step: skip` leaves it
    out. The exit code is 1 when the pipeline's values differ from the notebook's. A folder that is in no project
    becomes one.

    For example:

        loopwright notebook convert wine.ipynb

    Parameters
    ----------
    notebook
        The notebook; it stays as it is.
    out
        The Python file to write; else `pipelines.py` of the project.
    prove
        Run both and compare.
    tolerance
        Largest relative difference that counts as none.
    timeout
        Seconds after which the comparison is given up.
    """
    from loopwright.tracking.notebooks.convert import convert as make

    done = make(notebook, out=out, prove=prove, take=take, tolerance=tolerance, timeout_s=timeout)
    adopted = _adopt(done.file.parent)
    if json:
        emit(done)
    else:
        _show(done)
        if adopted:
            _say(f"{done.file.parent} is a project now; wrote {', '.join(path.name for path in adopted)}.")
        console.print(f"Wrote {done.file}. Next: loopwright pipeline run {done.entrypoint}", soft_wrap=True)
    if not done.ok:
        sys.exit(1)


def _adopt(folder: Path) -> list[Path]:
    """Make the folder a project, so that its pipeline runs; return what was written: nothing where it is in one."""
    from loopwright.config import Project
    from loopwright.errors import NotFound
    from loopwright.templates import adopt

    try:
        Project.find(folder)
    except NotFound:
        return adopt(folder)
    return []


def _show(done: "Conversion") -> None:
    emit_table(
        "",
        [
            {
                "step": step.name,
                "cells": ", ".join(map(str, step.cells)),
                "takes": ", ".join(step.inputs) or None,
                "gives": ", ".join(step.outputs) or None,
            }
            for step in done.steps
        ],
        empty="",
    )
    for item in done.parameters:
        _say(f"  parameter {item.declaration}")
    kept = [change for change in done.changes if change.what in {"kept", "yours"}]
    for change in kept:
        if change.what == "kept":
            more = " The notebook has changed there too: --take " + change.name if change.conflict else ""
            _say(f"  kept as you changed it: {change.name}.{more}")
    for change in done.changes:
        if change.what in {"updated", "removed"} and not change.name.startswith("("):
            _say(f"  {change.what}: {change.name}")
    for note in done.notes:
        _say(f"  note: {note}")
    if done.missing:
        _say(f"  no model is registered: {done.missing}")
    if done.left_out:
        _say(f"  left out: {len(done.left_out)} parts of the notebook, listed at the end of {done.file.name}")
    if done.proof is not None:
        _show_proof(done.proof)


def _show_proof(proof: "Proof") -> None:
    for side, reason in proof.failures.items():
        console.print(f"[red]The {side} does not run[/red]", end=": ")
        _say(reason)
    if "notebook" in proof.failures:
        _say("  Why, and in which cell: loopwright notebook check <notebook>")
    emit_table(
        "",
        [
            {
                "step": row.step,
                "value": row.name,
                "notebook": row.notebook,
                "pipeline": row.pipeline,
                "difference": None if row.difference is None else f"{row.difference:.3g}",
                "": "equal" if row.equal else "DIFFERS",
            }
            for row in proof.comparisons
        ],
        empty="Nothing could be compared.",
    )
    if proof.equal:
        console.print(
            f"[green]Equal[/green]: {proof.values} values of the notebook and the pipeline, in {proof.seconds:.1f} s."
        )
    elif not proof.failures:
        differing = sum(not row.equal for row in proof.comparisons)
        console.print(f"[red]Different[/red]: {differing} of {len(proof.comparisons)} values.")


def _say(text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


@app.command
def run(
    notebook: Path,
    /,
    *,
    parameter: Annotated[
        tuple[str, ...],
        Parameter(name=["--parameter", "-p"], help="name=value; may be repeated.", negative=""),
    ] = (),
    timeout: float | None = None,
    common: Common = COMMON,
) -> None:
    """Run a copy of a notebook as a tracked run; the executed copy is an artifact of the run.

    A parameter replaces the value of a plain assignment in the notebook, such as `depth = 6`.

    For example:

        loopwright notebook run wine.ipynb -p depth=6

    Parameters
    ----------
    notebook
        The notebook; it stays as it is.
    timeout
        Seconds that one cell may take; else as long as it wants.
    """
    from loopwright.cli.pipeline import _values
    from loopwright.tracking.notebooks.run import run as run_notebook

    project = common.open()
    done = run_notebook(project, notebook, _values(parameter), timeout_s=timeout)
    if common.json:
        emit(done)
        return
    console.print(
        f"[bold]{notebook.name}[/bold] {done.status}: {done.cells} cells in {done.seconds:.1f} s · MLflow run "
        f"{done.run_id}\nThe executed copy: {done.executed}",
        soft_wrap=True,
    )
