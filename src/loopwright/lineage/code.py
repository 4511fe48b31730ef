"""The digest of a step's code: the same for the function that runs and for its text in a commit."""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

__all__ = ["code_digest", "digests_in"]


def code_digest(function: Callable[..., Any]) -> str:
    """Return the SHA-256 of a function's source, without comments and formatting; empty when there is no source."""
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):
        return ""
    return _digest(ast.parse(source).body[0])


def digests_in(source: str) -> dict[str, list[str]]:
    """Return the digests of all functions in a module's text by their names; empty when it is no Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return {}
    found: dict[str, list[str]] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.setdefault(node.name, []).append(_digest(node))
    return found


def _digest(node: ast.AST) -> str:
    return hashlib.sha256(ast.unparse(node).encode()).hexdigest()
