"""Reading a notebook: its code cells, statement by statement, with the comments that belong to each."""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from loopwright.errors import InvalidInput
from loopwright.tracking.notebooks.files import text_of

__all__ = ["Cell", "Notebook", "Statement", "read"]

_STEP = re.compile(r"^#\s*step:\s*([A-Za-z_]\w*)\s*$")
#: Cell magics that run the cell's Python; under any other one the cell is another language or another process.
_TRANSPARENT = {"time", "capture", "prun", "timeit"}
_LINE_MAGIC = re.compile(r"^(\s*)(%|!|\?)|\?\s*$|^\s*[\w.,\s]+=\s*(%\w|!)")


@dataclass(frozen=True, slots=True)
class Statement:
    """One top-level statement: its text with the comments above and beside it, and the same parsed."""

    cell: int
    text: str
    node: ast.stmt

    @property
    def first_line(self) -> str:
        """The statement in one line, without its comments."""
        lines = [
            line for line in self.text.splitlines() if line.strip() and not line.lstrip().startswith("#")
        ]
        return lines[0].strip() + (" ..." if len(lines) > 1 else "") if lines else ""


@dataclass(frozen=True, slots=True)
class Cell:
    """A code cell. `number` counts code cells from 1; `step` is what its ``# step:`` comment says.

    `foreign` holds the lines that are no Python: magics and shell commands.
    """

    number: int
    source: str
    heading: str = ""
    step: str = ""
    tags: tuple[str, ...] = ()
    statements: tuple[Statement, ...] = ()
    foreign: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Notebook:
    """A notebook's code."""

    path: Path
    cells: tuple[Cell, ...] = field(default_factory=tuple)

    @property
    def slug(self) -> str:
        """The notebook's name as a Python name, such as ``wine_quality`` for ``Wine quality.ipynb``."""
        text = re.sub(r"\W+", "_", self.path.stem).strip("_").lower()
        return f"notebook_{text}" if not text or text[0].isdigit() else text


def read(path: Path) -> Notebook:
    """Read a notebook.

    Raises
    ------
    NotFound
        There is no such file; the message names the nearest.
    InvalidInput
        It is no notebook, not one in Python, without code, or a cell is no Python or asks for input.
    """
    document = _document(path)
    language = document.get("metadata", {}).get("kernelspec", {}).get("language", "python").lower()
    if language != "python":
        raise InvalidInput(f"{path} is written in {language}.", valid="Notebooks in Python can be converted.")
    cells: list[Cell] = []
    heading = ""
    for item in _cells(document):
        source = "".join(item.get("source", item.get("input", "")))
        if item.get("cell_type") == "markdown":
            heading = _heading(source) or heading
        elif item.get("cell_type") == "code":
            tags = tuple(map(str, item.get("metadata", {}).get("tags", ())))
            cell = _cell(path, len(cells) + 1, source, heading, tags)
            cells.append(cell)
            heading = "" if cell.statements else heading
    if not any(cell.statements for cell in cells):
        raise InvalidInput(
            f"{path} has no Python code: {len(cells)} code cells.", valid="A pipeline is made of code cells."
        )
    return Notebook(path, tuple(cells))


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(text_of(path))
    except json.JSONDecodeError as error:
        raise InvalidInput(
            f"{path} is no notebook: line {error.lineno} is no JSON ({error.msg}).",
            valid="A notebook is a JSON file that Jupyter wrote, ending in .ipynb.",
        ) from None
    if not isinstance(document, dict) or not ("cells" in document or "worksheets" in document):
        raise InvalidInput(f"{path} is JSON but no notebook: it has no cells.")
    return document


def _cells(document: dict[str, Any]) -> list[dict[str, Any]]:
    if "cells" in document:
        return list(document["cells"])
    return [cell for sheet in document["worksheets"] for cell in sheet.get("cells", [])]


