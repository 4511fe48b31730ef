"""Putting new values for parameters into a copy of a notebook."""

from __future__ import annotations

import ast
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopwright.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from loopwright.tracking.notebooks.convert.cells import Cell

__all__ = ["cell_number", "with_parameters"]

#: Tags of cells that the notebook itself does not have: new values, and the rest of a cell that was cut in two.
_ADDED = ("injected-parameters", "continued")


def with_parameters(notebook: Path, parameters: Mapping[str, Any]) -> Any:
    """Return a copy of a notebook, as nbformat has it, that sets the parameters where the notebook sets them.

    A cell with the new values comes behind the cell that assigns the name; a cell that also reads the name is cut in
    two, so that the new value holds for what comes next in it.
    """
    nbformat = importlib.import_module("nbformat")
    places = _places(notebook, parameters)
    content = nbformat.read(notebook, as_version=4)
    number = 0
    cells = []
    for cell in content.cells:
        number += cell.cell_type == "code"
        wanted = places.get(number, {}) if cell.cell_type == "code" else {}
        cells += _cut(nbformat, cell, wanted) if wanted else [cell]
    content.cells = cells
    return content


def _places(notebook: Path, parameters: Mapping[str, Any]) -> dict[int, dict[int, str]]:
    """Return by cell the line behind which to set something, and the code that does it."""
    from loopwright.tracking.notebooks.convert.cells import read
    from loopwright.tracking.notebooks.convert.dataflow import flow_of
    from loopwright.tracking.notebooks.convert.parameters import literals

    content = read(notebook)
    everything = [statement for cell in content.cells for statement in cell.statements]
    known = literals(everything, {id(item): flow_of(item.node) for item in everything})
    by_name = {parameter.name: parameter for parameter in known.values()}
    cells = {cell.number: cell for cell in content.cells}
    found: dict[int, dict[int, str]] = {}
    for name, value in parameters.items():
        if name not in by_name:
            raise NotFound.among(
                f"parameter of {notebook.name} called",
                name,
                by_name,
                hint=f"assign it once, at the top of the notebook: {name} = {value!r}",
            )
        default = by_name[name].default
        fits = type(value) is type(default) or (type(default) is float and type(value) is int)
        if not fits:
            raise InvalidInput(
                f"The parameter {name!r} is {value!r}, of type {type(value).__name__}.",
                valid=f"The notebook has {name} = {default!r}: it takes {type(default).__name__}.",
                parameter=name,
            )
        cell = cells[by_name[name].cell]
        line = _line(cell, name)
        lines = found.setdefault(cell.number, {})
        lines[line] = lines.get(line, "") + f"{name} = {value!r}\n"
    return found


def _line(cell: Cell, name: str) -> int:
    """Return the line of a cell behind which a name gets its new value: the last, if nothing in the cell reads it."""
    whole = len(cell.source.splitlines())
    if all(
        isinstance(item.node, ast.Assign | ast.AnnAssign | ast.Import | ast.ImportFrom)
        for item in cell.statements
    ):
        reads = (
            node for item in cell.statements for node in ast.walk(item.node) if isinstance(node, ast.Name)
        )
        if not any(node.id == name and isinstance(node.ctx, ast.Load) for node in reads):
            return whole
    lines = cell.source.splitlines()
    for item in cell.statements:
        node = item.node
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            last = item.text.splitlines()[(node.end_lineno or 1) - 1]
            return next(
                (place for place, text in enumerate(lines, 1) if text.rstrip(" ;") == last.rstrip()), whole
            )
    return whole


def _cut(nbformat: Any, cell: Any, places: Mapping[int, str]) -> list[Any]:
    lines = cell.source.splitlines()
    pieces: list[Any] = []
    start = 0
    for line in sorted(places):
        head = _piece(nbformat, cell, lines[start:line], first=start == 0)
        given = nbformat.v4.new_code_cell(
            f"# Parameters of this run\n{places[line].rstrip()}", metadata={"tags": [_ADDED[0]]}
        )
        pieces += [head, given]
        start = line
    if any(text.strip() for text in lines[start:]):
        pieces.append(_piece(nbformat, cell, lines[start:], first=start == 0))
    return pieces


def _piece(nbformat: Any, cell: Any, lines: list[str], *, first: bool) -> Any:
    metadata = dict(cell.metadata)
    if not first:
        metadata["tags"] = [*metadata.get("tags", ()), _ADDED[1]]
    return nbformat.v4.new_code_cell("\n".join(lines), metadata=metadata)


def cell_number(content: Any, cell: Any) -> int:
    """Return the number, among code cells from 1, that a cell has in the notebook before parameters were put in."""
    code = [item for item in content.cells if item.cell_type == "code"]
    own = [item for item in code if not set(item.metadata.get("tags", ())) & set(_ADDED)]
    before = code[: code.index(cell) + 1]
    return max(1, sum(item in own for item in before))
