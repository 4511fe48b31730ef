"""What a pipeline is run for: its metrics, reports, the model, or else whatever it makes last."""

from __future__ import annotations

import ast
from collections.abc import Sequence

from loopwright.tracking.notebooks.convert.cells import Statement
from loopwright.tracking.notebooks.convert.dataflow import Flow, called
from loopwright.tracking.notebooks.convert.leftout import REPORTS, is_metric, scalar_metric
from loopwright.tracking.notebooks.convert.material import samples
from loopwright.tracking.notebooks.convert.registering import Registration

__all__ = ["final_names", "results_of"]


def results_of(body: Sequence[Statement], definitions: Sequence[Statement]) -> tuple[list[str], list[str]]:
    """Return the names of numbers that are metrics, and of other results.

    Those are reports, dicts that metrics are put in, and what the user's own functions over metrics return.
    """
    measuring = {
        item.node.name
        for item in definitions
        if isinstance(item.node, ast.FunctionDef) and any(map(is_metric, ast.walk(item.node)))
    }
    arrays = set(samples(body))
    metrics: dict[str, None] = {}
    others: dict[str, None] = {}
    for item in body:
        node = item.node
        if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if scalar_metric(node.value, set(metrics), arrays):
                metrics[name] = None
            elif called(node.value) in REPORTS or called(node.value) in measuring:
                others[name] = None
            else:
                metrics.pop(name, None)
        for sub in ast.walk(node):
            if isinstance(sub, ast.Assign) and isinstance(sub.targets[0], ast.Subscript):
                holder = sub.targets[0].value
                if isinstance(holder, ast.Name) and scalar_metric(sub.value, set(metrics), arrays):
                    others[holder.id] = None
    return list(metrics), list(others)


def final_names(results: Sequence[str], registration: Registration | str, flows: Sequence[Flow]) -> set[str]:
    """Return the names whose values at the end count: the results and what is registered, or what nobody reads."""
    final = {*results, *(registration.needs if isinstance(registration, Registration) else ())}
    if final or not flows:
        return final
    read = {name for flow in flows for name in flow.uses}
    made = [name for flow in flows for name in flow.binds]
    return {name for name in made if name not in read and not name.startswith("_")} or set(made[-1:])
