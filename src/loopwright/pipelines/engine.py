"""Prefect's own context for code of the user's that calls Prefect itself, such as tasks and `get_run_logger`.

A run is written to Prefect by `flows`, without importing Prefect. Where the user's code imports it, before or meanwhile,
its tasks become tasks of this flow run and its loggers write to this run's page. Settings are given for the time of a
run and not left behind: what a process does with Prefect on its own keeps its own settings.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from contextvars import ContextVar, copy_context
from pathlib import Path
from typing import Any

from loopwright.pipelines.flows import Flow

__all__ = ["prefect_context", "settings_context", "time_limit"]

_settings: dict[str, Any] = {}
_clients: dict[str, Any] = {}
_watching = False


class _Waiting:
    """A run whose context is entered when Prefect is imported, and left with `close`."""

    def __init__(self, flow: Flow) -> None:
        self.flow = flow
        self.entered = contextlib.ExitStack()

    def enter(self) -> None:
        self.entered.enter_context(settings_context())
        self.entered.enter_context(_flow_context(self.flow))


_waiting: ContextVar[_Waiting | None] = ContextVar("loopwright_waiting_flow", default=None)


@contextlib.contextmanager
def prefect_context(flow: Flow) -> Iterator[None]:
    """Make a flow run the current one for Prefect in this thread, where Prefect is loaded or will be."""
    _watch_import()
    waiting = _Waiting(flow)
    token = _waiting.set(waiting)
    if _loaded():
        waiting.enter()
    try:
        yield
    finally:
        _waiting.reset(token)
        waiting.entered.close()


def _loaded() -> bool:
    return "prefect.main" in sys.modules


def _watch_import() -> None:
    global _watching
    if _watching or _loaded():
        return
    _watching = True
    from wrapt import register_post_import_hook

    register_post_import_hook(_on_import, "prefect.main")


def _on_import(_module: Any) -> None:
    if waiting := _waiting.get():
        waiting.enter()


def _flow_context(flow: Flow) -> Any:
    import prefect
    from prefect.client.schemas.objects import FlowRun
    from prefect.context import FlowRunContext, SyncClientContext
    from prefect.results import ResultStore
    from prefect.task_runners import ThreadPoolTaskRunner

    def body() -> None:
        """Stand in for the pipeline."""

    return FlowRunContext(
        flow=prefect.Flow(
            body,
            name=flow.flow_name,
            persist_result=False,
            # Named although nothing is stored: else each run asks the server for its default.
            result_storage=Path(os.environ["PREFECT_HOME"]) / "storage",
        ),
        flow_run=FlowRun.model_validate(flow.facts),
        client=SyncClientContext.get().client,  # type: ignore[union-attr]
        task_runner=ThreadPoolTaskRunner(),
        result_store=ResultStore(),
        persist_result=False,
        parameters={},
    )


@contextlib.contextmanager
def settings_context() -> Iterator[None]:
    """Point Prefect at the project's server, with a client that is made once for each server and kept.

    The heartbeat is off: its thread is joined when a flow ends and adds a second to each, and our runner notices dead
    processes by their pid.
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


def time_limit(seconds: float | None) -> contextlib.AbstractContextManager[None]:
    """Raise `TimeoutError` in the code inside after so many seconds; None sets no limit.

    Code that does not come back to Python, such as one long call of a library, is stopped when it does.
    """
    if seconds is None:
        return contextlib.nullcontext()
    # Interrupting a thread safely is a craft of its own; Prefect has it.
    from prefect.utilities.timeout import timeout

    return timeout(seconds)
