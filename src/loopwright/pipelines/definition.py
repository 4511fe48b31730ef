"""The two decorators. A decorated function stays a function: a step called outside of a pipeline simply runs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Generic, ParamSpec, Protocol, TypeVar, overload

from loopwright.errors import InvalidInput, listing, nearest
from loopwright.lineage.context import is_plain

__all__ = ["Options", "Pipeline", "Step", "pipeline", "resolved", "running", "step"]

P = ParamSpec("P")
R = TypeVar("R")

#: Annotations whose values are checked before a run starts, and what they take.
_CHECKED: dict[Any, tuple[type, ...]] = {bool: (bool,), int: (int,), float: (int, float), str: (str,)}
_PLAIN = {kind.__name__: kind for kind in _CHECKED}


class Running(Protocol):
    """What a step needs of the pipeline run it is called in."""

    def call(self, step: Step[Any, Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Run the step as a part of the pipeline run."""

    def submit(self, step: Step[Any, Any], arguments: tuple[Any, ...], named: dict[str, Any]) -> Future[Any]:
        """Start the step beside what goes on, and return at once."""

    def map(self, step: Step[Any, Any], items: list[Any], named: dict[str, Any]) -> list[Any]:
        """Run the step for each item, several at a time, and return the results in the order of the items."""


#: The pipeline run the code is in; None outside of pipelines.
running: ContextVar[Running | None] = ContextVar("loopwright_pipeline_run", default=None)


@dataclass(frozen=True, slots=True)
class Options:
    """How a step is run; see `step` for what each means."""

    retries: int = 0
    retry_delay_s: float = 0.0
    timeout_s: float | None = None
    cache: bool = False
    keep: bool = True
    concurrency: int | None = None

    def __post_init__(self) -> None:
        wrong_times = self.retry_delay_s < 0 or (self.timeout_s is not None and self.timeout_s <= 0)
        wrong_counts = self.retries < 0 or (self.concurrency is not None and self.concurrency < 1)
        if wrong_times or wrong_counts:
            raise InvalidInput(
                f"A step cannot have retries={self.retries}, retry_delay_s={self.retry_delay_s}, "
                f"timeout_s={self.timeout_s} and concurrency={self.concurrency}.",
                valid="retries and retry_delay_s are 0 or more, timeout_s is more than 0, concurrency 1 or more.",
            )


