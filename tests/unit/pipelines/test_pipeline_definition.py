"""The two decorators, outside of any run."""

import functools
import subprocess
import sys
from typing import Annotated, Any

import pytest

import loopwright as lw
from loopwright.errors import InvalidInput
from loopwright.pipelines import Pipeline, Step, pipeline, step
from loopwright.pipelines.definition import Options


@step
def double(number: int) -> int:
    """Double a number."""
    return 2 * number


@pipeline
def train(
    rows: int, depth: int = 6, rate: float = 0.1, name: str = "a", fast: bool = False
) -> dict[str, Any]:
    """Train something."""
    return {"rows": double(rows), "depth": depth, "rate": rate, "name": name, "fast": fast}


def test_a_step_outside_of_a_pipeline_is_the_function() -> None:
    """A decorated step is called as before, keeps its name and text, and raises what it raises."""
    assert double(4) == double(number=4) == 8
    facts = (getattr(double, "__name__", ""), double.__doc__, double.name)
    assert facts == ("double", "Double a number.", "double")
    with pytest.raises(TypeError):
        double()  # type: ignore[call-arg]


def test_decorators_take_arguments_or_none() -> None:
    """Bare or with arguments, a decorator gives a step or a pipeline with the name it was given."""
    named = step(name="twice", retries=2, timeout_s=1.5)(double.function)
    assert isinstance(named, Step)
    assert (named.name, named.options, named(3)) == ("twice", Options(retries=2, timeout_s=1.5), 6)
    other = pipeline(name="nightly")(train.function)
    assert isinstance(other, Pipeline)
    assert (other.name, other.entrypoint) == ("nightly", f"{__name__}:train")
    assert lw.step is step
    assert lw.pipeline is pipeline


def test_decorating_loads_neither_mlflow_nor_prefect() -> None:
    """Importing a module with pipelines costs no import of the heavy libraries."""
    program = (
        "import sys, loopwright as lw\n"
        "@lw.step\n"
        "def one() -> int: return 1\n"
        "@lw.pipeline\n"
        "def all_of_it() -> int: return one()\n"
        "assert one() == 1\n"
        "print(sorted({'mlflow', 'prefect', 'pandas', 'sklearn'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_parameters_are_bound_with_their_defaults() -> None:
    """What is not given has its default; an integer is a float where one is wanted."""
    assert train.bind({"rows": 5, "rate": 1}) == {
        "rows": 5,
        "depth": 6,
        "rate": 1,
        "name": "a",
        "fast": False,
    }


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"rows": 1, "dept": 3}, "no parameter 'dept'. Did you mean 'depth'? Parameters: rows, depth"),
        ({"rows": 1, "zzz": 3}, "no parameter 'zzz'. Parameters: rows, depth"),
        ({}, "missing a required argument: 'rows'"),
        ({"rows": "many"}, "'rows' of the pipeline 'train' is 'many', of type str. It takes int"),
        ({"rows": 1.5}, "of type float. It takes int"),
        ({"rows": True}, "of type bool. It takes int"),
        ({"rows": 1, "fast": 1}, "of type int. It takes bool"),
        ({"rows": 1, "name": None}, "of type NoneType. It takes str"),
    ],
)
def test_wrong_parameters_are_named(parameters: dict[str, Any], message: str) -> None:
    """An unknown name gives the nearest, a missing or mistyped value what it should be."""
    with pytest.raises(InvalidInput) as caught:
        train.bind(parameters)
    assert message in str(caught.value)


def test_a_default_is_the_authors_own() -> None:
    """None as the default of an `int`, and annotations that are no plain type, are left alone."""

    @pipeline
    def loose(
        depth: int = None,  # type: ignore[assignment]  # noqa: RUF013
        marked: Annotated[int, ["unhashable"]] = 3,
        either: int | None = None,
        unknown: "NoSuchType" = 1,  # type: ignore[name-defined]  # noqa: F821
    ) -> None: ...

    assert loose.bind({"marked": "x", "either": "y"}) == {
        "depth": None,
        "marked": "x",
        "either": "y",
        "unknown": 1,
    }


async def _coroutine() -> None: ...


def _generator() -> Any:
    yield 1


@pytest.mark.parametrize("wrong", [_coroutine, _generator, "train", 3, functools.partial(print)])
@pytest.mark.parametrize("decorate", [step, pipeline])
def test_what_cannot_be_decorated_is_refused(decorate: Any, wrong: Any) -> None:
    """Coroutines, generators and things without a name are refused with what is valid."""
    with pytest.raises(InvalidInput, match="Valid: a plain function"):
        decorate(wrong)


def test_a_function_behind_another_decorator_is_fine() -> None:
    """A cached function is a step like any other."""
    assert step(functools.cache(lambda: 5))() == 5


@pytest.mark.parametrize(
    "function", [lambda *rows: rows, lambda **names: names, eval("lambda rows, /: rows")]
)
def test_a_pipeline_names_its_parameters(function: Any) -> None:
    """Parameters without names could not be repeated from a run's record."""
    with pytest.raises(InvalidInput, match="names its parameters"):
        pipeline(function)


@pytest.mark.parametrize(
    "options", [{"retries": -1}, {"timeout_s": 0}, {"retry_delay_s": -2.0}, {"concurrency": 0}]
)
def test_impossible_options_are_refused(options: dict[str, Any]) -> None:
    """Negative retries and no time at all are refused with what is valid."""
    with pytest.raises(InvalidInput, match="retries and retry_delay_s are 0 or more"):
        step(**options)


def test_the_code_digest_follows_the_code_alone() -> None:
    """Comments and formatting do not change a step's digest; its code does."""

    def first(x: int) -> int:
        return x + 1

    one = step(first).code_digest

    def first(x: int) -> int:  # type: ignore[no-redef]
        # another comment
        return x + 1

    two = step(first).code_digest

    def first(x: int) -> int:  # type: ignore[no-redef]
        return x + 2

    assert one == two != step(first).code_digest
    assert len(one) == 64
