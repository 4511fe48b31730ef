"""The key of a step's result: what the step computes with, and what it computes on.

A result may be used again only when nothing that it depends on has changed: the step's own code, the project's
functions, classes, constants and modules that it uses, the versions of the packages behind them, the version of
Python, and the values of the arguments.
"""

from __future__ import annotations

import ast
import dis
import hashlib
import importlib.metadata
import inspect
import io
import pickle
import sys
import textwrap
import weakref
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

from loopwright.lineage.code import code_digest

__all__ = ["Code", "argument_digest", "code_of", "key_of"]

_PLAIN = (bool, int, float, complex, str, bytes, type(None))


class Code:
    """What one step's function depends on: names with digests or versions. Made once for each function object."""

    def __init__(self, function: Callable[..., Any], root: Path) -> None:
        self.root = root
        #: name -> digest or version; sorted, so that `digest` is the same in every process
        self.parts: dict[str, str] = {}
        self._seen: set[int] = set()
        self._function(function)
        self.digest = hashlib.sha256(repr(sorted(self.parts.items())).encode()).hexdigest()

    def _function(self, function: Any) -> None:
        function = inspect.unwrap(function)
        if id(function) in self._seen or not isinstance(function, FunctionType):
            return
        self._seen.add(id(function))
        name = f"{function.__module__}.{function.__qualname__}"
        self.parts[f"code {name}"] = code_digest(function) or _bytecode_digest(function.__code__)
        self._value(f"defaults {name}", (function.__defaults__, function.__kwdefaults__))
        for cell_name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
            try:
                self._value(f"{name}.{cell_name}", cell.cell_contents)
            except ValueError:  # not filled yet: the function refers to itself
                continue
        for used in _names(function.__code__):
            if used in function.__globals__:
                self._value(f"{function.__module__}.{used}", function.__globals__[used])
        for module in _local_imports(function.__code__):
            self._module_name(module)

    def _value(self, name: str, value: Any) -> None:
        if value is None:
            return
        inner = getattr(value, "function", None)
        if isinstance(value, ModuleType):
            self._module(value)
        elif callable(inner) and type(value).__module__.startswith("loopwright.pipelines"):
            self._function(inner)  # another step, or a pipeline
        elif isinstance(value, FunctionType):
            self._function(value) if self._own(value.__module__) else self._package(value.__module__)
        elif isinstance(value, type):
            self._class(value)
        elif isinstance(module := getattr(value, "__module__", None), str) and callable(value):
            self._package(module)
        else:
            self.parts[f"value {name}"] = _constant_digest(value)

    def _class(self, kind: type) -> None:
        if not self._own(kind.__module__):
            self._package(kind.__module__)
            return
        if id(kind) in self._seen:
            return
        self._seen.add(id(kind))
        self.parts[f"class {kind.__module__}.{kind.__qualname__}"] = _source_digest(kind)
        for base in kind.__mro__[1:]:
            self._class(base)
        for member in vars(kind).values():
            function = getattr(member, "__func__", getattr(member, "fget", member))
            if isinstance(function, FunctionType):
                self._function(function)

    def _module(self, module: ModuleType) -> None:
        """Take a module of the project as a whole, with the project's modules it uses in turn."""
        path = self._file(module)
        if path is None:
            self._package(module.__name__)
            return
        if id(module) in self._seen:
            return
        self._seen.add(id(module))
        text = path.read_bytes()
        self.parts[f"module {module.__name__}"] = hashlib.sha256(text).hexdigest()
        for name in _imports(text):
            self._module_name(name)

    def _module_name(self, name: str) -> None:
        module = sys.modules.get(name)
        if module is not None:
            self._module(module)
            return
        path = self.root / name.replace(".", "/")
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                self.parts[f"module {name}"] = hashlib.sha256(file.read_bytes()).hexdigest()
                return
        self._package(name)

    def _own(self, module: str | None) -> bool:
        if module == "__main__":
            return True
        found = sys.modules.get(module or "")
        return found is not None and self._file(found) is not None

    def _file(self, module: ModuleType) -> Path | None:
        """Return a module's file when it belongs to the project and is not a library installed below it."""
        file = getattr(module, "__file__", None)
        if not file:
            return None
        path = Path(file).resolve()
        own = path.is_relative_to(self.root) and not {"site-packages", "dist-packages"} & set(path.parts)
        return path if own and path.suffix == ".py" else None

    def _package(self, module: str | None) -> None:
        top = (module or "").partition(".")[0]
        if top and top not in sys.stdlib_module_names and top != "__main__":
            self.parts[f"package {top}"] = _version(top)


