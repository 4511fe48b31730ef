"""The statements of a notebook as material for a pipeline: what is left out of it, and what stays."""

from __future__ import annotations

import ast
import builtins
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from loopwright.errors import InvalidInput, listing
from loopwright.tracking.notebooks.convert.cells import Notebook, Statement
from loopwright.tracking.notebooks.convert.dataflow import Flow, called, flow_of, free_names, live_before
from loopwright.tracking.notebooks.convert.leftout import only_shows, plotting_modules, shown_values

__all__ = ["ALWAYS", "LeftOut", "Material", "free_name", "samples"]

#: Names that are there without being bound.
ALWAYS = set(dir(builtins)) | {"__name__", "__file__", "__doc__", "display", "get_ipython", "exit", "quit"}


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A part of the notebook that the pipeline does without. `harvested` are metrics in it that got a name."""

    cell: int
    text: str
    why: str
    statement: Statement | None = None
    harvested: tuple[tuple[str, ast.expr], ...] = ()


class Material:
    """All top-level statements of a notebook, what each reads and binds, and what was put aside so far.

    `flows` go by the statement's ``id``; `everything` holds the statements in order, and the metrics that only a
    print computed as statements of their own.
    """

    def __init__(self, notebook: Notebook) -> None:
        self.notebook = notebook
        self.everything = [statement for cell in notebook.cells for statement in cell.statements]
        defined = [i.node for i in self.everything if isinstance(i.node, ast.FunctionDef | ast.ClassDef)]
        self.user_functions = frozenset(node.name for node in defined)
        self.flows: dict[int, Flow] = {
            id(item): flow_of(item.node, self.user_functions) for item in self.everything
        }
        self.left: list[LeftOut] = [
            LeftOut(cell.number, line, "no Python") for cell in notebook.cells for line in cell.foreign
        ]
        self.harvested: set[str] = set()
        self.notes: list[str] = []

    def flow(self, statement: Statement) -> Flow:
        """Return what a statement reads, binds and changes."""
        return self.flows[id(statement)]

    def of(self, statements: Iterable[Statement]) -> list[Flow]:
        """Return the flows of several statements."""
        return [self.flows[id(item)] for item in statements]

    def names(self) -> set[str]:
        """Return all names of the notebook, bound or read."""
        found: set[str] = set()
        for item in self.everything:
            flow = self.flows[id(item)]
            found |= {*flow.uses, *flow.touched}
        return found

    def check_names(self) -> None:
        """Refuse a notebook whose cells, from top to bottom, read a name before it is there."""
        known = set(ALWAYS)
        starred = any(
            isinstance(i.node, ast.ImportFrom) and i.node.names[0].name == "*" for i in self.everything
        )
        for statement in self.everything:
            flow = self.flows[id(statement)]
            lazy = set(free_names(statement.node)) if isinstance(statement.node, ast.FunctionDef) else set()
            missing = [name for name in flow.uses if name not in known and name not in lazy]
            if missing and not starred:
                raise InvalidInput(
                    f"Cell {statement.cell} reads {listing(missing)}, which no cell above it binds.",
                    valid=self._where(missing[0]),
                    hint=f"loopwright notebook check {self.notebook.path}",
                    cell=statement.cell,
                )
            known |= {*flow.binds, *flow.maybe}

    def _where(self, name: str) -> str:
        later = [item.cell for item in self.everything if name in self.flows[id(item)].binds]
        return (
            f"Cell {later[0]} binds it: run from top to bottom, it comes too late."
            if later
            else "No cell binds it: the cell that did was deleted or is no Python."
        )

    def is_definition(self, item: Statement) -> bool:
        """Return whether a statement defines a function or class, under a name that nothing else is bound to."""
        if not isinstance(item.node, ast.FunctionDef | ast.ClassDef):
            return False
        times = Counter(name for other in self.everything for name in self.flows[id(other)].binds)
        return times[item.node.name] == 1

    def without_skipped(self, statements: list[Statement]) -> list[Statement]:
        """Leave out the cells whose first line says ``# step: skip``."""
        marked = {cell.number for cell in self.notebook.cells if cell.step in {"skip", "none"}}
        skipped = [item for item in statements if item.cell in marked]
        kept = [item for item in statements if item.cell not in marked]
        bound = {name for flow in self.of(kept) for name in (*flow.binds, *flow.maybe)}
        lost = {name: item.cell for item in skipped for name in self.flow(item).binds if name not in bound}
        for item in kept:
            if missing := [name for name in self.flow(item).uses if name in lost]:
                raise InvalidInput(
                    f"Cell {item.cell} reads {missing[0]}, which only cell {lost[missing[0]]} binds, and that is skipped.",
                    hint=f"take `# step: skip` away from cell {lost[missing[0]]}",
                    cell=item.cell,
                )
        self.left += [LeftOut(item.cell, item.first_line, "its cell says so", item) for item in skipped]
        return kept

    def without_looks(self, statements: list[Statement], imports: Iterable[Statement]) -> list[Statement]:
        """Leave out what only shows; a metric in it becomes a statement of its own."""
        plots = self._plots(imports)
        taken = self.names()
        kept: list[Statement] = []
        arrays = set(samples(statements))
        for item in statements:
            if not only_shows(item.node, plots):
                kept.append(item)
                continue
            if not isinstance(item.node, ast.For | ast.While):
                plots |= set(self.flow(item).binds)
            values = []
            for wanted, value in shown_values(item.node, arrays):
                name = free_name(wanted, taken)
                taken.add(name)
                values.append((name, value))
            kept += [self._harvest(item, name, value) for name, value in values]
            self.left.append(LeftOut(item.cell, item.first_line, "only shows", item, tuple(values)))
        return self._restore(kept)

    def _plots(self, imports: Iterable[Statement]) -> set[str]:
        """Return the names of plotting modules, and of the user's functions that draw and return nothing."""
        plots = plotting_modules(item.node for item in imports)
        drawing = {
            item.node.name
            for item in self.everything
            if isinstance(item.node, ast.FunctionDef)
            and plots & set(free_names(item.node))
            and not any(isinstance(sub, ast.Return) and sub.value is not None for sub in ast.walk(item.node))
        }
        return plots | drawing

    def _harvest(self, item: Statement, name: str, value: ast.expr) -> Statement:
        code = ast.get_source_segment(item.text, value) or ast.unparse(value)
        text = f"{name} = {code}"
        self.harvested.add(name)
        made = Statement(item.cell, text, ast.parse(text).body[0])
        self.flows[id(made)] = flow_of(made.node, self.user_functions)
        self.everything.insert(self.everything.index(item) + 1, made)
        return made

    def _restore(self, kept: list[Statement]) -> list[Statement]:
        """Take back a drawing whose value is used after all, such as the counts of a histogram."""
        while True:
            bound = {name for item in kept for name in self.flows[id(item)].binds}
            wanted = {name for item in kept for name in self.flows[id(item)].uses} - bound
            back = [
                item
                for item in self.left
                if item.statement and wanted & set(self.flows[id(item.statement)].binds)
            ]
            if not back:
                return kept
            self.left = [item for item in self.left if item not in back]
            chosen = {id(item) for item in kept} | {id(item.statement) for item in back}
            kept = [item for item in self.everything if id(item) in chosen]

    def without_dead(self, body: list[Statement], final: set[str]) -> list[Statement]:
        """Leave out what was only computed for something that is left out, such as counts for a chart."""
        shown = {name for item in self.left if item.statement for name in self.flows[id(item.statement)].uses}
        while True:
            live = live_before([self.flows[id(item)] for item in body], final)
            dead = [
                item
                for index, item in enumerate(body)
                if isinstance(item.node, ast.Assign)
                and (binds := set(self.flows[id(item)].binds))
                and binds & shown
                and not binds & live[index + 1]
                and set(self.flows[id(item)].changes) <= binds
            ]
            if not dead:
                return body
            body = [item for item in body if item not in dead]
            for item in dead:
                shown |= set(self.flows[id(item)].uses)
                self.left.append(LeftOut(item.cell, item.first_line, "only for what is left out", item))


def samples(statements: Iterable[Statement]) -> Iterable[str]:
    """Yield the names of arrays of metrics: what `cross_val_score` returned."""
    for item in statements:
        if isinstance(item.node, ast.Assign) and isinstance(item.node.targets[0], ast.Name):
            value: ast.expr = item.node.value
            value = value.operand if isinstance(value, ast.UnaryOp) else value
            if isinstance(value, ast.Call) and called(value) == "cross_val_score":
                yield item.node.targets[0].id


def free_name(wanted: str, taken: set[str]) -> str:
    """Return a name that is not taken: the wanted one, or with a number behind it."""
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}_{number}"
    return name
