"""What all commands print."""

import pytest
from rich.tree import Tree

from loopwright.cli.output import emit_table, emit_whole


def test_a_row_that_is_piped_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Programs read lines: nothing is folded to the width of a terminal that is not there."""
    emit_table("", [{"run": "a" * 32, "what": "b" * 300, "rows": None}], empty="")
    header, row = capsys.readouterr().out.rstrip().splitlines()
    assert header.split() == ["run", "what", "rows"]
    assert row.split() == ["a" * 32, "b" * 300, "-"]


def test_no_rows_say_what_is_next(capsys: pytest.CaptureFixture[str]) -> None:
    """An empty table is a hint."""
    emit_table("", [], empty="No run yet. Next: loopwright pipeline run")
    assert capsys.readouterr().out == "No run yet. Next: loopwright pipeline run\n"


def test_nothing_of_a_deep_tree_is_cut_off(capsys: pytest.CaptureFixture[str]) -> None:
    """However deep a branch lies, its line is there as a whole."""
    tree = branch = Tree("prediction")
    for depth in range(12):
        branch = branch.add(f"{depth} {'h' * 64}")
    emit_whole(tree)
    lines = capsys.readouterr().out.rstrip().splitlines()
    assert [line.rstrip().endswith("h" * 64) for line in lines] == [False] + [True] * 12
