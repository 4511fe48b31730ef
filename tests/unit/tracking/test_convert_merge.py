"""Converting again: what the user has changed stays, the rest follows the notebook."""

import pytest

from loopwright.errors import Conflict, InvalidInput
from loopwright.tracking.notebooks.convert.merge import Merged, digest, merge
from loopwright.tracking.notebooks.convert.source import Block

LOAD = '@lw.step\ndef load(data: str):\n    """Load."""\n    df = read(data)\n    return df'
CLEAN = "@lw.step\ndef clean(df):\n    df = df.dropna()\n    return df"


def written(load: str = LOAD, clean: str = CLEAN, imports: str = "import loopwright as lw") -> list[Block]:
    """Return the pieces as a conversion writes them."""
    return [
        Block("(docstring)", '"""Doc."""'),
        Block("(imports)", imports),
        Block("load", load),
        Block("clean", clean),
    ]


def again(current: str, fresh: list[Block], **options: list[str]) -> Merged:
    """Merge into a file."""
    return merge(current, fresh, "wine.ipynb", ["# Left out:", "#   1: df.head()"], **options)


FIRST = again("", written()).text


def what(merged: Merged) -> dict[str, str]:
    """Return what became of each piece."""
    return {change.name: change.what for change in merged.changes}


def test_nothing_changed_gives_the_same_file() -> None:
    """Run twice, the file stays as it is, byte for byte."""
    assert again(FIRST, written()).text == FIRST


def test_an_untouched_function_follows_the_notebook() -> None:
    """What the user has not changed is written anew."""
    done = again(FIRST, written(clean=CLEAN.replace("dropna", "ffill")))
    assert what(done)["clean"] == "updated"
    assert "ffill" in done.text


def test_a_changed_function_is_kept() -> None:
    """The user's version stays, and a change of the notebook in the same place is said once."""
    mine = FIRST.replace("df.dropna()", "df.dropna(how='all')")
    assert what(again(mine, written()))["clean"] == "kept"
    done = again(mine, written(clean=CLEAN.replace("dropna", "ffill")))
    assert "how='all'" in done.text
    assert "ffill" not in done.text
    assert [change.conflict for change in done.changes if change.name == "clean"] == [True]


def test_a_changed_comment_counts() -> None:
    """A comment that was added is an edit."""
    mine = FIRST.replace("    df = df.dropna()", "    # holes are errors\n    df = df.dropna()")
    assert "# holes are errors" in again(mine, written()).text


def test_formatting_does_not_count() -> None:
    """A formatter's work is no edit: the function still follows the notebook."""
    formatted = FIRST.replace("def clean(df):", "def clean(\n    df,\n):")
    assert what(again(formatted, written()))["clean"] == "same"
    assert "ffill" in again(formatted, written(clean=CLEAN.replace("dropna", "ffill"))).text
    assert digest("x = {'a': 1}") == digest('x = {\n    "a": 1,\n}')


def test_take_gives_up_an_edit() -> None:
    """A function that is named is written anew although it was changed."""
    mine = FIRST.replace("df.dropna()", "df.dropna(how='all')")
    assert "how='all'" not in again(mine, written(), take=["clean"]).text


def test_the_users_own_functions_and_imports_stay() -> None:
    """A function that was added stays behind the one it stood behind, with its imports."""
    mine = FIRST.replace(
        "@lw.step\ndef clean",
        "import math\n\n\ndef root(x):\n    return math.sqrt(x)\n\n\n@lw.step\ndef clean",
    )
    done = again(mine, written(clean=CLEAN.replace("dropna", "ffill")))
    assert done.text.index("def load") < done.text.index("def root") < done.text.index("def clean")
    assert "import math" in done.text.partition("def load")[0]
    assert what(done)["root"] == "yours"
    compile(done.text, "pipelines.py", "exec")


def test_a_step_that_is_gone_goes_unless_it_was_changed() -> None:
    """A function that the notebook no longer gives is removed, and kept when it holds an edit."""
    assert "def clean" not in again(FIRST, written()[:3]).text
    mine = FIRST.replace("df.dropna()", "df.dropna(how='all')")
    assert "how='all'" in again(mine, written()[:3]).text


@pytest.mark.parametrize("text", ["print('mine')\n", FIRST.replace("wine.ipynb", "beer.ipynb")])
def test_other_files_are_not_touched(text: str) -> None:
    """A file that a person wrote, or that comes from another notebook, is refused."""
    with pytest.raises(Conflict, match="there already"):
        again(text, written())


def test_a_file_that_is_no_python_is_refused() -> None:
    """An edit that does not parse cannot be merged; the line is named."""
    with pytest.raises(InvalidInput, match="line"):
        again(FIRST.replace("def load(", "def load(("), written())
