"""Writing the pipeline's source: readable Python, in the notebook's own words."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from loopwright.tracking.notebooks.convert.cells import Statement
from loopwright.tracking.notebooks.convert.dataflow import called, root_name
from loopwright.tracking.notebooks.convert.layout import imports_text, indented, tidy, wrapped
from loopwright.tracking.notebooks.convert.parameters import Parameter, path_literals, replace
from loopwright.tracking.notebooks.convert.plan import Plan, PlannedStep
from loopwright.tracking.notebooks.convert.registering import Registration

__all__ = ["Block", "blocks", "left_out_lines"]

#: Readers whose plain call `lw.dataset` makes itself, with the endings it knows them by.
_PLAIN = {"read_csv": (".csv", ".csv.gz", ".csv.zst"), "read_parquet": (".parquet", ".pq")}


@dataclass(frozen=True, slots=True)
class Block:
    """One top-level piece of the module: its name, by which it is found again, and its text."""

    name: str
    text: str


def blocks(plan: Plan) -> list[Block]:
    """Return the module's pieces in order: docstring, imports, constants, functions, steps, pipeline."""
    typed = {parameter.name: parameter.typed for parameter in plan.parameters}
    body = [
        *(Block(_bound(item), tidy(item.text)) for item in plan.constants),
        *(Block(_bound(item), tidy(item.text)) for item in plan.functions),
        *(Block(step.name, _step(plan, step, typed)) for step in plan.steps),
        Block(plan.pipeline, _pipeline(plan)),
    ]
    doc = (
        f'"""The pipeline of {plan.notebook.path.name}: {", ".join(step.name for step in plan.steps)}.\n\n'
        'Written by `loopwright notebook convert`; what you change here is kept when it is run again.\n"""'
    )
    imports = imports_text(plan.imports, "\n".join(block.text for block in body))
    return [Block("(docstring)", doc), Block("(imports)", imports), *body]


def _bound(item: Statement) -> str:
    node = item.node
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return node.name
    target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
    return target.id if isinstance(target, ast.Name) else ast.unparse(node)


def _step(plan: Plan, step: PlannedStep, typed: Mapping[str, str]) -> str:
    head = wrapped(f"def {step.name}(", [typed.get(name, name) for name in step.inputs], "):")
    cells = _ranges(step.cells)
    title = (
        f"{step.title.rstrip('.')}."
        if step.title
        else f"{step.kind.capitalize()}: {cells} of {plan.notebook.path.name}."
    )
    lines = [f'"""{title}"""']
    lines += [f"\n{tidy(item.text)}\n" for item in step.locals]
    previous = 0
    for item in step.statements:
        text = tidy(_rewritten(plan, item))
        # A new cell starts a new paragraph.
        lines.append(f"\n{text}" if previous and item.cell != previous else text)
        previous = item.cell
    body = "\n".join(indented(line) for line in lines)
    ending = wrapped("return ", step.outputs, "", 4) if step.outputs else ""
    return "\n".join(filter(None, ["@lw.step", head, body, ending]))


def _ranges(cells: Sequence[int]) -> str:
    numbers = sorted(cells)
    if len(numbers) == 1:
        return f"cell {numbers[0]}"
    if numbers == list(range(numbers[0], numbers[-1] + 1)):
        return f"cells {numbers[0]} to {numbers[-1]}"
    return f"cells {', '.join(map(str, numbers))}"


def _rewritten(plan: Plan, item: Statement) -> str:
    """Write a statement with inputs in place of paths, and tables read as datasets."""
    edits: list[tuple[ast.expr, str]] = list(plan.paths.edits(item))
    for call in ast.walk(item.node):
        starts = isinstance(call, ast.Call) and ast.unparse(call.func) == "mlflow.start_run"
        if isinstance(call, ast.Call) and starts and all(word.arg != "nested" for word in call.keywords):
            # The pipeline has a run already; the notebook's own one goes inside it.
            given = ", ".join(ast.unparse(part) for part in (*call.args, *call.keywords))
            edits.append((call, f"mlflow.start_run({given + ', ' if given else ''}nested=True)"))
    value = getattr(item.node, "value", None)
    if isinstance(item.node, ast.Assign) and isinstance(value, ast.Call) and _reads_table(value):
        return _as_dataset(plan, item, value)
    return replace(item.text, edits)


def _reads_table(call: ast.Call) -> bool:
    name = called(call)
    lazy = any(word.arg in {"chunksize", "iterator"} for word in call.keywords)
    return (
        name.startswith("read_") and root_name(call) in {"pd", "pandas"} and not lazy and name != "read_html"
    )


