"""Which step a statement belongs to, by what it calls; and rows of statements of one step."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loopwright.tracking.notebooks.convert.cells import Cell, Statement
from loopwright.tracking.notebooks.convert.dataflow import Flow, called
from loopwright.tracking.notebooks.convert.leftout import REPORTS, is_metric

__all__ = ["KINDS", "Group", "group", "kind_of"]

KINDS = ("load", "clean", "features", "train", "evaluate")

_TRAIN = {"fit", "fit_predict", "partial_fit", "train_test_split", "cross_validate", "randomized_search"}
_EVALUATE = {"predict", "predict_proba", "decision_function", "score", *REPORTS}
_LOAD = {
    "open",
    "load",
    "loadtxt",
    "genfromtxt",
    "dataset",
    "labelled",
    "connect",
    "create_engine",
    "urlopen",
    "glob",
}
_CLEAN = {
    "astype", "clip", "convert_dtypes", "drop_duplicates", "dropna", "ffill", "bfill", "fillna", "interpolate", "query",
    "rename", "replace", "strip", "to_datetime", "to_numeric", "where", "mask",
}  # fmt: skip
_FEATURES = {
    "agg", "apply", "assign", "concat", "cut", "explode", "factorize", "get_dummies", "groupby", "join", "map", "melt",
    "merge", "pivot", "pivot_table", "qcut", "rolling", "shift", "stack", "unstack", "to_dummies", "with_columns",
}  # fmt: skip
#: Names that people give the values to predict.
_TARGETS = {"y", "target", "targets", "label", "labels"}
#: Belong to the features before the split, and to the training after it.
_PREPARING = {"fit_transform", "transform"}


@dataclass(frozen=True, slots=True)
class Group:
    """Consecutive statements of one step. `given` is True when a ``# step:`` comment named it."""

    kind: str
    statements: tuple[Statement, ...]
    given: bool = False

    @property
    def cells(self) -> tuple[int, ...]:
        """The numbers of the cells the statements come from."""
        return tuple(dict.fromkeys(statement.cell for statement in self.statements))


def kind_of(node: ast.stmt) -> str:
    """Return the kind of step that a statement belongs to by what it calls, or an empty text.

    Weak evidence, which holds only before the training has begun, is marked with a ``?``.
    """
    calls = [item for item in ast.walk(node) if isinstance(item, ast.Call)]
    names = {called(call) for call in calls}
    if names & _TRAIN or any(name.startswith("cross_val") for name in names):
        return "train"
    if names & _EVALUATE or any(map(is_metric, calls)) or any(name.endswith("_curve") for name in names):
        return "evaluate"
    if names & _LOAD or any(name.startswith(("read_", "load_", "fetch_", "scan_")) for name in names):
        return "load"
    target = _target(node)
    if names & _CLEAN and not (names & _FEATURES - {"map", "apply"}):
        # `df["ratio"] = (df.a / df.b).fillna(0)` makes a column; `df["age"] = df["age"].fillna(0)` mends one.
        made = isinstance(target, ast.Subscript) and ast.unparse(target) not in ast.unparse(_value(node))
        return "features" if made else "clean"
    if names & _FEATURES:
        return "features"
    return _weak(node, target, names)


def _weak(node: ast.stmt, target: ast.expr | None, names: set[str]) -> str:
    if names & _PREPARING or isinstance(target, ast.Subscript):
        return "features?"
    value = _value(node)
    dropped = names & {
        "drop",
        "pop",
        "isin",
        "isna",
        "notna",
        "isnull",
        "notnull",
        "sort_values",
        "reset_index",
    }
    filtered = isinstance(value, ast.Subscript) and isinstance(
        value.slice, ast.Compare | ast.BoolOp | ast.BinOp
    )
    if dropped or filtered:
        same = isinstance(target, ast.Name) and target.id in {
            item.id for item in ast.walk(value) if isinstance(item, ast.Name)
        }
        return "clean?" if same or filtered or not isinstance(target, ast.Name) else "features?"
    named = target.id.lower() if isinstance(target, ast.Name) else ""
    is_target = isinstance(value, ast.Attribute) and (named in _TARGETS or named.startswith("y_"))
    if named and (isinstance(value, ast.Subscript) or is_target):
        return "features?"
    return ""


