"""What the key of a step's result depends on."""

import importlib
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
from sklearn.linear_model import Ridge

from loopwright.pipelines.keys import Code, argument_digest, key_of

MODULE = """
import json
import numpy as np
import helpers
from helpers import half, Scaler
LIMIT = 3
UNUSED = 1

def inner(x):
    return x + LIMIT

def step(x, more=1):
    # a comment
    return half(inner(x)) + more + np.ones(1)[0]

def with_class(x):
    return Scaler().scale(x)

def with_module(x):
    return helpers.half(x)

def with_local_import(x):
    import helpers
    return helpers.half(x)

def alone(x):
    return json.dumps(x)
"""
HELPERS = """
def half(x):
    return x / 2

class Scaler:
    factor = 2
    def scale(self, x):
        return x * self.factor
"""


class Folder:
    """A project's modules, which can be changed and imported anew."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("work", MODULE)
        self.write("helpers", HELPERS)

    def write(self, name: str, text: str) -> None:
        """Write a module and forget the one that was imported."""
        (self.root / f"{name}.py").write_text(text)
        for loaded in ("work", "helpers"):
            sys.modules.pop(loaded, None)
        importlib.invalidate_caches()

    def code(self, function: str) -> Code:
        """Return what a function of the module depends on, as a new process would see it."""
        sys.dont_write_bytecode, before = True, sys.dont_write_bytecode
        try:
            module: ModuleType = importlib.import_module("work")
        finally:
            sys.dont_write_bytecode = before
        return Code(getattr(module, function), self.root)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    """Return the modules of a project."""
    monkeypatch.syspath_prepend(tmp_path)
    yield Folder(tmp_path)
    for name in ("work", "helpers"):
        sys.modules.pop(name, None)


def test_the_same_code_has_the_same_digest_after_it_was_imported_anew(folder: Folder) -> None:
    """Comments and what the step does not use do not count."""
    one = folder.code("step").digest
    folder.write("work", MODULE.replace("# a comment", "# another\n\n").replace("UNUSED = 1", "UNUSED = 2"))
    assert folder.code("step").digest == one


@pytest.mark.parametrize(
    ("module", "before", "after"),
    [
        ("work", "return half(inner(x))", "return half(inner(x)) * 2"),
        ("work", "return x + LIMIT", "return x - LIMIT"),
        ("work", "LIMIT = 3", "LIMIT = 4"),
        ("work", "more=1", "more=2"),
        ("helpers", "return x / 2", "return x // 2"),
    ],
)
def test_what_a_step_uses_counts(folder: Folder, module: str, before: str, after: str) -> None:
    """Its own code, functions and constants of its module, its defaults, functions of other modules."""
    one = folder.code("step").digest
    text = MODULE if module == "work" else HELPERS
    assert before in text
    folder.write(module, text.replace(before, after))
    assert folder.code("step").digest != one


@pytest.mark.parametrize("function", ["with_class", "with_module", "with_local_import"])
def test_classes_and_modules_of_the_project_count_whole(folder: Folder, function: str) -> None:
    """A class that is used, a module that is used by its name, a module imported inside of the function."""
    one, alone = folder.code(function).digest, folder.code("alone").digest
    folder.write("helpers", HELPERS.replace("factor = 2", "factor = 3"))
    assert folder.code(function).digest != one
    assert folder.code("alone").digest == alone, "which uses nothing of it"


def test_versions_of_packages_count(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """NumPy is used by the step, and pandas is not; the standard library has Python's version."""
    import numpy as np

    code = folder.code("step")
    assert code.parts["package numpy"] == np.__version__
    assert not any("pandas" in part or "json" in part for part in code.parts)


KEYED: list[tuple[Any, Any]] = [
    (1, 1.0),
    (1, True),
    ("a", b"a"),
    ([1, 2], (1, 2)),
    ({"a": 1}, {"a": 2}),
    (None, 0),
    (Ridge(alpha=1.0), Ridge(alpha=2.0)),
    (pd.Series([1, 2]), pd.Series([1, 3])),
]


@pytest.mark.parametrize(("one", "other"), KEYED)
def test_different_values_have_different_digests(one: Any, other: Any) -> None:
    """Equal ones have the same."""

    def nothing(_value: Any) -> None:
        return None

    digest = argument_digest(one, nothing)
    assert digest is not None
    assert digest != argument_digest(other, nothing)
    import copy

    assert digest == argument_digest(copy.deepcopy(one), nothing)


def test_tables_are_known_by_their_fingerprint() -> None:
    """Also inside of containers; what cannot be pickled has no digest, and nothing that contains it has one."""
    frame = pd.DataFrame({"a": [1]})

    def known(value: Any) -> str | None:
        return "f" if value is frame else None

    assert argument_digest(frame, known) == "table f"
    assert "table f" in (argument_digest([frame, 1], known) or "")
    assert argument_digest(threading.Lock(), known) is None
    assert argument_digest({"a": [threading.Lock()]}, known) is None


def test_the_key_follows_code_and_arguments(folder: Folder) -> None:
    """Not the order of the arguments."""
    code, other = folder.code("step"), folder.code("alone")
    assert key_of(code, {"x": "1", "more": "2"}) == key_of(code, {"more": "2", "x": "1"})
    assert len({key_of(code, {"x": "1"}), key_of(code, {"x": "2"}), key_of(other, {"x": "1"})}) == 3
