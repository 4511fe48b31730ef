"""From a notebook to the plan of its pipeline: what stays, in which step, with what flowing in and out."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loopwright.errors import InvalidInput
from loopwright.tracking.notebooks.convert.cells import Notebook, Statement
from loopwright.tracking.notebooks.convert.dataflow import exposed, live_before
from loopwright.tracking.notebooks.convert.definitions import add_local_uses, settings, split_definitions
from loopwright.tracking.notebooks.convert.material import LeftOut, Material, free_name
from loopwright.tracking.notebooks.convert.notes import notes_on
from loopwright.tracking.notebooks.convert.parameters import Parameter, Paths
from loopwright.tracking.notebooks.convert.registering import Registration, find
from loopwright.tracking.notebooks.convert.results import final_names, results_of
from loopwright.tracking.notebooks.convert.steps import Group, group

__all__ = ["Plan", "PlannedStep", "plan"]

#: Other names for steps whose usual name the notebook uses for something else.
_OTHER = {
    "load": "load_data",
    "clean": "clean_data",
    "features": "make_features",
    "train": "train_model",
    "evaluate": "evaluate_model",
}


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A step: its function's name, its statements, and the names that flow in and out.

    `locals` are functions of the user that read variables of the notebook, and so stand inside the step.
    """

    name: str
    kind: str
    title: str
    cells: tuple[int, ...]
    statements: tuple[Statement, ...]
    locals: tuple[Statement, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(slots=True)
class Plan:
    """All that the pipeline's source is written from.

    `target` is the folder the pipeline runs in; `registration` is a sentence where nothing can be registered.
    """

    notebook: Notebook
    target: Path
    pipeline: str
    steps: list[PlannedStep]
    parameters: list[Parameter]
    paths: Paths
    imports: list[Statement]
    constants: list[Statement]
    functions: list[Statement]
    metrics: list[str]
    registration: Registration | str
    left_out: list[LeftOut]
    notes: list[str]


def plan(notebook: Notebook, target: Path) -> Plan:
    """Plan the pipeline of a notebook.

    Parameters
    ----------
    target
        The folder that the pipeline's file is written to, and that the pipeline runs in.

    Raises
    ------
    InvalidInput
        A cell reads a name that no cell above it binds; or nothing is left to make a step of.
    """
    return _Planner(notebook, target.resolve()).plan()


class _Planner:
    def __init__(self, notebook: Notebook, target: Path) -> None:
        self.notebook = notebook
        self.target = target
        self.material = Material(notebook)

    def plan(self) -> Plan:
        material, notebook = self.material, self.notebook
        material.check_names()
        imports = [item for item in material.everything if _is_import(item.node)]
        definitions = [item for item in material.everything if material.is_definition(item)]
        rest = [item for item in material.everything if item not in imports and item not in definitions]
        rest = material.without_looks(material.without_skipped(rest), imports)
        parameters, constants = settings(material, rest, definitions)
        settled = {id(item) for item in constants} | set(parameters)
        body = [item for item in rest if id(item) not in settled]
        modules, local = split_definitions(material, definitions, imports, constants)
        add_local_uses(material, body, local)
        metrics, others = results_of(body, definitions)
        registration = find(rest)
        results = [*metrics, *others]
        body = material.without_dead(body, final_names(results, registration, material.of(body)))
        groups = self._groups(body)
        body = [item for part in groups for item in part.statements]
        final = final_names(results, registration, material.of(body))
        source = notebook.path.resolve().parent
        paths = Paths(material.names(), source, self.target)
        paths.collect(body)
        steps = self._steps(groups, final, local, {item.name for item in parameters.values()}, paths)
        used = self._used(steps, constants, modules, registration)
        self._leave_unused(list(parameters.values()), modules, used)
        return Plan(
            notebook=notebook,
            target=self.target,
            pipeline=self._pipeline_name(steps),
            steps=steps,
            parameters=[
                *paths.inputs.values(),
                *(paths.adapt(item) for item in parameters.values() if item.name in used),
            ],
            paths=paths,
            imports=imports,
            constants=[item for item in constants if set(material.flow(item).binds) & used],
            functions=[item for item in modules if set(material.flow(item).binds) & used],
            metrics=metrics,
            registration=registration,
            left_out=sorted(material.left, key=lambda item: item.cell),
            notes=[*material.notes, *notes_on(imports, body, source, self.target)],
        )

    def _groups(self, body: Sequence[Statement]) -> list[Group]:
        cells = {cell.number: cell for cell in self.notebook.cells}
        groups = group(cells, body, self.material.flows)
        if not groups:
            raise InvalidInput(
                f"Nothing is left of {self.notebook.path.name} to make a step of: it only shows things.",
                valid="A pipeline loads, prepares, trains or evaluates.",
                hint=f"loopwright notebook check {self.notebook.path}",
            )
        return groups

    def _steps(
        self,
        groups: Sequence[Group],
        final: set[str],
        local: Sequence[Statement],
        settable: set[str],
        paths: Paths,
    ) -> list[PlannedStep]:
        flows = [self.material.of(part.statements) for part in groups]
        live = live_before([flow for part in flows for flow in part], final)
        headings = {cell.number: cell.heading for cell in self.notebook.cells if cell.heading}
        known: set[str] = set()
        steps = []
        end = 0
        for part, own, name in zip(groups, flows, self._step_names(groups), strict=True):
            end += len(own)
            touched = dict.fromkeys(word for flow in own for word in flow.touched)
            fresh = {word for flow in own for word in (*flow.binds, *flow.maybe)}
            outputs = [word for word in touched if word in live[end] and (word in known or word in fresh)]
            sure = {word for flow in own for word in flow.binds}
            read = (*exposed(own), *(word for word in outputs if word not in sure))
            uses = {word for flow in own for word in flow.uses}
            given = [*(word for word in read if word in known), *(word for word in read if word in settable)]
            given += [name for item in part.statements for _, name in paths.edits(item)]
            steps.append(
                PlannedStep(
                    name=name,
                    kind=part.kind,
                    title=next((headings[cell] for cell in part.cells if cell in headings), ""),
                    cells=part.cells,
                    statements=part.statements,
                    locals=tuple(item for item in local if uses & set(self.material.flow(item).binds)),
                    inputs=tuple(dict.fromkeys(given)),
                    outputs=tuple(outputs),
                )
            )
            known |= set(touched)
        return steps

    def _step_names(self, groups: Sequence[Group]) -> list[str]:
        taken = self.material.names()
        names: list[str] = []
        for part in groups:
            usual = part.kind if part.kind not in taken else _OTHER.get(part.kind, f"{part.kind}_step")
            names.append(free_name(usual, taken | set(names)))
        return names

    def _used(
        self,
        steps: Sequence[PlannedStep],
        constants: Sequence[Statement],
        modules: Sequence[Statement],
        registration: Registration | str,
    ) -> set[str]:
        """Return every name that the pipeline's code reads, directly or through a function or constant."""
        items = [item for step in steps for item in (*step.statements, *step.locals)]
        used = {name for flow in self.material.of(items) for name in flow.uses}
        used |= set(registration.needs) if isinstance(registration, Registration) else set()
        before = -1
        while len(used) > before:
            before = len(used)
            for flow in self.material.of([*constants, *modules]):
                if set(flow.binds) & used:
                    used |= set(flow.uses)
        return used

    def _leave_unused(
        self, parameters: Sequence[Parameter], modules: Sequence[Statement], used: set[str]
    ) -> None:
        left = self.material.left
        for item in modules:
            if not set(self.material.flow(item).binds) & used:
                left.append(LeftOut(item.cell, item.first_line, "no step calls it", item))
        for parameter in parameters:
            if parameter.name not in used:
                text = f"{parameter.name} = {parameter.default!r}"
                left.append(LeftOut(parameter.cell, text, "no step reads it"))
        if self.material.harvested:
            named = ", ".join(sorted(self.material.harvested))
            self.material.notes.append(f"What was computed only to be shown got a name: {named}.")

    def _pipeline_name(self, steps: Sequence[PlannedStep]) -> str:
        taken = self.material.names() | {step.name for step in steps} | {"lw"}
        slug = self.notebook.slug
        return slug if slug not in taken else free_name(f"{slug}_pipeline", taken)


def _is_import(node: ast.stmt) -> bool:
    if isinstance(node, ast.Import | ast.ImportFrom):
        return True
    # `try: import x` with a fallback stays as it is.
    if not isinstance(node, ast.Try) or not any(
        isinstance(i, ast.Import | ast.ImportFrom) for i in node.body
    ):
        return False
    simple = (ast.Import, ast.ImportFrom, ast.Assign, ast.Pass)
    handled = [item for handler in node.handlers for item in handler.body]
    return all(isinstance(item, simple) for item in (*node.body, *handled, *node.orelse))
