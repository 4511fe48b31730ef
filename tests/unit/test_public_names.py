"""The package's public face: its names, and what importing it costs."""

import json
import subprocess
import sys

import pytest

import loopwright

HEAVY = ("mlflow", "prefect", "pandas", "sklearn", "duckdb", "onnxruntime", "nicegui", "pyarrow")


def loaded_by(program: str) -> list[str]:
    """Return which heavy libraries a fresh process has loaded after a program."""
    code = f"{program}\nimport json, sys\nprint(json.dumps([m for m in {HEAVY!r} if m in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return list(json.loads(done.stdout.splitlines()[-1]))


def test_public_names_are_sorted_and_resolve() -> None:
    """Each public name can be imported."""
    assert sorted(loopwright.__all__) == loopwright.__all__
    for name in loopwright.__all__:
        assert getattr(loopwright, name) is not None


def test_an_unknown_name_lists_the_known_ones() -> None:
    """A typo in the package's namespace is answered with the names."""
    with pytest.raises(AttributeError, match="pipeline"):
        _ = loopwright.pipelin


def test_import_loads_nothing_heavy() -> None:
    """`import loopwright` costs next to nothing."""
    assert loaded_by("import loopwright") == []


@pytest.mark.parametrize(
    "words", [["--help"], ["--version"], ["up", "--help"], ["pipeline", "run", "--help"]]
)
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    """`loopwright --help` loads neither MLflow, Prefect, pandas nor scikit-learn."""
    program = f"from loopwright.cli import main\ntry:\n    main({words!r})\nexcept SystemExit:\n    pass"
    assert loaded_by(program) == []
