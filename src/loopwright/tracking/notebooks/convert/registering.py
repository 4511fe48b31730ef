"""The fitted model of a notebook, the rows it was fitted on and their target, where these can be known."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass

from loopwright.tracking.notebooks.convert.bindings import Bindings
from loopwright.tracking.notebooks.convert.cells import Statement

__all__ = ["Registration", "find"]


@dataclass(frozen=True, slots=True)
class Registration:
    """What `register` is given: names and expressions in the notebook's own terms.

    `target` is a quoted text, or the name of the constant or parameter that holds it.
    """

    model: str
    table: str
    target: str
    needs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Fit:
    index: int
    model: str
    inputs: ast.expr
    target: ast.expr


def find(statements: Sequence[Statement]) -> Registration | str:
    """Return what to register, or a sentence that says what is missing."""
    nodes = [statement.node for statement in statements]
    fits = [fit for index, node in enumerate(nodes) if (fit := _fit(index, node)) is not None]
    if not fits:
        inside = any(_is_fit(item) for node in nodes for item in ast.walk(node))
        if inside:
            return "A model is fitted inside a loop or a function: choose the one to keep."
        return "No model is fitted with its inputs and its target, as in model.fit(X, y)."
    scored = [name for node in nodes for name in _scored(node)]
    fit = next((fit for fit in reversed(fits) if fit.model in scored[-1:]), None)
    fit = fit or next((fit for fit in reversed(fits) if fit.model in scored), fits[-1])
    reader = Bindings(nodes)
    if not reader.is_frame(fit.inputs, fit.index):
        shown = ast.unparse(fit.inputs)
        return (
            f"The model {fit.model} was fitted on {shown}, which is not known to be a table: put what prepares it and "
            "the model into one sklearn Pipeline, fitted on the table's own columns."
        )
    needs = _names(fit.inputs) | _names(fit.target)
    if changed := sorted(needs & reader.bound_after(fit.index)):
        return f"{', '.join(changed)} changes after {fit.model} was fitted: keep the rows under another name."
    target = reader.target(fit.target, fit.index)
    text = statements[fit.index].text
    inputs, values = (
        ast.get_source_segment(text, node) or ast.unparse(node) for node in (fit.inputs, fit.target)
    )
    assign = (
        f"{target[1:-1]}={values}"
        if target[1:-1].isidentifier() and '"' in target
        else f"**{{{target}: {values}}}"
    )
    model = reader.best_of(fit.model) or fit.model
    needs |= {model} | ({target} if target.isidentifier() else set())
    return Registration(model, f"{inputs}.assign({assign})", target, tuple(sorted(needs)))


def _is_fit(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "fit"


def _fit(index: int, node: ast.stmt) -> _Fit | None:
    """Return the fit that a statement is: ``model.fit(X, y)`` or ``model = Model().fit(X, y)``."""
    value = node.value if isinstance(node, ast.Expr | ast.Assign) else None
    if not isinstance(value, ast.Call) or not _is_fit(value):
        return None
    given = {word.arg: word.value for word in value.keywords}
    inputs = value.args[0] if value.args else given.get("X")
    target = value.args[1] if len(value.args) > 1 else given.get("y")
    if inputs is None or target is None:
        return None
    assert isinstance(value.func, ast.Attribute)
    name = value.func.value.id if isinstance(value.func.value, ast.Name) else ""
    if not name and isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        name = node.targets[0].id
    return _Fit(index, name, inputs, target) if name else None


def _scored(node: ast.stmt) -> list[str]:
    """Return the names of the models whose predictions a statement takes."""
    return [
        item.func.value.id
        for item in ast.walk(node)
        if isinstance(item, ast.Call)
        and isinstance(item.func, ast.Attribute)
        and item.func.attr in {"predict", "predict_proba", "score"}
        and isinstance(item.func.value, ast.Name)
    ]


def _names(node: ast.AST) -> set[str]:
    return {item.id for item in ast.walk(node) if isinstance(item, ast.Name)}
