"""From ``pipelines:train`` to the pipeline: importing the user's own module from the project folder."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from loopwright.config import Project
from loopwright.errors import InvalidInput, NotFound, StepFailed, listing
from loopwright.pipelines.definition import Pipeline

__all__ = ["load", "source_file"]


def load(project: Project, entrypoint: str | Callable[..., Any]) -> Pipeline[Any, Any]:
    """Return the pipeline that an entrypoint ``<module>:<function>`` names, or the given pipeline itself.

    Raises
    ------
    InvalidInput
        The text is no entrypoint, or what it names is no pipeline.
    NotFound
        There is no such module in the project, or no such function in it; the message names those there are.
    StepFailed
        The module raised while it was imported.
    """
    if isinstance(entrypoint, Pipeline):
        return entrypoint
    if not isinstance(entrypoint, str):
        raise InvalidInput(f"{entrypoint!r} is no pipeline.", hint="decorate it with @loopwright.pipeline")
    name, colon, attribute = entrypoint.partition(":")
    if not (name and colon and attribute):
        raise InvalidInput(
            f"{entrypoint!r} names no pipeline.",
            valid="Write '<module>:<function>', such as 'pipelines:train'.",
        )
    module = _module(project, name)
    known = [key for key, value in vars(module).items() if isinstance(value, Pipeline)]
    found = getattr(module, attribute, None)
    if found is None:
        raise NotFound.among(f"pipeline in {name}", attribute, known, hint="loopwright pipeline list")
    if not isinstance(found, Pipeline):
        raise InvalidInput(
            f"{entrypoint} is a {type(found).__name__}, not a pipeline.",
            valid=f"Pipelines in {name}: {listing(known)}.",
            hint="put @loopwright.pipeline above it",
        )
    return found


def source_file(project: Project, entrypoint: str) -> Path:
    """Return the file in the project that an entrypoint's module comes from, without importing it."""
    path = project.root / entrypoint.partition(":")[0].replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _module(project: Project, name: str) -> ModuleType:
    root = str(project.root)
    if root not in sys.path:
        sys.path.insert(0, root)
    importlib.invalidate_caches()
    _forget_foreign(project, name)
    if name not in sys.modules and _spec(name) is None:
        known = sorted(path.stem for path in project.root.glob("*.py"))
        raise NotFound.among(f"module of {project.root} called", name, known, hint="ls " + root)
    try:
        return importlib.import_module(name)
    except Exception as error:  # whatever the user's module raises
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise StepFailed(
            f"The module {name!r} cannot be imported: {type(error).__name__}: {error} "
            f"({Path(last.filename).name}:{last.lineno}).",
            hint=f"cd {root} && python -c 'import {name}'",
        ) from error


def _spec(name: str) -> Any:
    try:
        return importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None


def _forget_foreign(project: Project, name: str) -> None:
    """Forget a module of this name that another project has left behind in this process."""
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    ours = source_file(project, name)
    if module is not None and file and ours.is_file() and Path(file).resolve() != ours.resolve():
        del sys.modules[name]
