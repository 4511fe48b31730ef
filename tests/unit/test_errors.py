"""The error tree and its messages."""

import pytest

from loopwright import errors
from loopwright.errors import InvalidInput, LoopwrightError, NotFound, listing, nearest


def test_not_found_names_the_nearest_and_the_known() -> None:
    """A wrong name is answered with the closest known one and the list of all."""
    error = NotFound.among("model", "taksi", ["taxi", "bike"], hint="loopwright model list")
    assert "Did you mean 'taxi'?" in str(error)
    assert "Known: taxi, bike." in str(error)
    assert str(error).endswith("Try: loopwright model list")


def test_no_guess_when_nothing_is_close() -> None:
    """A name unlike all known ones is not guessed at."""
    assert nearest("zzz", ["taxi", "bike"]) is None
    assert "Did you mean" not in str(NotFound.among("model", "zzz", ["taxi"]))


def test_listing_is_bounded_and_says_how_many_more() -> None:
    """Long lists are cut, and the rest is counted."""
    assert listing(range(15), most=2) == "0, 1 and 13 more"
    assert listing([]) == "(none)"


def test_error_body_is_the_same_for_all_interfaces() -> None:
    """The JSON form holds the code, the fact, what is valid, the next step and the data."""
    body = InvalidInput("Row 3 is wrong.", valid="Right is 1.", hint="look", row=3).to_dict()
    assert body == {
        "error": {
            "code": "invalid_input",
            "message": "Row 3 is wrong.",
            "valid": "Right is 1.",
            "hint": "look",
            "row": 3,
        }
    }


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name[0].isupper()])
def test_every_error_has_a_status_and_an_exit_code(name: str) -> None:
    """Each class of the tree can be shown by the HTTP interfaces and ends a command with a code of its own."""
    kind = getattr(errors, name)
    assert issubclass(kind, LoopwrightError)
    assert 400 <= kind.http_status < 600
    assert kind.exit_code in {1, 2, 3}


def test_the_tree_in_the_docstring_is_complete() -> None:
    """The tree drawn at the top of the module names each class."""
    assert errors.__doc__ is not None
    for name in errors.__all__:
        if name[0].isupper():
            assert name in errors.__doc__