def _heading(markdown: str) -> str:
    """Return the last heading of a text without its marks, or its only line; else nothing."""
    lines = [line.strip() for line in markdown.splitlines() if line.strip()]
    headings = [line.lstrip("#").strip() for line in lines if line.startswith("#")]
    found = headings[-1] if headings else lines[0] if len(lines) == 1 else ""
    plain = re.sub(r"[*_`]|\[([^\]]*)\]\([^)]*\)", r"\1", found).replace("\\", "").replace('"""', "")
    return plain.strip()[:90]


def _cell(path: Path, number: int, source: str, heading: str, tags: tuple[str, ...]) -> Cell:
    body, foreign = _python(source.expandtabs(4))
    first = body.strip().splitlines()[0] if body.strip() else ""
    match = _STEP.match(first)
    step = match.group(1) if match else ""
    if match:
        body = body.replace(first, "", 1)
    try:
        tree = ast.parse(body)
    except SyntaxError as error:
        raise InvalidInput(
            f"Cell {number} of {path.name} is no Python: {error.msg}, line {error.lineno}: {(error.text or '').strip()!r}.",
            hint=f"loopwright notebook check {path}",
            cell=number,
        ) from None
    _refuse(path, number, tree)
    return Cell(number, source, heading, step, tags, tuple(_statements(number, body, tree)), tuple(foreign))


def _python(source: str) -> tuple[str, list[str]]:
    """Split a cell into its Python and the lines that are none: magics, shell commands, help."""
    head, _, rest = source.lstrip().partition("\n")
    if head.startswith("%%"):
        kept = head[2:].split(" ")[0] in _TRANSPARENT
        body, foreign = _python(rest) if kept else ("", [])
        return body, [head, *foreign]
    if _parses(source) or not any(_LINE_MAGIC.search(line) for line in source.splitlines()):
        return source, []
    lines: list[str] = []
    foreign = []
    continued = False
    for line in source.splitlines():
        if continued or _LINE_MAGIC.search(line):
            foreign.append(line.strip())
            continued = line.rstrip().endswith("\\")
            timed = re.match(r"^\s*%time\s+(.+)$", line)
            lines.append(timed.group(1) if timed else "")
        else:
            lines.append(line)
    return "\n".join(lines), foreign


def _parses(source: str) -> bool:
    try:
        ast.parse(source)
    except SyntaxError:
        return False
    return True


def _refuse(path: Path, number: int, tree: ast.Module) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "input":
            raise InvalidInput(
                f"Cell {number} of {path.name} asks a person: {ast.unparse(node)}.",
                valid="A pipeline runs alone.",
                hint="assign the value to a name instead: it becomes a parameter",
                cell=number,
            )
    awaited = (node for item in tree.body for node in ast.walk(item) if isinstance(node, ast.Await))
    inside = {
        id(sub) for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef) for sub in ast.walk(node)
    }
    if any(id(node) not in inside for node in awaited):
        raise InvalidInput(
            f"Cell {number} of {path.name} awaits at its top level.",
            valid="A step is a plain function.",
            hint="wrap it: asyncio.run(...)",
            cell=number,
        )


def _statements(number: int, body: str, tree: ast.Module) -> list[Statement]:
    """Cut a cell's text at its statements; comments belong to the statement they stand above or beside."""
    lines = body.splitlines()
    found: list[Statement] = []
    above = 0
    for index, node in enumerate(tree.body):
        end = node.end_lineno or node.lineno
        start = min([node.lineno, *(item.lineno for item in getattr(node, "decorator_list", []))])
        shares = (
            any(other.lineno <= end and other is not node for other in tree.body[index + 1 :])
            or start <= above
        )
        if shares:
            # Several on one line: `a = 1; b = 2`.
            text = "\n".join(
                [*lines[above : start - 1], ast.get_source_segment(body, node) or ast.unparse(node)]
            )
        else:
            last = len(lines) if index == len(tree.body) - 1 else end
            text = "\n".join(lines[above:last])
        text = text.strip("\n").rstrip().removesuffix(";")
        found.append(Statement(number, text, ast.parse(text).body[0]))
        above = end
    return found
