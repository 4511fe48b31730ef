"""Literals that become parameters of the pipeline, and paths that become its inputs."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from loopwright.tracking.notebooks.convert.cells import Statement
from loopwright.tracking.notebooks.convert.dataflow import Flow, called

__all__ = [
    "Parameter",
    "Paths",
    "literal",
    "literals",
    "path_literals",
    "plain_constants",
    "quoted",
    "replace",
]

_DATA = re.compile(
    r"\.(csv|tsv|txt|parquet|pq|feather|json|jsonl|xlsx?|pkl|pickle|npy|npz|db|sqlite3?|h5|hdf5|zip|gz|zst|dat|arff)$",
    re.IGNORECASE,
)
_URL = re.compile(r"^[a-z][a-z0-9+]*://", re.IGNORECASE)
#: Read functions whose first argument is no path.
_NO_PATH = {"read_sql", "read_sql_query", "read_sql_table", "read_clipboard", "read_gbq", "read_sql_database"}
_OPENING = {"open", "load", "loadtxt", "genfromtxt", "connect", "Path", "fromfile", "ParquetFile"}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of the pipeline: the user's own name, its default, and the comment that stood beside it."""

    name: str
    default: str | int | float
    comment: str = ""
    cell: int = 0

    @property
    def declaration(self) -> str:
        """As it stands in the pipeline's signature."""
        return f"{self.name}: {type(self.default).__name__} = {quoted(self.default)}"

    @property
    def typed(self) -> str:
        """As it stands in a step's signature."""
        return f"{self.name}: {type(self.default).__name__}"


def quoted(value: str | float) -> str:
    """Write a literal with double quotes, as formatters do."""
    text = repr(value)
    return f'"{text[1:-1]}"' if text.startswith("'") and '"' not in text and "\\" not in text else text


def literal(node: ast.AST | None) -> str | int | float | None:
    """Return the value of a number, text or boolean that is written out, else None."""
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = literal(node.operand)
        return -value if isinstance(value, int | float) and not isinstance(value, bool) else None
    if isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float | str):
        return node.value
    return None


def _assigned(node: ast.stmt) -> tuple[str, ast.expr] | None:
    """Return name and value of ``name = value``."""
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id, node.value
    if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
        return node.target.id, node.value
    return None


def _times_bound(statements: Sequence[Statement], flows: Mapping[int, Flow]) -> Counter[str]:
    """Count how often each name is bound in the whole notebook."""
    return Counter(name for item in statements for name in (*flows[id(item)].binds, *flows[id(item)].maybe))


def literals(statements: Sequence[Statement], flows: Mapping[int, Flow]) -> dict[int, Parameter]:
    """Return the statements that assign a literal to a name for good, by the statement's ``id``."""
    times = _times_bound(statements, flows)
    found = {}
    for statement in statements:
        pair = _assigned(statement.node)
        if pair is None or times[pair[0]] != 1:
            continue
        value = literal(pair[1])
        # A text of several lines, such as a query, is read better where it is used.
        if value is not None and not (isinstance(value, str) and "\n" in value):
            found[id(statement)] = Parameter(pair[0], value, _comment(statement.text), statement.cell)
    return found


def plain_constants(statements: Sequence[Statement], flows: Mapping[int, Flow]) -> dict[int, str]:
    """Return the statements that assign a list, tuple or dict of literals to a name for good, with that name."""
    times = _times_bound(statements, flows)
    # What is given to a function for its effect, as in `shuffle(columns)`, may be another list afterwards.
    changed = {name for item in statements for name in flows[id(item)].changes}
    found = {}
    for statement in statements:
        pair = _assigned(statement.node)
        if pair is None or times[pair[0]] != 1 or pair[0] in changed:
            continue
        try:
            value = ast.literal_eval(pair[1])
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            continue
        if value:
            found[id(statement)] = pair[0]
    return found


def _comment(text: str) -> str:
    """Return the comment beside a statement, or the one above it."""
    beside = [
        line.rpartition("#")[2].strip() for line in text.splitlines() if re.search(r"\S.*\s#\s?\S", line)
    ]
    above = [line.strip().lstrip("# ") for line in text.splitlines() if line.lstrip().startswith("#")]
    return (beside or above or [""])[-1]


