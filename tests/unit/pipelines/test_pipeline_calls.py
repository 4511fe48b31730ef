"""What calling a pipeline does inside of a run and outside of a project."""

from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from loopwright.config import PROJECT_VARIABLE
from loopwright.errors import InvalidInput, NotFound
from loopwright.pipelines import Step, pipeline, step
from loopwright.pipelines.definition import running

if TYPE_CHECKING:
    from decimal import Decimal


@step
def add(number: int) -> int:
    """Add one."""
    return number + 1


@pipeline
def inner(number: int, times: int = 2) -> int:
    """Add one so many times."""
    for _ in range(times):
        number = add(number)
    return number


@pipeline
def priced(rows: int, rate: float = 0.5, price: "Decimal | None" = None) -> "Decimal | None":
    """Take annotations that only a type checker can resolve."""
    return price


class Inline:
    """A pipeline run that carries out its steps at once and keeps their names."""

    def __init__(self) -> None:
        self.steps: list[str] = []

    def call(self, called: Step[Any, Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Run a step."""
        self.steps.append(called.name)
        return called.function(*arguments, **named)

    def submit(
        self, called: Step[Any, Any], arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> "Future[Any]":
        """Run a step at once."""
        future: Future[Any] = Future()
        future.set_result(self.call(called, arguments, named))
        return future

    def map(self, called: Step[Any, Any], items: list[Any], named: dict[str, Any]) -> list[Any]:
        """Run a step for each item."""
        return [self.call(called, (item,), named) for item in items]


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a folder that is no project."""
    monkeypatch.delenv(PROJECT_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_pipeline_in_a_run_is_a_plain_call(nowhere: Path) -> None:
    """It needs no project and starts no run of its own: its steps are steps of the run it is called in."""
    run = Inline()
    token = running.set(run)
    try:
        assert inner(3) == 5
    finally:
        running.reset(token)
    assert run.steps == ["add", "add"]


def test_a_pipelines_function_is_the_plain_call_outside_of_a_run(nowhere: Path) -> None:
    """What was decorated stays reachable, for tests of it, and runs without project and servers."""
    assert inner.function(3, times=4) == 7


def test_a_pipeline_outside_of_a_project_says_so(nowhere: Path) -> None:
    """Calling one is a tracked run, which needs a project; nothing is left behind in the folder."""
    with pytest.raises(NotFound, match=r"There is no loopwright\.toml in "):
        inner(3)
    assert list(nowhere.iterdir()) == []


@pytest.mark.parametrize(
    ("args", "named", "message"),
    [
        ((3,), {"time": 1}, "no parameter 'time'. Did you mean 'times'?"),
        ((), {}, "missing a required argument: 'number'"),
        ((1, 2, 3), {}, "too many positional arguments"),
        ((1,), {"number": 2}, "multiple values for argument 'number'"),
        (("3",), {}, "'number' of the pipeline 'inner' is '3', of type str. It takes int"),
    ],
)
def test_a_wrong_call_is_refused_before_anything_starts(
    nowhere: Path, args: tuple[Any, ...], named: dict[str, Any], message: str
) -> None:
    """The parameters are judged first: not even a project is looked for."""
    with pytest.raises(InvalidInput) as caught:
        inner(*args, **named)
    assert message in str(caught.value)


def test_one_annotation_for_type_checkers_does_not_cost_the_others_their_check() -> None:
    """Plain types are checked although another annotation cannot be resolved when the program runs."""
    with pytest.raises(InvalidInput, match=r"is 'many', of type str\. It takes int"):
        priced.bind({"rows": "many"})
    assert priced.bind({"rows": 1, "price": "any"}) == {"rows": 1, "rate": 0.5, "price": "any"}


def test_annotations_kept_as_texts_are_checked_too() -> None:
    """The same holds in a module whose annotations are all texts."""
    scope: dict[str, Any] = {"pipeline": pipeline, "__name__": "kept"}
    text = "@pipeline\ndef train(rows: int, table: str = 'x') -> Missing: ...\n"
    exec(f"from __future__ import annotations\n{text}", scope)
    with pytest.raises(InvalidInput, match=r"is 5, of type int\. It takes str"):
        scope["train"].bind({"rows": 1, "table": 5})
