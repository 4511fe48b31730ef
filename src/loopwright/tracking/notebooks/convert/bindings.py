"""Looking up what a name stands for at a place in the notebook: is it a table, and which column is the target."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from loopwright.tracking.notebooks.convert.dataflow import called, root_name
from loopwright.tracking.notebooks.convert.parameters import quoted

__all__ = ["Bindings"]

_FRAME_MAKERS = {
    "DataFrame",
    "concat",
    "get_dummies",
    "dataset",
    "labelled",
    "load_dataset",
    "merge",
    "to_frame",
}
_FRAME_METHODS = {
    "assign", "astype", "clip", "convert_dtypes", "copy", "drop", "drop_duplicates", "dropna", "fillna", "filter",
    "interpolate", "join", "merge", "query", "rename", "replace", "reset_index", "round", "sample", "select_dtypes",
    "set_index", "sort_values", "to_frame", "head", "tail", "apply", "get_dummies",
}  # fmt: skip
_THROUGH = {
    "astype",
    "map",
    "replace",
    "values",
    "to_numpy",
    "ravel",
    "copy",
    "apply",
    "fillna",
    "reset_index",
}


class Bindings:
    """Looks up what a name was last bound to before a statement."""

    def __init__(self, nodes: Sequence[ast.stmt]) -> None:
        self.nodes = nodes

    def before(self, name: str, index: int) -> tuple[ast.expr, int, int] | None:
        """Return value, position in the unpacked tuple (-1: whole) and index of the last binding before `index`."""
        for place in reversed(range(index)):
            node = self.nodes[place]
            if not isinstance(node, ast.Assign):
                continue
            for target in node.targets:
                if isinstance(target, ast.Name) and target.id == name:
                    return node.value, -1, place
                if isinstance(target, ast.Tuple | ast.List):
                    items = [getattr(item, "id", "") for item in target.elts]
                    if name in items:
                        return node.value, items.index(name), place
        return None

    def bound_after(self, index: int) -> set[str]:
        """Return the names that are bound, or whose object gets new content, after a statement."""
        found = set()
        for node in self.nodes[index + 1 :]:
            for item in ast.walk(node):
                if isinstance(item, ast.Name | ast.Subscript | ast.Attribute) and isinstance(
                    item.ctx, ast.Store
                ):
                    found.add(root_name(item))
        return found

    def best_of(self, model: str) -> str:
        """Return the name that holds the best estimator of a search, if there is one."""
        for node in self.nodes:
            value = node.value if isinstance(node, ast.Assign) else None
            if (
                isinstance(value, ast.Attribute)
                and value.attr == "best_estimator_"
                and root_name(value) == model
            ):
                assert isinstance(node, ast.Assign)
                return getattr(node.targets[0], "id", "")
        return ""

    def is_frame(self, node: ast.expr, index: int, item: int = -1) -> bool:
        """Return whether an expression is known to be a data frame."""
        if isinstance(node, ast.Name):
            bound = self.before(node.id, index)
            if bound is None:
                return False
            value, position, place = bound
            if position < 0:
                return self.is_frame(value, place)
            return self._is_unpacked_frame(value, position, place)
        if isinstance(node, ast.Subscript):
            return self._is_selection(node, index)
        if isinstance(node, ast.Attribute):
            made = node.value
            if isinstance(made, ast.Name) and (bound := self.before(made.id, index)):
                made = bound[0]
            return node.attr in {"data", "frame"} and isinstance(made, ast.Call) and _as_frame(made)
        if isinstance(node, ast.Call):
            name = called(node)
            if name.startswith("read_") or name in _FRAME_MAKERS:
                return True
            method = isinstance(node.func, ast.Attribute) and name in _FRAME_METHODS
            return method and isinstance(node.func, ast.Attribute) and self.is_frame(node.func.value, index)
        return False

    def _is_unpacked_frame(self, value: ast.expr, position: int, place: int) -> bool:
        if not isinstance(value, ast.Call):
            return False
        name = called(value)
        if name == "train_test_split" and position // 2 < len(value.args):
            return self.is_frame(value.args[position // 2], place)
        return position == 0 and name.startswith(("load_", "fetch_")) and _as_frame(value)

    def _is_selection(self, node: ast.Subscript, index: int) -> bool:
        table = node.value
        if isinstance(table, ast.Attribute) and table.attr in {"loc", "iloc"}:
            table = table.value
            last = node.slice.elts[-1] if isinstance(node.slice, ast.Tuple) else ast.List([])
        else:
            last = node.slice
        if isinstance(last, ast.Name) and (bound := self.before(last.id, index)) and bound[1] < 0:
            last = bound[0]
        return not isinstance(last, ast.Constant | ast.UnaryOp) and self.is_frame(table, index)

    def target(self, node: ast.expr, index: int, fallback: str = "target") -> str:
        """Return the target column: the one the values were taken from, else the variable's own name."""
        if isinstance(node, ast.Name):
            return self._target_of_name(node, index, fallback if fallback != "target" else node.id)
        if isinstance(node, ast.Subscript):
            return self._label(node.slice, index) or quoted(fallback)
        if isinstance(node, ast.Attribute):
            return self.target(node.value, index, fallback) if node.attr in _THROUGH else quoted(node.attr)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            if node.func.attr in {"pop", "fit_transform"} and node.args:
                popped = self._label(node.args[0], index) if node.func.attr == "pop" else ""
                return popped or self.target(node.args[0], index, fallback)
            if node.func.attr in _THROUGH:
                return self.target(node.func.value, index, fallback)
        return quoted(fallback)

    def _target_of_name(self, node: ast.Name, index: int, fallback: str) -> str:
        bound = self.before(node.id, index)
        if bound is None:
            return quoted(fallback)
        value, position, place = bound
        if position < 0:
            return self.target(value, place, fallback)
        maker = called(value)
        if maker == "train_test_split" and isinstance(value, ast.Call) and position // 2 < len(value.args):
            return self.target(value.args[position // 2], place, fallback)
        return quoted("target" if maker.startswith(("load_", "fetch_")) else fallback)

    def _label(self, node: ast.expr, index: int) -> str:
        """Return the column that a subscript names: quoted, or the name of the constant that holds it."""
        if isinstance(node, ast.Tuple | ast.List) and node.elts:
            node = node.elts[-1]
        if isinstance(node, ast.Constant):
            return quoted(node.value) if isinstance(node.value, str) else ""
        bound = self.before(node.id, index) if isinstance(node, ast.Name) else None
        named = bound is not None and isinstance(bound[0], ast.Constant) and isinstance(bound[0].value, str)
        return node.id if named and isinstance(node, ast.Name) else ""


def _as_frame(call: ast.Call) -> bool:
    return any(
        word.arg == "as_frame" and isinstance(word.value, ast.Constant) and bool(word.value.value)
        for word in call.keywords
    )