class Paths:
    """The inputs of a pipeline: path literals in the notebook, each with the name of its parameter.

    Parameters
    ----------
    taken
        Names that are in use.
    source
        The folder the notebook runs in.
    target
        The folder the pipeline runs in; a path to something that is there is rewritten to start from it.
    """

    def __init__(self, taken: Iterable[str], source: Path, target: Path) -> None:
        self.taken = set(taken)
        self.source = source
        self.target = target
        self.inputs: dict[str, Parameter] = {}

    def collect(self, statements: Sequence[Statement]) -> None:
        """Name the literals in all statements. One alone is called ``data``."""
        texts: dict[str, int] = {}
        for statement in statements:
            for node in path_literals(statement.node):
                texts.setdefault(str(node.value), statement.cell)
        for text, cell in texts.items():
            name = self._name(text, alone=len(texts) == 1)
            self.taken.add(name)
            self.inputs[text] = Parameter(name, self.moved(text), cell=cell)

    def moved(self, text: str) -> str:
        """Return a path as it is written from the pipeline's folder."""
        if _URL.match(text) or not text or Path(text).is_absolute() or self.source == self.target:
            return text
        there = (self.source / text).resolve()
        if not there.exists():
            return text
        return there.relative_to(self.target).as_posix() if there.is_relative_to(self.target) else str(there)

    def adapt(self, parameter: Parameter) -> Parameter:
        """Return a parameter with its default rewritten if it is a path to something that is there."""
        value = parameter.default
        if not isinstance(value, str) or not (_DATA.search(value) or "/" in value or "\\" in value):
            return parameter
        return Parameter(parameter.name, self.moved(value), parameter.comment, parameter.cell)

    def edits(self, statement: Statement) -> list[tuple[ast.expr, str]]:
        """Return what to write in place of the path literals of a statement."""
        return [(node, self.inputs[str(node.value)].name) for node in path_literals(statement.node)]

    def _name(self, text: str, *, alone: bool) -> str:
        stem = re.sub(r"\W+", "_", Path(text.partition("?")[0]).name.partition(".")[0]).strip("_").lower()
        stem = f"file_{stem}" if not stem or stem[0].isdigit() else stem
        wanted = [*(["data", "data_path"] if alone else []), f"{stem}_path", f"{stem}_file"]
        free = [name for name in wanted if name not in self.taken]
        return free[0] if free else f"{stem}_path_{len(self.inputs)}"


def path_literals(node: ast.stmt) -> list[ast.Constant]:
    """Return the texts in a statement that name what is read."""
    found = []
    for call in ast.walk(node):
        if not isinstance(call, ast.Call):
            continue
        name = called(call)
        words = [
            word.value for word in call.keywords if word.arg in {"filepath_or_buffer", "path", "io", "fname"}
        ]
        first = next(iter((*call.args[:1], *words)), None)
        if not (isinstance(first, ast.Constant) and isinstance(first.value, str)) or not first.value:
            continue
        reads = name.startswith(("read_", "scan_")) and name not in _NO_PATH
        opens = name in _OPENING and bool(_DATA.search(first.value)) and not _writes(call)
        if reads or opens:
            found.append(first)
    return found


def _writes(call: ast.Call) -> bool:
    mode = call.args[1] if len(call.args) > 1 else None
    mode = next((word.value for word in call.keywords if word.arg == "mode"), mode)
    return (
        isinstance(mode, ast.Constant) and isinstance(mode.value, str) and bool(set(mode.value) & set("wax+"))
    )


def replace(text: str, edits: Sequence[tuple[ast.expr, str]]) -> str:
    """Write something else in place of parts of a statement's text."""
    lines = text.encode().split(b"\n")
    # From the end, so that what comes before keeps its place.
    for node, new in sorted(edits, key=lambda edit: (edit[0].lineno, edit[0].col_offset), reverse=True):
        start, end = node.lineno - 1, (node.end_lineno or node.lineno) - 1
        tail = lines[end][node.end_col_offset :]
        lines[start : end + 1] = [lines[start][: node.col_offset] + new.encode() + tail]
    return b"\n".join(lines).decode()
