"""Whether a pipeline can be there, told from its file alone: without importing a module that may take a minute."""

from __future__ import annotations

import ast
from functools import lru_cache
from pathlib import Path

from loopwright.config import Project
from loopwright.errors import listing, nearest
from loopwright.pipelines.entrypoints import source_file

__all__ = ["missing"]


def missing(project: Project, entrypoint: str) -> str:
    """Return why a pipeline cannot be there, with the nearest name; an empty text when it may be."""
    path = source_file(project, entrypoint)
    module, _, name = entrypoint.partition(":")
    if not path.is_file():
        known = sorted(one.stem for one in project.root.glob("*.py"))
        close = nearest(module, known)
        guess = f"Did you mean '{close}:{name}'? " if close else ""
        return f"there is no {path.relative_to(project.root)}. {guess}Modules: {listing(known)}."
    defined = _names(path, path.stat().st_mtime_ns)
    if defined is None or name in defined:
        return ""
    close = nearest(name, defined)
    guess = f" Did you mean '{module}:{close}'?" if close else ""
    return f"{path.name} defines no {name!r}.{guess} Functions there: {listing(sorted(defined))}."


@lru_cache(maxsize=64)
def _names(path: Path, _changed: int) -> frozenset[str] | None:
    """Return the functions that a module defines; None when its names may come from elsewhere."""
    try:
        body = ast.parse(path.read_text(encoding="utf-8")).body
    except (OSError, SyntaxError, UnicodeDecodeError):  # the runner says what is wrong with it
        return None
    functions = {node.name for node in body if isinstance(node, ast.FunctionDef)}
    plain = (ast.FunctionDef, ast.ClassDef, ast.Import, ast.Expr)
    others = [node for node in body if not isinstance(node, plain)]
    given = {
        name.asname or name.name for node in others if isinstance(node, ast.ImportFrom) for name in node.names
    }
    for node in others:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        given |= {target.id for target in targets if isinstance(target, ast.Name)}
        if not isinstance(node, (ast.ImportFrom, ast.Assign, ast.AnnAssign)):
            return None  # a condition, a loop: anything may be defined in it
    return None if "*" in given else frozenset(functions | given)
