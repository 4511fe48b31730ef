"""From ``pipelines:train`` to the pipeline: importing the user's own module from the project folder."""

from __future__ import annotations

import importlib
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

#: The projects whose modules this process has imported.
_roots: set[Path] = set()


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
    if not (colon and attribute) or "" in name.split("."):
        raise InvalidInput(
            f"{entrypoint!r} names no pipeline.",
            valid="Write '<module>:<function>', such as 'pipelines:train'.",
        )
    module = _module(project, name)
    known = [key for key, value in vars(module).items() if isinstance(value, Pipeline)]
    found = getattr(module, attribute, None)
    if found is None:
        entrypoints = [f"{name}:{key}" for key in known]
        raise NotFound.among("pipeline", entrypoint, entrypoints, hint="loopwright pipeline list")
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
    package = path / "__init__.py"
    return package if package.is_file() else path.with_suffix(".py")


def _module(project: Project, name: str) -> ModuleType:
    root = str(project.root)
    # In front, also when it is there already: another project's folder may have come before it since.
    sys.path[:] = [root, *(entry for entry in sys.path if entry != root)]
    importlib.invalidate_caches()
    _forget_foreign(project, name)
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # whatever the user's module raises, a script's `sys.exit()` too
        missing = error.name or "" if isinstance(error, ModuleNotFoundError) else ""
        if missing and f"{name}.".startswith(f"{missing}."):
            known = sorted(path.stem for path in project.root.glob("*.py"))
            raise NotFound.among(f"module of {root} called", name, known, hint=f"ls {root}") from None
        raise StepFailed(
            f"The module {name!r} cannot be imported: {_reason(root, error)}.",
            hint=f"cd {root} && python -c 'import {name}'",
        ) from error


def _reason(root: str, error: BaseException) -> str:
    """Return an error with its file and line: the last place in the project's own code, if it came by there."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({Path(error.filename or '?').name}:{error.lineno})"
    frames = traceback.extract_tb(error.__traceback__)
    own = [
        frame for frame in frames if frame.filename.startswith(root) and "site-packages" not in frame.filename
    ]
    last = (own or frames)[-1]
    return f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"


def _forget_foreign(project: Project, name: str) -> None:
    """Forget the modules that others have left behind in this process under names that are the project's own.

    Of the entrypoint's module and its package, wherever they are from; of those it may import in turn, what came from
    another project.
    """
    top = name.partition(".")[0]
    _roots.add(project.root)
    others = _roots - {project.root}
    own = {path.stem for path in project.root.iterdir()} if others else {top}
    for loaded, module in list(sys.modules.items()):
        first = loaded.partition(".")[0]
        file = getattr(module, "__file__", None)
        if first not in own or not file:
            continue
        ours, theirs = source_file(project, loaded), Path(file).resolve()
        if not ours.is_file() or theirs == ours.resolve():
            continue
        if first == top or any(theirs.is_relative_to(root) for root in others):
            del sys.modules[loaded]
