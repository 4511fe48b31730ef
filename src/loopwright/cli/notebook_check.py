"""``loopwright notebook check``: whether a notebook runs from top to bottom and gives what it shows."""

import contextlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from loopwright.cli.notebook_convert import app
from loopwright.cli.output import console, emit

if TYPE_CHECKING:
    from loopwright.tracking.notebooks.verdict import CellFinding, Verdict

__all__ = ["app", "check"]

_MARKS = {"good": "[green]✓[/green]", "warn": "[yellow]≠[/yellow]", "bad": "[red]✗[/red]", "": "[dim]·[/dim]"}


@app.command
def check(
    notebook: Path,
    /,
    *,
    out: Path | None = None,
    timeout: float = 600.0,
    tolerance: float = 1e-6,
    json: Annotated[bool, Parameter(negative="")] = False,
) -> None:
    """Run a notebook as it is in a new process, and say whether it gives what it shows and, if not, why.

    The notebook stays as it is. A page, the same as JSON, and a lock of what was imported are written beside it. The
    exit code is 1 when a cell fails or gives another output than is stored.

    For example:

        loopwright notebook check wine.ipynb

    Parameters
    ----------
    notebook
        The notebook.
    out
        The folder for the reports; else `<notebook>-check` beside it.
    timeout
        Seconds that one cell may take.
    tolerance
        Largest relative difference of two numbers that counts as none.
    """
    from loopwright.tracking.notebooks.verdict.check import check as look
    from loopwright.tracking.notebooks.verdict.report import as_dict, write

    with contextlib.ExitStack() as around:
        status = around.enter_context(console.status("")) if sys.stdout.isatty() else None

        def progress(done: int, whole: int, text: str) -> None:
            if status:
                status.update(f"cell {done + 1} of {whole}: {text[:60]}")

        found = look(notebook, timeout_s=timeout, tolerance=tolerance, progress=progress)
    files = write(found, out or notebook.resolve().with_name(f"{notebook.stem}-check"))
    if json:
        emit(as_dict(found))
    else:
        _show(found)
        console.print(f"The report: {files['report.html']}", soft_wrap=True, highlight=False)
    if not found.reproduces:
        sys.exit(1)


def _show(found: "Verdict") -> None:
    for cell in found.cells:
        first = cell.source.strip().split("\n")[0][:60]
        seconds = f"{cell.seconds:7.2f} s" if cell.status != "not reached" else " " * 9
        console.print(f"{_MARKS[_look(cell)]} {cell.number:>3} {seconds}  ", end="")
        console.print(
            first, style="dim" if cell.status == "not reached" else None, markup=False, highlight=False
        )
        if cell.difference:
            _say(f"      {cell.difference}")
        if cell.cause and cell.cause.text not in cell.difference:
            _say(f"      {cell.cause.kind}: {cell.cause.text}")
        if cell.cause and cell.cause.advice:
            _say(f"      Try: {cell.cause.advice}")
    if found.order:
        _say(f"{found.order}.")
    for path in found.written:
        _say(f"It wrote outside of its folder: {path}")
    for host in found.hosts:
        _say(f"It asked over the network: {host}")
    color = "green" if found.reproduces else ("red" if found.failed else "yellow")
    console.print(found.sentence, style=f"bold {color}", markup=False, highlight=False, soft_wrap=True)


def _look(cell: "CellFinding") -> str:
    if cell.status == "ran":
        return "warn" if cell.output == "different" else "good"
    return "bad" if cell.status == "failed" else ""


def _say(text: str) -> None:
    console.print(text, markup=False, highlight=False, soft_wrap=True)
