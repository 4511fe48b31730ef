"""Laying out Python text: long lines, indentation, imports in groups."""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections.abc import Sequence

from loopwright.tracking.notebooks.convert.cells import Statement

__all__ = ["imports_text", "indented", "tidy", "wrapped"]

_WIDTH = 100
_SIDE_EFFECTS = ("sklearn.experimental", "__future__")


def tidy(text: str) -> str:
    """Strip what is invisible: spaces on empty lines, empty lines around."""
    return "\n".join(line.rstrip() if not line.strip() else line for line in text.strip("\n").splitlines())


def wrapped(start: str, items: Sequence[str], end: str, indent: int = 0) -> str:
    """Write ``start`` items ``end`` in one line, or within parentheses over several where that is too long."""
    pad = " " * indent
    opening, closing = ("(", ")") if not start.endswith("(") else ("", "")
    line = f"{pad}{start}{', '.join(items)}{end}"
    if len(line) <= _WIDTH or not items:
        return line
    inner = f"{pad}    {', '.join(items)}"
    if len(inner) <= _WIDTH and start.endswith("(") and not start.lstrip().startswith("def "):
        return f"{pad}{start}\n{inner}\n{pad}{end}"
    rows = "".join(f"{pad}    {item},\n" for item in items)
    return f"{pad}{start}{opening}\n{rows}{pad}{closing}{end}"


def indented(text: str) -> str:
    """Indent code by four, but not the lines inside a text that goes over several."""
    inside: set[int] = set()
    started = 0
    for token in tokenize.generate_tokens(io.StringIO(text + "\n").readline):
        kind = tokenize.tok_name[token.type]
        if kind == "STRING":
            inside |= set(range(token.start[0] + 1, token.end[0] + 1))
        elif kind == "FSTRING_START":
            started = started or token.start[0]
        elif kind == "FSTRING_END" and started:
            inside |= set(range(started + 1, token.end[0] + 1))
            started = 0
    return "\n".join(
        f"    {line}" if line.strip() and number not in inside else line
        for number, line in enumerate(text.split("\n"), 1)
    )


def imports_text(imports: Sequence[Statement], code: str) -> str:
    """Write the imports that the code needs, in three groups: the standard library, packages, this one."""
    used = {node.id for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Name)}
    lines: set[tuple[int, bool, str, str]] = set()  # group, from-import, what is sorted by, line
    named: dict[str, set[str]] = {}
    whole: list[str] = []
    for item in imports:
        node = item.node
        if isinstance(node, ast.Import):
            for name in node.names:
                if (name.asname or name.name.partition(".")[0]) in used and name.name != "loopwright":
                    lines.add((_group(name.name), False, name.name.lower(), f"import {_aliased(name)}"))
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            effect = module.startswith(_SIDE_EFFECTS)
            kept = {
                _aliased(n) for n in node.names if (n.asname or n.name) in used or n.name == "*" or effect
            }
            named.setdefault(module, set()).update(kept)
        elif used & {n.asname or n.name for n in ast.walk(node) if isinstance(n, ast.alias)}:
            whole.append(tidy(item.text))
    if "mlflow" in used:
        lines.add((2, False, "mlflow", "import mlflow"))
    for module, names in named.items():
        if names:
            line = wrapped(f"from {module} import ", sorted(names, key=_isort), "")
            lines.add((_group(module), True, module.lower(), line))
    groups = [[line for group, *_, line in sorted(lines) if group == number] for number in range(3)]
    texts = ["\n".join(group) for group in groups if group]
    return "\n\n".join([*texts, "import loopwright as lw", *whole])


def _group(module: str) -> int:
    first = module.partition(".")[0]
    return 0 if module == "__future__" else 1 if first in sys.stdlib_module_names else 2


def _aliased(name: ast.alias) -> str:
    return f"{name.name} as {name.asname}" if name.asname and name.asname != name.name else name.name


def _isort(name: str) -> tuple[int, str]:
    # Constants, classes, functions: the order in which import sorters put them.
    return (0 if name.isupper() and len(name) > 1 else 1 if name[0].isupper() else 2, name)
