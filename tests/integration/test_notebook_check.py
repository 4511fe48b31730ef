"""`loopwright notebook check` on notebooks as people write them, each run in a kernel of its own."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("nbclient", reason="nbclient is not installed")

NOTEBOOKS = Path(__file__).parent.parent / "notebooks"

pytestmark = pytest.mark.integration

FOREIGN = json.dumps(
    {
        "cells": [
            {
                "cell_type": "code",
                "id": "a",
                "metadata": {},
                "outputs": [],
                "execution_count": None,
                "source": "x <- 1",
            }
        ],
        "metadata": {"kernelspec": {"name": "ir", "display_name": "R", "language": "R"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the notebooks."""
    for path in NOTEBOOKS.glob("*.ipynb"):
        shutil.copy(path, tmp_path)
    return tmp_path


def check(folder: Path, name: str, *options: str) -> tuple[int, dict[str, Any], str]:
    """Check a notebook as a user does; return the exit code, the report and the last lines."""
    before = (folder / f"{name}.ipynb").read_bytes()
    command = [sys.executable, "-m", "loopwright", "notebook", "check", f"{name}.ipynb", *options]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=280, check=False)
    assert (folder / f"{name}.ipynb").read_bytes() == before, "the notebook stays as it is"
    report = folder / f"{name}-check" / "report.json"
    assert report.exists(), done.stdout + done.stderr
    assert "</html>" in report.with_name("report.html").read_text()
    return done.returncode, json.loads(report.read_text()), done.stdout + done.stderr


def outputs(report: dict[str, Any]) -> list[str]:
    """Return how each cell's output compares."""
    return [cell["output"] for cell in report["cells"]]


def test_a_clean_notebook_gives_what_it_shows(folder: Path) -> None:
    """Tables, text and a picture; the lock has what was imported with its version."""
    import sklearn

    code, report, text = check(folder, "clean")
    assert code == 0, text
    assert report["verdict"] == "8 of 8 cells ran, 6 outputs as stored."
    assert outputs(report) == ["none", "none", "equal", "equal", "equal", "equal", "equal", "equal"]
    lock = (folder / "clean-check" / "requirements.lock").read_text().splitlines()
    assert f"scikit-learn=={sklearn.__version__}" in lock
    assert not any(line.startswith(("mlflow", "prefect", "loopwright")) for line in lock)
    assert (report["written"], report["hosts"], report["runs"]) == ([], [], 1)


def test_cells_out_of_order_are_named(folder: Path) -> None:
    """The cell that defines the name, and that the author ran it first."""
    code, report, _ = check(folder, "out_of_order")
    assert code == 1
    assert (
        "1 of 3 cells ran; cell 2 failed: threshold is defined in cell 3, which comes later."
        in report["verdict"]
    )
    assert report["order"] == "The notebook was not run from top to bottom: cell 2 was run after cell 3"
    assert [cell["status"] for cell in report["cells"]] == ["ran", "failed", "not reached"]


def test_a_missing_file_is_named_with_the_nearest(folder: Path) -> None:
    """The author had it; beside the notebook there is one of a similar name."""
    (folder / "data").mkdir()
    (folder / "data" / "trains.csv").write_text("a\n")
    code, report, text = check(folder, "missing_file")
    assert code == 1
    assert report["verdict"] == (
        "1 of 3 cells ran; cell 2 failed: file not found: data/train.csv (nearest: data/trains.csv)."
    )
    assert "Try: write data/trains.csv instead" in text


def test_randomness_without_a_seed_is_told_from_change(folder: Path) -> None:
    """By a second run, and by the calls that have no seed."""
    code, report, _ = check(folder, "unseeded")
    assert (code, report["runs"]) == (1, 2)
    cause = report["cells"][-1]["cause"]
    assert cause["kind"] == "unseeded randomness"
    assert "train_test_split" in cause["text"]
    assert cause["advice"] == "give it one: random_state=0"


def test_a_cell_that_never_ends_is_stopped(folder: Path) -> None:
    """After the time it is given."""
    code, report, text = check(folder, "slow", "--timeout", "2")
    assert code == 1
    assert report["cells"][1]["cause"]["kind"] == "never ends"
    assert "Traceback" not in text


def test_pictures_are_compared_by_their_look(folder: Path) -> None:
    """They are the only output here."""
    code, report, _ = check(folder, "plots_only")
    assert (code, outputs(report)) == (0, ["none", "equal", "equal"])


def write(path: Path, *sources: str) -> None:
    """Write a notebook with these code cells."""
    cells: list[dict[str, Any]] = [
        {
            "cell_type": "code",
            "id": f"c{n}",
            "metadata": {},
            "outputs": [],
            "execution_count": None,
            "source": text,
        }
        for n, text in enumerate(sources)
    ]
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))


def test_what_it_does_outside_and_what_it_asks_is_seen(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file outside of its folder, a host, and a question to somebody who is not there."""
    # Temporary files do not count, and all of these are: another folder is made the temporary one.
    monkeypatch.setenv("TMPDIR", str(tmp_path_factory.mktemp("temporary")))
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "written.txt"
    write(
        folder / "outside.ipynb",
        f"open({str(elsewhere)!r}, 'w').close()",
        "import socket\ntry:\n    socket.getaddrinfo('example.invalid', 80)\nexcept OSError:\n    pass",
        "name = input('who? ')",
    )
    code, report, text = check(folder, "outside")
    assert code == 1
    assert (report["written"], report["hosts"]) == ([str(elsewhere)], ["example.invalid"])
    assert report["cells"][2]["cause"]["kind"] == "needs input"
    assert "It wrote outside of its folder" in text


def test_a_process_that_dies_is_said(folder: Path) -> None:
    """As one that wants too much memory does."""
    write(folder / "dies.ipynb", "import os\nos._exit(9)", "1")
    code, report, _ = check(folder, "dies")
    assert (code, report["cells"][0]["cause"]["kind"]) == (1, "process died")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"cells": ', "is no notebook"),
        ("[1, 2]", "is no notebook"),
        ('{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}', "has no code"),
        (
            FOREIGN,
            "is written in R",
        ),
        (None, "There is no notebook"),
    ],
)
def test_what_is_no_notebook_is_refused(folder: Path, content: str | None, message: str) -> None:
    """With what it is instead; the exit code is not that of a verdict."""
    if content is not None:
        (folder / "bad.ipynb").write_text(content)
    command = [sys.executable, "-m", "loopwright", "notebook", "check", "bad.ipynb"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == (1 if content is None else 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
