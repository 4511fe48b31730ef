"""Which steps a pipeline calls and how their results flow, read from its source: nothing is run.

Names are followed through assignments, also through plain functions between the steps. Steps in branches and loops
appear once; what a step is called with at run time is in the record of a run.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from dataclasses import dataclass, replace
from typing import Any

from loopwright.pipelines.definition import Pipeline, Step
from loopwright.records import PipelineRun

__all__ = ["Graph", "Node", "drawn", "graph_of", "graph_of_run"]


@dataclass(frozen=True)
class Node:
    """A step at one place of a pipeline. `after` has the places of the nodes whose results it takes.

    `calls` is how often a run has called it there; `many` says that it is called for each of many items.
    """

    name: str
    after: tuple[int, ...] = ()
    many: bool = False
    calls: int = 1
    status: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class Graph:
    """The steps of a pipeline or of a run, in the order of their calls."""

    pipeline: str
    nodes: tuple[Node, ...] = ()

    def mermaid(self) -> str:
        """Return it as a Mermaid flowchart, which GitHub and many editors draw."""
        lines = ["flowchart TD"]
        for place, node in enumerate(self.nodes):
            text = f"{node.name} x{node.calls}" if node.calls > 1 else node.name
            lines.append(f'  n{place}[["{text}"]]' if node.many else f'  n{place}["{text}"]')
            lines += [f"  n{before} --> n{place}" for before in node.after]
        return "\n".join(lines)


def drawn(graph: Graph) -> list[str]:
    """Return lines that draw the graph as a tree; a node with several sources stands below the last of them."""
    if not graph.nodes:
        return [f"{graph.pipeline} calls no steps that its source shows."]
    children: dict[int | None, list[int]] = {}
    for place, node in enumerate(graph.nodes):
        children.setdefault(max(node.after) if node.after else None, []).append(place)
    lines = [graph.pipeline]

    def branch(parent: int | None, indent: str) -> None:
        places = children.get(parent, [])
        for place in places:
            last = place == places[-1]
            lines.append(f"{indent}{'└─' if last else '├─'} {_described(graph, place)}")
            branch(place, indent + ("   " if last else "│  "))

    branch(None, "")
    return lines


def _described(graph: Graph, place: int) -> str:
    node = graph.nodes[place]
    text = node.name
    if node.many:
        text += f" x{node.calls}" if node.calls > 1 else " (for each)"
    if node.status:
        text += f"  {node.status}, {node.seconds:.2f} s"
    others = [graph.nodes[each].name for each in node.after if each != max(node.after)]
    return f"{text}  (and from {', '.join(others)})" if others else text


def graph_of(pipeline: Pipeline[Any, Any]) -> Graph:
    """Return the steps that a pipeline's source calls."""
    function = inspect.unwrap(pipeline.function)
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):  # made by `exec`, or a file that has changed since
        return Graph(pipeline.entrypoint)
    reader = _Reader(function.__globals__)
    reader.block(tree.body[0].body)  # type: ignore[attr-defined]
    return Graph(pipeline.entrypoint, tuple(reader.nodes))


def graph_of_run(run: PipelineRun) -> Graph:
    """Return the calls of a run with how they ended; calls of one step that took the same results are one node."""
    nodes: list[Node] = []
    places: dict[int, int] = {}
    known: dict[tuple[str, tuple[int, ...]], int] = {}
    for step in run.steps:
        after = tuple(sorted({places[number] for number in step.after if number in places}))
        place = known.setdefault((step.name, after), len(nodes))
        if place == len(nodes):
            nodes.append(Node(step.name, after, status=step.status, seconds=step.seconds))
        else:
            node = nodes[place]
            nodes[place] = replace(
                node,
                many=True,
                calls=node.calls + 1,
                status="failed" if "failed" in {node.status, step.status} else node.status,
                seconds=node.seconds + step.seconds,
            )
        places[step.number] = place
    return Graph(run.pipeline, tuple(nodes))


class _Reader:
    """Reads statements in order and remembers which nodes each name comes from."""

    def __init__(self, known: dict[str, Any]) -> None:
        self.nodes: list[Node] = []
        self._globals = known
        self._origins: dict[str, frozenset[int]] = {}

    def block(self, statements: list[ast.stmt]) -> None:
        """Read statements one after the other."""
        for statement in statements:
            self._statement(statement)

    def _statement(self, statement: ast.stmt) -> None:
        if isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign) and statement.value is not None:
            origins = self._value(statement.value)
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            for target in targets:
                keep = isinstance(statement, ast.AugAssign) or not isinstance(target, ast.Name | ast.Tuple)
                for name in _names(target):
                    self._origins[name] = origins | (
                        self._origins.get(name, frozenset()) if keep else frozenset()
                    )
            return
        if isinstance(statement, ast.For):
            origins = self._value(statement.iter)
            for name in _names(statement.target):
                self._origins[name] = origins
        for value in ast.iter_child_nodes(statement):
            if isinstance(value, ast.expr) and not (
                isinstance(statement, ast.For) and value is statement.target
            ):
                self._value(value)
            elif isinstance(value, ast.withitem):
                origins = self._value(value.context_expr)
                for name in _names(value.optional_vars) if value.optional_vars else ():
                    self._origins[name] = origins
        for part in ("body", "orelse", "finalbody"):
            self.block([item for item in getattr(statement, part, []) if isinstance(item, ast.stmt)])
        for handler in getattr(statement, "handlers", []):
            self.block(handler.body)

    def _value(self, value: ast.expr) -> frozenset[int]:
        """Return the nodes that an expression's value comes from, adding those of the steps called in it."""
        if isinstance(value, ast.Name):
            return self._origins.get(value.id, frozenset())
        found: frozenset[int] = frozenset()
        step, many = self._step(value.func) if isinstance(value, ast.Call) else (None, False)
        for child in ast.iter_child_nodes(value):
            if isinstance(child, ast.comprehension):
                found |= self._value(child.iter)
            elif isinstance(child, ast.keyword):
                found |= self._value(child.value)
            elif isinstance(child, ast.expr):
                found |= self._value(child)
        if step is None:
            return found
        self.nodes.append(Node(step.name, tuple(sorted(found)), many))
        return frozenset({len(self.nodes) - 1})

    def _step(self, called: ast.expr) -> tuple[Step[Any, Any] | None, bool]:
        many = isinstance(called, ast.Attribute) and called.attr == "map"
        if isinstance(called, ast.Attribute) and called.attr in {"map", "submit"}:
            called = called.value
        found: Any = None
        if isinstance(called, ast.Name):
            found = self._globals.get(called.id)
        elif isinstance(called, ast.Attribute) and isinstance(called.value, ast.Name):
            found = getattr(self._globals.get(called.value.id), called.attr, None)
        return (found, many) if isinstance(found, Step) else (None, False)


def _names(target: ast.expr) -> list[str]:
    return [node.id for node in ast.walk(target) if isinstance(node, ast.Name)]
