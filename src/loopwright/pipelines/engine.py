"""The one file that runs Prefect: a pipeline as a flow, its steps as tasks.

Prefect is imported when the first pipeline runs. Settings are given for the time of a run and not left behind: what a
process does with Prefect on its own keeps its own settings.
"""

import contextlib
import functools
import logging
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar, copy_context
from pathlib import Path
from typing import Any
from uuid import UUID

from loopwright.pipelines.definition import Pipeline, Step

__all__ = ["run_flow", "run_step"]

#: Set by users who do want to see Prefect's own log lines in their terminal.
_LOG_VARIABLES = ("PREFECT_LOGGING_LEVEL", "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL")

_settings: dict[str, Any] = {}
_clients: dict[str, Any] = {}
_body: ContextVar[Callable[[str], Any]] = ContextVar("loopwright_flow_body")


class _Call:
    """One call of a step. Prefect walks through plain arguments, all million items of a list; not through this."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._call = functools.partial(function, *args, **kwargs)
        self._text = ", ".join(
            [*map(_short, args), *(f"{key}={_short(value)}" for key, value in kwargs.items())]
        )

    def __call__(self) -> Any:
        return self._call()

    def __repr__(self) -> str:
        return f"({self._text})"


def _short(value: Any) -> str:
    if hasattr(value, "shape"):
        return f"<{type(value).__name__} {value.shape}>"
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def run_step(step: Step[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Run a step as a task of the flow that runs in this thread."""
    return _task(step)(_Call(step.function, args, kwargs))


def _task(step: Step[Any, Any]) -> Any:
    if step.task is None:
        import prefect
        from prefect.cache_policies import NO_CACHE

        def body(arguments: Callable[[], Any]) -> Any:
            return arguments()

        body.__name__ = body.__qualname__ = step.name
        body.__doc__ = step.function.__doc__
        # Its default cache key is a hash of all inputs, whole frames among them, and never hits between two runs.
        step.task = prefect.Task(
            body,
            name=step.name,
            retries=step.retries,
            timeout_seconds=step.timeout_s,
            cache_policy=NO_CACHE,
            persist_result=False,
        )
    return step.task


def run_flow(
    pipeline: Pipeline[Any, Any],
    body: Callable[[str], Any],
    parameters: dict[str, Any],
    tags: list[str],
    flow_run_id: str = "",
) -> Any:
    """Run a pipeline as a flow and return what `body` returns.

    Parameters
    ----------
    body
        Called inside the flow with the flow run's id.
    parameters
        Shown in Prefect.
    tags
        Added to the flow run.
    flow_run_id
        A flow run that was scheduled and is to be run now; empty for a new one.
    """
    import prefect
    from prefect.flow_engine import run_flow as prefect_run_flow

    with _quiet(), _prefect():
        flow = _flow(pipeline)
        token = _body.set(body)
        try:
            with prefect.tags(*tags):
                flow_run = _scheduled(flow_run_id, tags) if flow_run_id else None
                return prefect_run_flow(flow, flow_run=flow_run, parameters=parameters)
        finally:
            _body.reset(token)


def _scheduled(flow_run_id: str, tags: list[str]) -> Any:
    """Tag a scheduled flow run; one that is new gets its tags when it is made."""
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        flow_run = client.read_flow_run(UUID(flow_run_id))
        client.update_flow_run(flow_run.id, tags={*flow_run.tags, *tags})
        return client.read_flow_run(flow_run.id)


def _flow(pipeline: Pipeline[Any, Any]) -> Any:
    if pipeline.flow is None:
        import prefect
        from prefect.context import FlowRunContext, TagsContext

        @functools.wraps(pipeline.function)
        def body(*_args: Any, **_kwargs: Any) -> Any:
            context = FlowRunContext.get()
            assert context is not None
            assert context.flow_run is not None
            # Tags are for the flow run: on tasks, Prefect would ask for a concurrency slot for each.
            with TagsContext(current_tags=set()):
                return _body.get()(str(context.flow_run.id))

        pipeline.flow = prefect.Flow(
            body,
            name=pipeline.name,
            validate_parameters=False,
            persist_result=False,
            # Named although nothing is stored: else each run asks the server for its default.
            result_storage=Path(os.environ["PREFECT_HOME"]) / "storage",
            log_prints=False,
        )
    return pipeline.flow


@contextlib.contextmanager
def _prefect() -> Iterator[None]:
    """Point Prefect at the project's server, and leave out what only costs time here.

    The heartbeat: its thread is joined when a flow ends and adds a second to each, and our runner notices dead
    processes by their pid. A client for each run: loading the certificates takes longer than a step. Settings and
    client are made once for each server and kept.
    """
    from prefect.context import SettingsContext, SyncClientContext, get_settings_context
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY

    outer = get_settings_context()
    url = os.environ["PREFECT_API_URL"]
    if url not in _settings:
        _settings[url] = outer.settings.copy_with_update(
            updates={PREFECT_API_URL: url, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}
        )
    with SettingsContext(profile=outer.profile, settings=_settings[url]):
        if url not in _clients:
            # Entered in a copy of the context, so that it does not stay behind in the caller's.
            _clients[url] = copy_context().run(SyncClientContext().__enter__)
        token = SyncClientContext.__var__.set(_clients[url])
        try:
            yield
        finally:
            SyncClientContext.__var__.reset(token)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Prefect's lines about each task out of the terminal; they are on the flow run's page."""
    loggers = [logging.getLogger(name) for name in ("prefect.flow_runs", "prefect.task_runs")]
    before = [logger.propagate for logger in loggers]
    if not any(name in os.environ for name in _LOG_VARIABLES):
        for logger in loggers:
            logger.propagate = False
    try:
        yield
    finally:
        for logger, value in zip(loggers, before, strict=True):
            logger.propagate = value
