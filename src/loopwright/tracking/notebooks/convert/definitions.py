"""What stands above the steps: parameters, constants, and functions; and which functions cannot stand there."""

from __future__ import annotations

from collections.abc import Sequence

from loopwright.errors import listing
from loopwright.tracking.notebooks.convert.cells import Statement
from loopwright.tracking.notebooks.convert.dataflow import Flow
from loopwright.tracking.notebooks.convert.material import ALWAYS, Material
from loopwright.tracking.notebooks.convert.parameters import Parameter, literals, plain_constants

__all__ = ["add_local_uses", "settings", "split_definitions"]


def settings(
    material: Material, statements: Sequence[Statement], definitions: Sequence[Statement]
) -> tuple[dict[int, Parameter], list[Statement]]:
    """Tell literals that become parameters from constants: those that the user's own functions read."""
    found = literals(material.everything, material.flows)
    lists = plain_constants(material.everything, material.flows)
    in_functions = {name for flow in material.of(definitions) for name in flow.uses}
    parameters, constants = {}, []
    for item in statements:
        parameter, name = found.get(id(item)), lists.get(id(item), "")
        if parameter is None:
            if name in in_functions or name.isupper():
                constants.append(item)
        elif parameter.name in in_functions:
            constants.append(item)
            material.notes.append(
                f"{parameter.name} stays a constant of the module: a function reads it (cell {item.cell})."
            )
        else:
            parameters[id(item)] = parameter
    return parameters, constants


def split_definitions(
    material: Material,
    definitions: Sequence[Statement],
    imports: Sequence[Statement],
    constants: Sequence[Statement],
) -> tuple[list[Statement], list[Statement]]:
    """Tell functions that stand alone from those that read variables of the notebook."""
    bound = {name for flow in material.of(material.everything) for name in (*flow.binds, *flow.maybe)}
    alone = ALWAYS | {name for flow in material.of([*imports, *constants]) for name in flow.binds}
    modules: list[Statement] = list(definitions)
    local: list[Statement] = []
    while True:
        names = alone | {name for flow in material.of(modules) for name in flow.binds}
        tied = {id(i): sorted((set(material.flow(i).uses) & bound) - names) for i in modules}
        moved = [item for item in modules if tied[id(item)]]
        if not moved:
            return modules, [item for item in definitions if item in local]
        modules = [item for item in modules if item not in moved]
        local += moved
        material.notes += [
            f"{material.flow(item).binds[0]} (cell {item.cell}) reads {listing(tied[id(item)])} of the notebook: "
            "it stands inside the steps that call it."
            for item in moved
        ]


def add_local_uses(material: Material, body: Sequence[Statement], local: Sequence[Statement]) -> None:
    """Count what a function reads when it is called as read by the statement that calls it."""
    flows = material.flows
    reads = {flows[id(item)].binds[0]: flows[id(item)].uses for item in local}
    for item in body:
        flow = flows[id(item)]
        uses = list(flow.uses)
        for name in uses:  # grows while it is read: functions call functions
            uses += [more for more in reads.get(name, ()) if more not in uses]
        flows[id(item)] = Flow(tuple(uses), flow.binds, flow.maybe, flow.changes)
