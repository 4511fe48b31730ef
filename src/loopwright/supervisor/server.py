"""The project's local server: MLflow and Prefect, both complete and unchanged, in one process on one port.

``/mlflow`` is MLflow (pages, REST, artifacts), ``/prefect`` is Prefect (pages, API, web sockets), ``/health`` answers
once both are up. Why one process, and what it costs: ``docs/adr/0001-one-local-server.md``.
"""

import argparse
import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from typing import Any

from filelock import FileLock

from loopwright import parts
from loopwright.config import Project
from loopwright.registry import webhooks
from loopwright.supervisor.webhooks import Receiver, subscribe
from loopwright.tracking import sqlite

__all__ = ["main"]

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_ANALYZE_EVERY_S = 60.0
_SERVICES_STOP_S = 2.5
#: Run by a process of its own while this one imports MLflow: Prefect's hundred migrations take as long.
_MIGRATE_PREFECT = """
import asyncio
from prefect.server.database import provide_database_interface
asyncio.run(provide_database_interface().create_db())
"""


def _configure(project: Project, port: int) -> None:
    """Set what both servers read from the environment; must run before either is imported."""
    project.artifacts.mkdir(parents=True, exist_ok=True)
    prefect = project.state / "prefect"
    prefect.mkdir(parents=True, exist_ok=True)
    store = project.tracking_url
    base = f"http://127.0.0.1:{port}"
    os.environ |= {
        # MLflow's own command line sets these private variables for its workers.
        "_MLFLOW_SERVER_FILE_STORE": store,
        "_MLFLOW_SERVER_REGISTRY_STORE": store,
        # A folder, not the server's proxy: clients on this machine read and write the files directly.
        "_MLFLOW_SERVER_ARTIFACT_ROOT": project.artifacts.as_uri(),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": project.artifacts.as_uri(),
        "_MLFLOW_STATIC_PREFIX": "/mlflow",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_SERVER_ALLOWED_HOSTS": "localhost:*,127.0.0.1:*,localhost,127.0.0.1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
        "PREFECT_HOME": str(prefect),
        "PREFECT_SERVER_API_BASE_PATH": "/prefect/api",
        "PREFECT_SERVER_UI_SERVE_BASE": "/prefect",
        "PREFECT_UI_API_URL": f"{base}/prefect/api",
        "PREFECT_API_URL": f"{base}/prefect/api",
        # Else Prefect rewrites its pages inside site-packages, for all projects at once.
        "PREFECT_UI_STATIC_DIRECTORY": str(prefect / "ui"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        # One transaction a second for all tasks instead of one for each of their events.
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
        "PREFECT_LOGGING_SERVER_LEVEL": "WARNING",
    } | _prefect_database(project)
    os.environ |= webhooks.environment(project)


def _prefect_database(project: Project) -> dict[str, str]:
    if not project.database:
        path = project.state / "prefect" / "prefect.db"
        return {"PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{path}"}
    return {
        "PREFECT_API_DATABASE_CONNECTION_URL": project.database.replace(
            "postgresql:", "postgresql+asyncpg:", 1
        ),
        "PREFECT_SERVER_DATABASE_SQLALCHEMY_CONNECT_ARGS_SEARCH_PATH": "prefect",
    }


def _mlflow_schema(project: Project) -> None:
    if path := sqlite.path_of(project.tracking_url):
        sqlite.prepare(path)
        return
    from loopwright.tracking import postgresql

    postgresql.make_schemas(project.tracking_url)
    postgresql.prepare(project.tracking_url)


@contextlib.contextmanager
def _prefect_schema(project: Project) -> Iterator[None]:
    """Create Prefect's schema beside what this process does meanwhile; a database that is there costs nothing here.

    The server itself would do it on start, one thing after the other: 10 s later. When this fails, it does, and says
    what is wrong.
    """
    path = project.state / "prefect" / "prefect.db"
    if project.database or path.exists():
        yield
        return
    new = path.with_name("prefect.db.new")
    for left in path.parent.glob(f"{new.name}*"):
        left.unlink()
    address = {"PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{new}"}
    child = subprocess.Popen([sys.executable, "-c", _MIGRATE_PREFECT], env=os.environ | address)
    try:
        yield
        if child.wait() == 0:
            with contextlib.closing(sqlite3.connect(new)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            new.replace(path)
    finally:
        if child.poll() is None:
            child.kill()


def _tune_sqlite() -> None:
    """Set what neither server sets on its SQLite connections. Must run before either opens one."""
    from sqlalchemy import Engine, event

    sqlite.tune(Engine)

    @event.listens_for(Engine, "before_cursor_execute", retval=True)
    def _wait(*call: Any) -> tuple[str, Any]:
        # Prefect reads and then writes in deferred transactions. When another one has written in between, SQLite
        # refuses at once, whatever the busy timeout; Prefect answers 503 and its client sleeps for two seconds.
        # Taking the write lock first makes the second wait for the first instead: some milliseconds.
        _connection, _cursor, statement, parameters, *_ = call
        return ("BEGIN IMMEDIATE" if statement == "BEGIN DEFERRED" else statement), parameters


def _mlflow_app() -> App:
    with warnings.catch_warnings():
        # MLflow bridges to Flask with a module that Starlette has deprecated; nothing to be done about it here.
        warnings.simplefilter("ignore")
        import mlflow.server.fastapi_app

    app: App = mlflow.server.fastapi_app.app
    return app


def _mend_scheduler() -> None:
    """Let Prefect's scheduler insert the runs it plans: with SQLAlchemy 2.1 it fails at each, and no schedule ever runs.

    Its rows carry the state, which is no column; 2.0 passed over such a key, 2.1 wants to be told that it may.
    """
    from prefect.server.database.orm_models import FlowRun

    state: Any = vars(FlowRun)["state"]
    if hasattr(state, "bulk_dml") and state.bulk_dml_setter is None:
        state.inplace.bulk_dml(lambda _cls, _mapping, _value: None)


def _prefect_app() -> App:
    from prefect.server.api.server import create_app

    _mend_scheduler()
    app: App = create_app(ephemeral=False)
    return app


def build(project: Project) -> App:
    """Return the ASGI application that serves both."""
    with FileLock(project.state / "stores.lock", timeout=300), _prefect_schema(project):
        _mlflow_schema(project)
        _tune_sqlite()
        mlflow_app, prefect_app = _mlflow_app(), _prefect_app()
    receiver = Receiver(project)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _serve_lifespan(project, (mlflow_app, prefect_app), receive, send)
            return
        path = scope["path"]
        if path == "/mlflow" or path.startswith("/mlflow/"):
            await mlflow_app(scope, receive, _to_page(scope, send))
        elif path == "/prefect" or path.startswith("/prefect/"):
            await prefect_app(scope, receive, send)
        elif path == webhooks.PATH:
            await receiver(scope, receive, send)
        elif path == "/health":
            await _answer(send, 200, b"OK")
        else:
            await _answer(send, 404, b"Here are /mlflow/ and /prefect/\n")

    return app


async def _answer(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    head = [(b"content-type", b"text/plain"), *headers]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


def _to_page(scope: Scope, send: Send) -> Send:
    """Lead a browser from an address that MLflow does not know, such as /mlflow/models, to the page it means.

    MLflow's pages live behind a hash; Prefect answers such addresses with its index by itself.
    """
    accept = dict(scope.get("headers", ())).get(b"accept", b"")
    if scope["type"] != "http" or scope["method"] != "GET" or b"text/html" not in accept:
        return send
    redirected = False

    async def forward(message: Any) -> None:
        nonlocal redirected
        if message["type"] == "http.response.start" and message["status"] == 404:
            redirected = True
            page = scope.get("raw_path", b"").partition(b"?")[0].removeprefix(b"/mlflow/")
            await _answer(send, 307, b"", (b"location", b"/mlflow/#/" + page))
        elif not redirected:
            await send(message)

    return forward


async def _serve_lifespan(project: Project, apps: tuple[Any, ...], receive: Receive, send: Send) -> None:
    """Start and stop both applications with this one."""
    await receive()
    async with contextlib.AsyncExitStack() as stack:
        try:
            for app in apps:
                await stack.enter_async_context(_lifespan(app))
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": repr(error)})
            raise
        upkeep = asyncio.create_task(_keep_up(project))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        upkeep.cancel()
        # Prefect's services may take their time; a part has five seconds to end, two of them for open requests.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SERVICES_STOP_S):
                await stack.aclose()
    await send({"type": "lifespan.shutdown.complete"})


async def _keep_up(project: Project) -> None:
    """Count the rows of MLflow's store anew as it grows: one that was empty on start is not when it is asked."""
    path = sqlite.path_of(project.tracking_url)
    while path:  # PostgreSQL does it by itself
        await asyncio.sleep(_ANALYZE_EVERY_S)
        with contextlib.suppress(sqlite3.OperationalError):  # locked for long: next time
            if await asyncio.to_thread(sqlite.analyze, path):
                _reopen_connections()


def _reopen_connections() -> None:
    """Have MLflow open new connections: those that are open go by the counts they began with."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    for engine in list(SqlAlchemyStore._engine_map.values()):
        engine.dispose()


@contextlib.asynccontextmanager
async def _lifespan(app: Any) -> AsyncIterator[None]:
    async with app.router.lifespan_context(app):
        yield


def main() -> None:
    """Serve on 127.0.0.1 until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m loopwright.supervisor.server")
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    project = Project.find()
    os.chdir(project.root)
    # For the time before uvicorn takes over, and again when it hands the signal on after its own orderly end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    parts.follow_supervisor()
    _configure(project, port)
    import uvicorn

    app = build(project)
    subscribe(project, port)
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=port,
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=2,
        ws="websockets-sansio",
    )


if __name__ == "__main__":
    main()