def _target(node: ast.stmt) -> ast.expr | None:
    if isinstance(node, ast.Assign):
        return node.targets[0]
    return node.target if isinstance(node, ast.AnnAssign | ast.AugAssign) else None


def _value(node: ast.stmt) -> ast.AST:
    value = getattr(node, "value", None)
    return value if isinstance(value, ast.AST) else node


def group(
    cells: Mapping[int, Cell], statements: Sequence[Statement], flows: Mapping[int, Flow]
) -> list[Group]:
    """Put statements into steps: consecutive statements of one kind are one step.

    Parameters
    ----------
    cells
        By number.
    statements
        Those that are kept, in the notebook's order.
    flows
        By the statement's ``id``.
    """
    by_cell: dict[int, list[Statement]] = {}
    for statement in statements:
        by_cell.setdefault(statement.cell, []).append(statement)
    rows: list[tuple[str, bool, list[Statement]]] = []
    waiting: list[Statement] = []  # cells without evidence, that the next one needs
    numbers = list(by_cell)
    for position, number in enumerate(numbers):
        own = by_cell[number]
        if cells[number].step:
            rows.append((cells[number].step, True, [*waiting, *own]))
            waiting = []
            continue
        trained = any(kind in {"train", "evaluate"} for kind, _, _ in rows)
        kinds = _kinds(own, trained)
        if not any(kinds):
            following = by_cell[numbers[position + 1]] if position + 1 < len(numbers) else []
            if not rows or _needs(following, own, flows):
                waiting += own
            else:
                kind, given, last = rows[-1]
                rows[-1] = (kind, given, [*last, *own])
            continue
        for index, (kind, statement) in enumerate(zip(kinds, own, strict=True)):
            head = waiting if index == 0 else []
            rows.append((kind, False, [*head, statement]))
        waiting = []
    if waiting:
        rows.append((rows[-1][0] if rows else "load", False, waiting))
    return _joined(rows)


def _kinds(statements: Sequence[Statement], trained: bool) -> list[str]:
    """Return a kind for each statement of one cell; all are empty when nothing in the cell tells."""
    found: list[str] = []
    for statement in statements:
        kind = kind_of(statement.node)
        if kind.endswith("?"):
            kind = "" if trained else kind[:-1]
        trained = trained or kind in {"train", "evaluate"}
        found.append(kind)
    # What tells nothing belongs to what comes after it in the cell, or else before: `model = Forest()` to the fit.
    for index in reversed(range(len(found) - 1)):
        found[index] = found[index] or found[index + 1]
    for index in range(1, len(found)):
        found[index] = found[index] or found[index - 1]
    return _voted(found)


def _voted(kinds: list[str]) -> list[str]:
    """Make cleaning and making features in turns inside one cell one step: the one with more statements."""
    start = 0
    while start < len(kinds):
        end = start
        while end < len(kinds) and kinds[end] in {"clean", "features"}:
            end += 1
        row = kinds[start:end]
        if row:
            winner = "clean" if row.count("clean") > row.count("features") else "features"
            kinds[start:end] = [winner] * len(row)
        start = max(end, start + 1)
    return kinds


def _needs(following: Sequence[Statement], own: Sequence[Statement], flows: Mapping[int, Flow]) -> bool:
    made = {name for statement in own for name in flows[id(statement)].touched}
    return any(name in made for statement in following for name in flows[id(statement)].uses)


def _joined(rows: Sequence[tuple[str, bool, list[Statement]]]) -> list[Group]:
    groups: list[Group] = []
    for kind, given, statements in rows:
        if groups and groups[-1].kind == kind:
            last = groups[-1]
            groups[-1] = Group(kind, (*last.statements, *statements), last.given or given)
        else:
            groups.append(Group(kind, tuple(statements), given))
    return groups
