"""The digest of a step's code: the same for the function that runs and for its text in a commit."""

from __future__ import annotations

import ast
import hashlib
import inspect
import textwrap
from collections.abc import Callable
from typing import Any

__all__ = ["code_digest", "code_digest_in"]


def code_digest(function: Callable[..., Any]) -> str:
    """Return the SHA-256 of a function's source, without comments and formatting; empty when there is no source."""
    try:
        source = textwrap.dedent(inspect.getsource(function))
    except (OSError, TypeError):
        return ""
    return _digest(ast.parse(source).body[0])


def code_digest_in(source: str, name: str) -> str:
    """Return the digest of the function called `name` in a module's text; empty when it is not there."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == name:
            return _digest(node)
    return ""


def _digest(node: ast.AST) -> str:
    return hashlib.sha256(ast.unparse(node).encode()).hexdigest()