_codes: weakref.WeakKeyDictionary[Callable[..., Any], Code] = weakref.WeakKeyDictionary()


def code_of(function: Callable[..., Any], root: Path) -> Code:
    """Return what a step's function depends on; computed once, for a loaded function does not change."""
    found = _codes.get(function)
    if found is None or found.root != root:
        found = _codes[function] = Code(function, root)
    return found


def key_of(code: Code, arguments: dict[str, str]) -> str:
    """Return the key of one call: SHA-256 over the code's digest, Python's version and the arguments' digests."""
    python = f"{sys.version_info.major}.{sys.version_info.minor}"
    text = repr((code.digest, python, sorted(arguments.items())))
    return hashlib.sha256(text.encode()).hexdigest()


def argument_digest(value: Any, known: Callable[[Any], str | None]) -> str | None:
    """Return the digest of an argument, or None when it has none that a later run could find again.

    Parameters
    ----------
    known
        Gives the fingerprint of a table, which may have been computed already; None for anything else.
    """
    if isinstance(value, _PLAIN):
        return f"{type(value).__name__} {value!r}"
    if found := known(value):
        return f"table {found}"
    if type(value) in {list, tuple}:
        items = [argument_digest(item, known) for item in value]
        return None if None in items else f"{type(value).__name__} {items}"
    if type(value) is dict:
        pairs = [(repr(key), argument_digest(item, known)) for key, item in value.items()]
        return None if any(digest is None for _, digest in pairs) else f"dict {pairs}"
    return _pickle_digest(value)


def _pickle_digest(value: Any) -> str | None:
    """Return the digest of an object as it is pickled; None when it cannot be."""
    import cloudpickle

    # Written to a hash and not to memory: a forest may be gigabytes.
    digest = hashlib.sha256()
    try:
        cloudpickle.Pickler(_Sink(digest), protocol=5).dump(value)
    except Exception:  # noqa: BLE001 - objects raise anything when they are pickled: locks, sockets, generators
        return None
    return f"pickle {digest.hexdigest()}"


class _Sink(io.RawIOBase):
    """A file that only hashes what is written to it."""

    def __init__(self, digest: Any) -> None:
        self._digest = digest

    def write(self, data: Any, /) -> int:
        self._digest.update(data)
        return len(data) if isinstance(data, bytes) else memoryview(data).nbytes


def _constant_digest(value: Any) -> str:
    if isinstance(value, _PLAIN):
        return repr(value)
    try:
        return hashlib.sha256(pickle.dumps(value, protocol=5)).hexdigest()
    except Exception:  # noqa: BLE001 - a connection, a logger: what kind of thing it is must do
        return f"{type(value).__module__}.{type(value).__qualname__}"


def _source_digest(kind: type) -> str:
    try:
        return hashlib.sha256(
            ast.unparse(ast.parse(textwrap.dedent(inspect.getsource(kind)))).encode()
        ).hexdigest()
    except (OSError, TypeError, SyntaxError):
        return ""


def _bytecode_digest(code: CodeType) -> str:
    """Return a digest for a function without source, such as one that was made by `exec`."""
    constants = [
        _bytecode_digest(item) if isinstance(item, CodeType) else repr(item) for item in code.co_consts
    ]
    return hashlib.sha256(code.co_code + repr((constants, code.co_names)).encode()).hexdigest()


def _names(code: CodeType) -> Iterator[str]:
    """Yield the global names that a function uses, functions inside it included."""
    for instruction in dis.get_instructions(code):
        if instruction.opname in {"LOAD_GLOBAL", "LOAD_NAME"}:
            yield instruction.argval
    for item in code.co_consts:
        if isinstance(item, CodeType):
            yield from _names(item)


def _local_imports(code: CodeType) -> Iterator[str]:
    """Yield the modules that a function imports itself."""
    for instruction in dis.get_instructions(code):
        if instruction.opname == "IMPORT_NAME":
            yield instruction.argval
    for item in code.co_consts:
        if isinstance(item, CodeType):
            yield from _local_imports(item)


def _imports(text: bytes) -> Iterator[str]:
    """Yield the modules that a module's text imports anywhere."""
    try:
        tree = ast.parse(text)
    except SyntaxError:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


@lru_cache(maxsize=1024)
def _version(top: str) -> str:
    """Return the version of the package that a top-level module belongs to; empty when it has none."""
    version = getattr(sys.modules.get(top), "__version__", None)
    if isinstance(version, str):
        return version
    try:
        return importlib.metadata.version(top)
    except importlib.metadata.PackageNotFoundError:
        names = importlib.metadata.packages_distributions().get(top, [])
        return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in sorted(set(names)))