class Step(Generic[P, R]):
    """A function that is seen as one task of a Prefect flow when a pipeline calls it."""

    def __init__(self, function: Callable[P, R], name: str, options: Options) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.name = name
        self.options = options

    @functools.cached_property
    def code_digest(self) -> str:
        """The digest of the function's code as it was imported."""
        from loopwright.lineage.code import code_digest

        return code_digest(self.function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the function, as a task when a pipeline calls it."""
        run = running.get()
        if run is None:
            return self.function(*resolved(args), **resolved(kwargs))
        result: R = run.call(self, args, kwargs)
        return result

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Start the step beside what goes on; `result()` of what this returns waits for it.

        The future can be given to another step as an argument; that step gets the result. Outside of a pipeline the
        function runs at once.
        """
        run = running.get()
        if run is not None:
            return run.submit(self, args, kwargs)
        future: Future[R] = Future()
        try:
            future.set_result(self(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - it is the caller's, who gets it from `result()`
            future.set_exception(error)
        return future

    def map(self, items: Iterable[Any], /, **same: Any) -> list[R]:
        """Run the step for each item, several at a time, and return the results in the order of the items.

        Parameters
        ----------
        items
            Each is the first argument of one call.
        same
            Arguments that are the same for all calls.
        """
        run = running.get()
        if run is not None:
            return run.map(self, list(items), same)
        return [self.function(item, **same) for item in items]

    def __repr__(self) -> str:
        return f"<step {self.name}>"


class Pipeline(Generic[P, R]):
    """A function that runs as one Prefect flow run inside one MLflow run.

    `entrypoint` names it as `loopwright.toml` does: ``<module>:<function>``.
    """

    def __init__(self, function: Callable[P, R], name: str) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.name = name
        self.entrypoint = f"{function.__module__}:{function.__qualname__}"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run the pipeline of the project in the current folder and return what the function returns.

        Inside of `loopwright.plain` it is a plain function call.
        """
        if running.get() is not None or is_plain():
            # A pipeline in a pipeline is a part of it: its steps belong to the outer run.
            return self.function(*args, **kwargs)
        from loopwright.config import Project
        from loopwright.pipelines.execution import execute

        bound = self._bind(args, kwargs)
        result: R = execute(Project.find(), self, bound, trigger="manual").value
        return result

    def __repr__(self) -> str:
        return f"<pipeline {self.entrypoint}>"

    @property
    def signature(self) -> inspect.Signature:
        """The function's signature, with its annotations resolved where that is possible."""
        try:
            return inspect.signature(self.function, eval_str=True)
        except (NameError, TypeError, SyntaxError, AttributeError):
            plain = inspect.signature(self.function)
        # A name that only type checkers import leaves all annotations as texts; the plain ones are still known.
        known = [
            parameter.replace(annotation=_PLAIN.get(parameter.annotation, parameter.annotation))
            if isinstance(parameter.annotation, str)
            else parameter
            for parameter in plain.parameters.values()
        ]
        return plain.replace(parameters=known)

    def bind(self, parameters: Mapping[str, Any]) -> dict[str, Any]:
        """Check parameters given by name and add the defaults.

        Raises
        ------
        InvalidInput
            An unknown or a missing parameter, or a value of another type than a plain annotation says.
        """
        return self._bind((), dict(parameters))

    def _bind(self, args: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Any]:
        signature = self.signature
        known = list(signature.parameters)
        for name in named:
            if name not in known:
                close = nearest(name, known)
                guess = f"Did you mean {close!r}? " if close else ""
                raise InvalidInput(
                    f"The pipeline {self.name!r} has no parameter {name!r}.",
                    valid=f"{guess}Parameters: {listing(known)}.",
                    parameter=name,
                )
        try:
            bound = signature.bind(*args, **named)
        except TypeError as error:
            raise InvalidInput(
                f"The pipeline {self.name!r} cannot be called so: {error}.",
                valid=f"It is {self.name}{signature}.",
            ) from None
        # What is given is checked; a default is the author's own, such as None for an `int`.
        for name, value in bound.arguments.items():
            self._check(name, value, signature.parameters[name].annotation)
        bound.apply_defaults()
        return dict(bound.arguments)

    def _check(self, name: str, value: Any, annotation: Any) -> None:
        kinds = _CHECKED.get(annotation) if isinstance(annotation, type) else None
        wrong_bool = isinstance(value, bool) and annotation is not bool
        if kinds and (wrong_bool or not isinstance(value, kinds)):
            raise InvalidInput(
                f"The parameter {name!r} of the pipeline {self.name!r} is {value!r}, of type {type(value).__name__}.",
                valid=f"It takes {annotation.__name__}.",
                parameter=name,
            )


def resolved(value: Any) -> Any:
    """Return a value with the results in place of futures, looking into plain containers."""
    if isinstance(value, Future):
        return value.result()
    if type(value) in {list, tuple} and any(isinstance(item, Future) for item in value):
        return type(value)(item.result() if isinstance(item, Future) else item for item in value)
    if type(value) is dict and any(isinstance(item, Future) for item in value.values()):
        return {key: item.result() if isinstance(item, Future) else item for key, item in value.items()}
    return value


@overload
def step(fn: Callable[P, R]) -> Step[P, R]: ...
@overload
def step(
    fn: None = None,
    *,
    name: str | None = None,
    retries: int = 0,
    retry_delay_s: float = 0.0,
    timeout_s: float | None = None,
    cache: bool = False,
    keep: bool = True,
    concurrency: int | None = None,
) -> Callable[[Callable[P, R]], Step[P, R]]: ...
def step(
    fn: Callable[..., Any] | None = None,
    *,
    name: str | None = None,
    retries: int = 0,
    retry_delay_s: float = 0.0,
    timeout_s: float | None = None,
    cache: bool = False,
    keep: bool = True,
    concurrency: int | None = None,
) -> Any:
    """Make a function a step of pipelines.

    Parameters
    ----------
    name
        What it is called in Prefect and in the lineage; by default the function's name.
    retries
        How often it is tried again after it raised.
    retry_delay_s
        Seconds before each new try.
    timeout_s
        After so many seconds it counts as failed; None waits for ever.
    cache
        Whether a later run may use the result again when nothing has changed that it depends on: the code of the step
        and of the project's functions it uses, the versions of their packages, the arguments, and the files that it
        reads with `loopwright.dataset`. Only for steps that do nothing else than compute their result.
    keep
        Whether the result is kept until the run has completed, so that a failed run can be resumed behind it.
    concurrency
        How many calls of this step go on at a time on this machine, over all runs of the project; None for no limit.

    Examples
    --------
    >>> @step
    ... def double(number: int) -> int:
    ...     return 2 * number
    >>> double(4)
    8
    >>> double.map([1, 2, 3])
    [2, 4, 6]
    """
    options = Options(retries, retry_delay_s, timeout_s, cache, keep, concurrency)

    def decorate(function: Callable[..., Any]) -> Step[Any, Any]:
        _refuse_async(function, "step")
        return Step(function, name or function.__name__, options)

    return decorate(fn) if fn is not None else decorate


@overload
def pipeline(fn: Callable[P, R]) -> Pipeline[P, R]: ...
@overload
def pipeline(fn: None = None, *, name: str | None = None) -> Callable[[Callable[P, R]], Pipeline[P, R]]: ...
def pipeline(fn: Callable[..., Any] | None = None, *, name: str | None = None) -> Any:
    """Make a function a pipeline: calling it is one tracked run.

    Parameters
    ----------
    name
        What it is called in Prefect and MLflow; by default the function's name.
    """

    def decorate(function: Callable[..., Any]) -> Pipeline[Any, Any]:
        _refuse_async(function, "pipeline")
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY}:
                raise InvalidInput(
                    f"The pipeline {function.__name__!r} has the parameter {parameter}.",
                    valid="A pipeline names its parameters, so that a run can be repeated from its record.",
                )
        return Pipeline(function, name or function.__name__)

    return decorate(fn) if fn is not None else decorate


def _refuse_async(function: Callable[..., Any], what: str) -> None:
    kinds = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    named = callable(function) and hasattr(function, "__name__")
    if not named or any(kind(function) for kind in kinds):
        raise InvalidInput(
            f"{function!r} cannot be a {what}.",
            valid="Valid: a plain function with a name, neither async nor a generator.",
        )
