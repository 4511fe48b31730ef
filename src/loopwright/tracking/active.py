"""The MLflow run that a pipeline runs in: the one place that talks to MLflow's client while it lasts.

Few calls: the run is created with its tags in one, parameters follow in one, files are linked straight into the
artifact folder where that lies on this machine.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from loopwright.config import Project
from loopwright.errors import Unavailable
from loopwright.records import DatasetRef

__all__ = ["Tracked", "begin"]

#: MLflow's limits: the length of a parameter's value and of a dataset's digest, parameters in one call.
_LONGEST_VALUE = 6000
_LONGEST_DIGEST = 36
_MOST_PARAMS = 100

_experiments: dict[tuple[str, str], str] = {}


class Tracked:
    """A run that is active in this thread: plain MLflow calls and autologging go into it."""

    def __init__(self, run_id: str, artifact_uri: str, outer: str = "") -> None:
        self.run_id = run_id
        self._artifact_uri = artifact_uri
        self._outer = outer

    def log(self, params: Mapping[str, Any], tags: Mapping[str, str]) -> None:
        """Log parameters and tags in one call. A long value is cut to what MLflow keeps.

        A parameter that the user's code has logged with another value meanwhile keeps that one.
        """
        from mlflow import MlflowClient
        from mlflow.entities import Param, RunTag
        from mlflow.exceptions import MlflowException

        rows = [Param(name, str(value)[:_LONGEST_VALUE]) for name, value in params.items()]
        labels = [RunTag(name, value) for name, value in tags.items()]
        client = MlflowClient()
        try:
            client.log_batch(self.run_id, params=rows[:_MOST_PARAMS], tags=labels)
            rest = rows[_MOST_PARAMS:]
        except MlflowException as error:
            if error.error_code != "INVALID_PARAMETER_VALUE":
                raise
            client.log_batch(self.run_id, tags=labels)
            rest = rows
        for row in rest:
            with contextlib.suppress(MlflowException):
                client.log_batch(self.run_id, params=[row])

    def log_datasets(self, datasets: Sequence[DatasetRef]) -> None:
        """Show the datasets on the run's page."""
        from mlflow import MlflowClient
        from mlflow.entities import Dataset, DatasetInput

        inputs = [
            DatasetInput(
                Dataset(
                    name=dataset.name,
                    digest=dataset.digest[:_LONGEST_DIGEST],
                    source_type="local",
                    source=dataset.source or dataset.snapshot,
                    profile=f'{{"num_rows": {dataset.rows}}}',
                )
            )
            for dataset in datasets
        ]
        MlflowClient().log_inputs(self.run_id, inputs)

    def keep(self, files: Mapping[str, Path]) -> None:
        """Store files as artifacts under the given names; on this machine they are linked, not copied."""
        folder = _local(self._artifact_uri)
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

    def end(self, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        """End the run, and runs inside it that were left open; a run around it stays open.

        Raises
        ------
        Unavailable
            The MLflow server does not answer; the run is not active any more all the same.
        """
        import mlflow
        from mlflow.exceptions import MlflowException

        try:
            while (active := mlflow.active_run()) is not None and active.info.run_id != self._outer:
                mlflow.end_run(status)
                if active.info.run_id == self.run_id:
                    return
            # The user's code has ended it, as finished, before the pipeline was through.
            mlflow.MlflowClient().set_terminated(self.run_id, status)
        except MlflowException as error:
            raise Unavailable(f"MLflow does not end the run {self.run_id}: {error}.") from error


def begin(project: Project, name: str, tags: Mapping[str, str]) -> Tracked:
    """Start a run in the project's experiment and make it the active one. `parts.connect` must have been called.

    Raises
    ------
    Unavailable
        The MLflow server does not answer or refuses.
    """
    # MLflow prints two addresses at the end of each run; the console and the command line know them.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        experiment_id = _experiment(project)
        outer = mlflow.active_run()
        run = mlflow.start_run(
            experiment_id=experiment_id, run_name=name, tags=dict(tags), nested=outer is not None
        )
    except MlflowException as error:
        _experiments.clear()
        raise Unavailable(
            f"MLflow at {mlflow.get_tracking_uri()} does not start a run: {error}.", hint="loopwright status"
        ) from error
    return Tracked(run.info.run_id, run.info.artifact_uri, outer.info.run_id if outer else "")


def _experiment(project: Project) -> str:
    import mlflow
    from mlflow.exceptions import MlflowException

    key = (mlflow.get_tracking_uri(), project.name)
    if key not in _experiments:
        found = mlflow.get_experiment_by_name(project.name)
        if found is None:
            # Another process may create it at the same moment.
            with contextlib.suppress(MlflowException):
                mlflow.create_experiment(project.name)
            found = mlflow.get_experiment_by_name(project.name)
        if found is None or found.lifecycle_stage == "deleted":
            raise Unavailable(
                f"The MLflow experiment {project.name!r} was deleted.",
                hint="restore it on the MLflow page, or give the project another [project] name",
            )
        _experiments[key] = found.experiment_id
    return _experiments[key]


def _local(uri: str) -> Path | None:
    address = urlsplit(uri)
    if address.scheme not in {"", "file"}:
        return None
    return Path(unquote(address.path))