def _as_dataset(plan: Plan, item: Statement, call: ast.Call) -> str:
    assert isinstance(call.func, ast.Attribute)
    edits = list(plan.paths.edits(item))
    first = call.args[0] if call.args else None
    known = {parameter.name: parameter for parameter in plan.parameters}
    source: Parameter | None = None
    if isinstance(first, ast.Constant) and str(first.value) in plan.paths.inputs:
        source = plan.paths.inputs[str(first.value)]
    elif isinstance(first, ast.Name):
        source = known.get(first.id)
    default = str(source.default) if source else ""
    name = re.sub(r"\W+", "-", re.split(r"[/\\]", default)[-1].partition(".")[0]).strip("-")
    if not name:
        target = item.node.targets[0] if isinstance(item.node, ast.Assign) else None
        name = target.id if isinstance(target, ast.Name) else plan.notebook.slug
    if source is None and isinstance(first, ast.Name) and root_name(call) == first.id:
        return replace(item.text, edits)
    endings = _PLAIN.get(call.func.attr, ())
    local = "://" not in default
    if (
        source
        and local
        and default.lower().endswith(endings)
        and endings
        and len(call.args) == 1
        and not call.keywords
    ):
        return replace(item.text, [(call, f'lw.dataset("{name}", {source.name})')])
    code = ast.get_source_segment(item.text, call) or ast.unparse(call)
    moved = ast.parse(code, mode="eval").body
    inner = [(node, new) for node, new in _inside(moved, plan)]
    return replace(item.text, [(call, f'lw.dataset("{name}", {replace(code, inner)})')])


def _inside(node: ast.expr, plan: Plan) -> Iterable[tuple[ast.expr, str]]:
    for found in path_literals(ast.Expr(node)):
        yield found, plan.paths.inputs[str(found.value)].name


def _pipeline(plan: Plan) -> str:
    declared = [item.declaration for item in plan.parameters]
    if any(item.comment for item in plan.parameters):
        rows = "".join(
            f"    {item.declaration},{f'  # {item.comment}' if item.comment else ''}\n"
            for item in plan.parameters
        )
        head = f"def {plan.pipeline}(\n{rows}):"
    else:
        head = wrapped(f"def {plan.pipeline}(", declared, "):")
    lines = ["@lw.pipeline", head, f'    """Run the steps of {plan.notebook.path.name}."""']
    for step in plan.steps:
        start = f"{', '.join(step.outputs)} = " if step.outputs else ""
        if len(start) > 60:
            names = "".join(f"        {name},\n" for name in step.outputs)
            lines.append(f"    (\n{names}    ) = {step.name}({', '.join(step.inputs)})")
        else:
            lines.append(wrapped(f"{start}{step.name}(", step.inputs, ")", 4))
    return "\n".join([*lines, *_ending(plan)])


def _ending(plan: Plan) -> list[str]:
    metrics = "{" + ", ".join(f'"{name}": {name}' for name in plan.metrics) + "}"
    outputs = {name for step in plan.steps for name in step.outputs}
    found = plan.registration
    if isinstance(found, Registration) and found.model in outputs:
        given = [
            f'"{plan.notebook.slug.replace("_", "-")}"',
            found.model,
            found.table,
            f"target={found.target}",
        ]
        given += [f"metrics={metrics}"] if plan.metrics else []
        return [wrapped("return lw.register(", given, ")", 4)]
    why = found if isinstance(found, str) else f"{found.model} is not made by a step."
    lines = [f"    # No model is registered. {why}", f"    # Then: {_advice(plan)}"]
    if plan.metrics:
        lines.append(f"    mlflow.log_metrics({metrics})")
        lines.append(f"    return {metrics}")
    elif outputs and plan.steps[-1].outputs:
        lines.append(wrapped("return ", plan.steps[-1].outputs, "", 4))
    return lines


def _advice(plan: Plan) -> str:
    return f'return lw.register("{plan.notebook.slug.replace("_", "-")}", <model>, <table with the target>, target=<column>)'


def left_out_lines(plan: Plan) -> list[str]:
    """Return the comment lines that say what the pipeline does without, and why."""
    if not plan.left_out:
        return []
    lines = ["# Left out of the pipeline (cell: what, why):"]
    for item in plan.left_out:
        named = "".join(f", kept as {name}" for name, _ in item.harvested)
        lines.append(f"#   {item.cell}: {item.text[:80]}  ({item.why}{named})")
    return lines
