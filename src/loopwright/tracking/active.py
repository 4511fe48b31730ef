"""The MLflow run that a pipeline runs in.

Few calls: the run is created with its tags in one, parameters follow in one, files are linked straight into the
artifact folder where that lies on this machine. MLflow itself is not imported here: where the user's code imports it,
before or meanwhile, the run is the active one for it, in every thread that works for the pipeline.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from loopwright import parts
from loopwright.config import Project
from loopwright.errors import InvalidInput, LoopwrightError, Unavailable
from loopwright.ledger.store import user
from loopwright.records import DatasetRef
from loopwright.tracking import client
from loopwright.tracking.client import Status

__all__ = ["Tracked", "begin"]

#: MLflow's limits: the length of a parameter's value, parameters in one call.
_LONGEST_VALUE = 6000
_MOST_PARAMS = 100

#: The run that is to be made active in this thread as soon as MLflow is imported.
_waiting: ContextVar[Tracked | None] = ContextVar("loopwright_waiting_run", default=None)


class Tracked:
    """A run of the project's experiment."""

    def __init__(self, project: Project, run_id: str, artifact_uri: str) -> None:
        self.project = project
        self.run_id = run_id
        self.artifact_uri = artifact_uri
        self.started_ms = int(time.time() * 1000)

    @contextlib.contextmanager
    def active(self, status: Status = "FINISHED") -> Iterator[None]:
        """Make it the active run of this thread for plain MLflow calls and autologging, where MLflow is loaded or will be.

        Runs inside it that are left open are ended with `status`. The run itself is not ended.
        """
        _watch_import()
        token = _waiting.set(self)
        if client.loaded():
            self.push()
        try:
            yield
        except BaseException:
            status = "FAILED"
            raise
        finally:
            _waiting.reset(token)
            if client.loaded():
                self.pop(status)

    def ensure(self) -> None:
        """Make it the active run of this thread also when another thread has imported MLflow meanwhile."""
        if client.loaded() and _waiting.get() is self and not self._on_stack():
            self.push()

    def _on_stack(self) -> bool:
        from mlflow.tracking.fluent import _active_run_stack

        return any(run.info.run_id == self.run_id for run in _active_run_stack.get())

    def push(self) -> None:
        """Put it on MLflow's stack of active runs of this thread."""
        from mlflow.entities import Run, RunData, RunInfo
        from mlflow.tracking.fluent import _active_run_stack

        info = RunInfo(
            run_id=self.run_id,
            experiment_id=client.experiment(self.project),
            user_id="",
            status="RUNNING",
            start_time=self.started_ms,
            end_time=None,
            lifecycle_stage="active",
            artifact_uri=self.artifact_uri,
        )
        # `start_run(run_id=...)` would do the same with three calls to the server, and its end would end the run.
        _active_run_stack.get().append(Run(info, RunData()))

    def pop(self, status: Status) -> None:
        """Take it off the stack again; runs inside it that were left open are ended with `status`."""
        import mlflow
        from mlflow.tracking.fluent import _active_run_stack

        if not self._on_stack():
            return  # the user's code has ended it
        stack = _active_run_stack.get()
        while stack[-1].info.run_id != self.run_id:
            mlflow.end_run(status)
        stack.pop()

    def log(
        self,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        metrics: Sequence[tuple[str, float]] = (),
    ) -> None:
        """Log parameters, tags and metrics in one call. A long value is cut to what MLflow keeps.

        A parameter that the user's code has logged with another value meanwhile keeps that one.
        """
        texts = [(name, str(value)[:_LONGEST_VALUE]) for name, value in params.items()]
        try:
            client.log(self.project, self.run_id, dict(texts[:_MOST_PARAMS]), tags, metrics)
            rest = texts[_MOST_PARAMS:]
        except InvalidInput:
            client.log(self.project, self.run_id, {}, tags, metrics)
            rest = texts
        for name, value in rest:
            with contextlib.suppress(InvalidInput):
                client.log(self.project, self.run_id, {name: value}, {})

    def logged(self) -> tuple[dict[str, float], dict[str, str]]:
        """Return the last values of the run's metrics, and its parameters; empty while MLflow is not loaded here.

        Then nothing but the run itself can have logged to it.
        """
        return client.logged(self.project, self.run_id) if client.loaded() else ({}, {})

    def log_datasets(self, datasets: Sequence[DatasetRef]) -> None:
        """Show the datasets on the run's page."""
        client.log_datasets(self.project, self.run_id, datasets)

    def keep(self, files: Mapping[str, Path]) -> None:
        """Store files as artifacts under the given names; on this machine they are linked, not copied."""
        folder = parts.local_path(self.artifact_uri)
        if folder is None:
            self._upload(files)
            return
        folder.mkdir(parents=True, exist_ok=True)
        for name, path in files.items():
            target = folder / name
            target.unlink(missing_ok=True)
            try:
                os.link(path, target)
            except OSError:
                shutil.copyfile(path, target)

    def _upload(self, files: Mapping[str, Path]) -> None:
        import tempfile

        from mlflow import MlflowClient

        with tempfile.TemporaryDirectory() as temporary:
            for name, path in files.items():
                shutil.copyfile(path, Path(temporary) / name)
            MlflowClient().log_artifacts(self.run_id, temporary)

    def end(self, status: Status) -> None:
        """End the run.

        Raises
        ------
        Unavailable
            The MLflow server does not answer.
        """
        client.end_run(self.project, self.run_id, status)


def begin(project: Project, name: str, tags: Mapping[str, str]) -> Tracked:
    """Start a run in the project's experiment. `parts.connect` must have been called.

    Raises
    ------
    Unavailable
        The MLflow server does not answer or refuses.
    """
    # MLflow prints two addresses at the end of each run; the console and the command line know them.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    all_tags = {"mlflow.user": user(), "mlflow.source.type": "LOCAL", **_parent(), **tags}
    try:
        run_id, artifact_uri = client.create_run(project, name, all_tags)
    except Unavailable:
        raise
    except Exception as error:
        if not (isinstance(error, LoopwrightError) or type(error).__module__.startswith("mlflow.")):
            raise
        raise Unavailable(f"MLflow does not start a run: {error}.", hint="loopwright status") from error
    return Tracked(project, run_id, artifact_uri)


def _parent() -> dict[str, str]:
    """Return the tag that makes a run the child of the one that is active around it."""
    if not client.loaded():
        return {}
    import mlflow

    outer = mlflow.active_run()
    return {"mlflow.parentRunId": outer.info.run_id} if outer else {}


def _watch_import() -> None:
    """Have the run become active in a thread that imports MLflow while it works for a pipeline."""
    global _watching
    if _watching or client.loaded():
        return
    _watching = True
    from wrapt import register_post_import_hook

    register_post_import_hook(_on_import, "mlflow.tracking.fluent")


_watching = False


def _on_import(_module: Any) -> None:
    if tracked := _waiting.get():
        tracked.push()
