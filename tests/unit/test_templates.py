"""The project files that `init` and `demo` write."""

import compileall
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from loopwright.config import Project
from loopwright.errors import Conflict, NotFound
from loopwright.templates import write


def test_the_starter_is_a_valid_project(tmp_path: Path) -> None:
    """What `init` writes is read without complaint, compiles, and has its data."""
    write("starter", tmp_path, {"name": "shop"})
    project = Project(tmp_path)
    assert project.name == "shop"
    assert {str(deployment.mode) for deployment in project.config.deployment.values()} == {
        "online",
        "batch",
        "stream",
        "edge",
    }
    assert compileall.compile_dir(tmp_path, quiet=2)
    assert (tmp_path / "data" / "wine.csv").read_text().count("\n") == 179
    assert (tmp_path / ".gitignore").is_file()
    wine = json.loads((tmp_path / "wine.json").read_text())
    header = (tmp_path / "data" / "wine.csv").read_text().partition("\n")[0]
    assert [*wine, "grower"] == header.split(",")


def test_the_starters_own_tests_pass(tmp_path: Path) -> None:
    """As its user runs them: without a server, and without leaving anything behind."""
    write("starter", tmp_path, {"name": "shop"})
    before = {path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        ".",
        "-c",
        os.devnull,
    ]
    done = subprocess.run(
        [*command, "tests"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": "."},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
    after = {path for path in tmp_path.rglob("*") if "__pycache__" not in path.parts}
    assert {path.name for path in after - before} <= {".loopwright"}


def test_an_unknown_template_lists_the_known(tmp_path: Path) -> None:
    """A wrong name is answered with the right ones."""
    with pytest.raises(NotFound, match="starter"):
        write("startr", tmp_path, {})


def test_a_field_without_a_value_is_an_error(tmp_path: Path) -> None:
    """No half-filled file is written in silence."""
    with pytest.raises(KeyError):
        write("starter", tmp_path, {})


def test_a_folder_with_files_becomes_a_project(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing that exists is overwritten: the state is added to what git ignores, and a project is not made twice."""
    from loopwright.cli.init import init

    root = tmp_path / 'my "wines"'
    root.mkdir()
    (root / "mine.txt").write_text("precious")
    (root / ".gitignore").write_text("*.tmp")
    init(str(root))
    assert "loopwright.toml, .gitignore" in capsys.readouterr().out
    assert Project(root).name == 'my "wines"'
    assert (root / ".gitignore").read_text() == "*.tmp\n.loopwright/\n"
    assert sorted(path.name for path in root.iterdir()) == [".gitignore", "loopwright.toml", "mine.txt"]
    with pytest.raises(Conflict, match="is a project already"):
        init(str(root))


def test_init_refuses_the_name_of_a_file(tmp_path: Path) -> None:
    """A file stays what it is."""
    from loopwright.cli.init import init

    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(Conflict, match="is a file"):
        init(str(tmp_path / "mine.txt"))
    assert (tmp_path / "mine.txt").read_text() == "precious"
