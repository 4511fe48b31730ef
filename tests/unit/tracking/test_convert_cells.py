"""Reading notebooks: magics, comments, marks, and what is refused."""

import json
from pathlib import Path

import pytest
from written_notebooks import write_notebook

from loopwright.errors import InvalidInput, NotFound
from loopwright.tracking.notebooks.convert.cells import Cell, read


def only_cell(tmp_path: Path, source: str) -> Cell:
    """Return the cell of a notebook with this code."""
    return read(write_notebook(tmp_path / "n.ipynb", "import os", source)).cells[1]


def test_magics_are_set_aside(tmp_path: Path) -> None:
    """Magics, shell commands and questions are no Python; a timed statement is."""
    cell = only_cell(
        tmp_path, "%matplotlib inline\n!pip install \\\n  x\nfiles = !ls\n%time a = 1\nos.getcwd?\nb = 7 % 3"
    )
    assert [item.text for item in cell.statements] == ["a = 1", "b = 7 % 3"]
    assert len(cell.foreign) == 6


def test_cell_magics(tmp_path: Path) -> None:
    """A timed cell keeps its code; a cell in another language has none."""
    assert [item.text for item in only_cell(tmp_path, "%%time\na = 1").statements] == ["a = 1"]
    assert only_cell(tmp_path, "%%bash\nrm x").statements == ()


def test_a_percent_sign_in_python_is_no_magic(tmp_path: Path) -> None:
    """A line that continues a remainder is Python."""
    assert len(only_cell(tmp_path, "a = (7\n  % 3)").statements) == 1


def test_comments_stay_with_their_statement(tmp_path: Path) -> None:
    """Comments above and beside a statement belong to it; statements on one line are told apart."""
    cell = only_cell(tmp_path, "# first\na = 1  # one\n\n# second\nb = 2; c = 'ä'; d = 3;\n# last")
    assert [item.text for item in cell.statements] == [
        "# first\na = 1  # one",
        "# second\nb = 2",
        "c = 'ä'",
        "d = 3",
    ]


def test_step_mark_and_heading(tmp_path: Path) -> None:
    """A comment on the first line names the step; the heading above a cell is its title."""
    path = write_notebook(tmp_path / "n.ipynb", "# ## Read *all* wines", "# step: features\na = 1")
    cell = read(path).cells[0]
    assert (cell.step, cell.heading) == ("features", "Read all wines")
    assert cell.statements[0].text == "a = 1"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "no JSON"),
        ('{"a": 1}', "no cells"),
        ('{"cells": []}', "no Python code"),
        (json.dumps({"cells": [], "metadata": {"kernelspec": {"language": "R"}}}), "written in r"),
    ],
)
def test_what_is_no_notebook_is_refused(tmp_path: Path, content: str, says: str) -> None:
    """The message says what the file is instead."""
    (tmp_path / "n.ipynb").write_text(content)
    with pytest.raises(InvalidInput, match=says):
        read(tmp_path / "n.ipynb")


@pytest.mark.parametrize(
    ("source", "says"),
    [("name = input('who?')", "asks a person"), ("a = (", "Cell 2 .* no Python"), ("await go()", "awaits")],
)
def test_cells_that_cannot_be_steps_are_named(tmp_path: Path, source: str, says: str) -> None:
    """A cell that asks for input, has no valid Python or awaits is refused with its number."""
    with pytest.raises(InvalidInput, match=says) as caught:
        only_cell(tmp_path, source)
    assert caught.value.attrs["cell"] == 2


def test_a_missing_notebook_names_the_nearest(tmp_path: Path) -> None:
    """A typo in the file's name is answered with the file that is there."""
    write_notebook(tmp_path / "wine.ipynb", "a = 1")
    with pytest.raises(NotFound, match=r"wine\.ipynb"):
        read(tmp_path / "wines.ipynb")
