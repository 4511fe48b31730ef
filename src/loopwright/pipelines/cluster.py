"""Steps on a Dask cluster: ``[pipelines] run_on = "dask"``.

The pipeline's own code, and all that is written down of a run, stay in this process; each step's function goes to a
worker with its arguments. There the MLflow run is the active one, and datasets that are read are reported back.
Prefect's task runner for Dask finds or starts the cluster.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopwright.config import Project
from loopwright.errors import Unavailable
from loopwright.lineage.context import Recorder, recorder
from loopwright.pipelines.definition import Step
from loopwright.pipelines.engine import settings_context, time_limit
from loopwright.records import DatasetRef
from loopwright.tracking.active import Tracked

__all__ = ["cluster"]

#: A scheduler must answer within so many seconds.
_CONNECT_S = 10
#: What a worker must know to reach the project's servers.
_VARIABLES = ("MLFLOW_", "PREFECT_", "LOOPWRIGHT_", "AWS_", "DO_NOT_TRACK")


@dataclass(frozen=True)
class _Call:
    """One call of a step's function, as it is sent to a worker."""

    function: Callable[..., Any]
    arguments: tuple[Any, ...]
    named: dict[str, Any]
    timeout_s: float | None
    root: Path
    run_id: str
    artifact_uri: str
    pipeline: str
    environment: dict[str, str]

    def carry_out(self) -> tuple[Any, list[DatasetRef]]:
        """Run the function inside the MLflow run; return its value and the datasets it has read."""
        os.environ.update(self.environment)
        reads = Recorder(self.pipeline, self.run_id)
        token = recorder.set(reads)
        try:
            run = Tracked(Project(self.root), self.run_id, self.artifact_uri)
            with run.active(), time_limit(self.timeout_s):
                return self.function(*self.arguments, **self.named), reads.datasets
        finally:
            recorder.reset(token)


def _carry_out(sent: bytes) -> bytes:
    """Carry out a call on a worker. What goes there and back is pickled by us: Dask would look for the user's modules."""
    import cloudpickle

    answer: bytes = cloudpickle.dumps(pickle.loads(sent).carry_out())  # noqa: S301 - from our own client
    return answer


@contextlib.contextmanager
def cluster(project: Project, tracked: Tracked) -> Iterator[Callable[..., Any] | None]:
    """Give what carries a step out on the cluster, or None when the steps stay in this process.

    Raises
    ------
    Unavailable
        The package for Dask is not installed, or no scheduler answers at the address.
    """
    settings = project.config.pipelines
    if settings.run_on != "dask":
        yield None
        return
    try:
        import cloudpickle
        from prefect_dask.task_runners import DaskTaskRunner
    except ImportError as error:
        raise Unavailable(
            f"[pipelines] run_on = 'dask' needs a package that is not installed: {error.name}.",
            hint="pip install 'loopwright[dask]'",
        ) from error
    local = {"n_workers": settings.workers, "threads_per_worker": 1, "dashboard_address": None}
    options: dict[str, Any] = (
        {"address": settings.address, "client_kwargs": {"timeout": _CONNECT_S}}
        if settings.address
        else {"cluster_kwargs": local}
    )
    with contextlib.ExitStack() as around:
        around.enter_context(settings_context())
        around.enter_context(_sent_by_value(project))
        runner = around.enter_context(DaskTaskRunner(**options))
        try:
            client = runner.client
        except (OSError, TimeoutError) as error:
            raise Unavailable(
                f"No Dask scheduler answers at {settings.address!r}: {error}.",
                valid="[pipelines] address, such as 'tcp://10.0.0.5:8786'; without it a cluster is started here.",
            ) from error

        def carry_out(
            step: Step[Any, Any], arguments: tuple[Any, ...], named: dict[str, Any], reads: Recorder
        ) -> Any:
            environment = {name: text for name, text in os.environ.items() if name.startswith(_VARIABLES)}
            call = _Call(
                step.function,
                arguments,
                named,
                step.options.timeout_s,
                project.root,
                tracked.run_id,
                tracked.artifact_uri,
                reads.pipeline,
                environment,
            )
            answer = client.submit(_carry_out, cloudpickle.dumps(call), pure=False).result()
            value, datasets = pickle.loads(answer)  # noqa: S301 - of our own function
            for dataset in datasets:
                reads.add(dataset)
            return value

        yield carry_out


@contextlib.contextmanager
def _sent_by_value(project: Project) -> Iterator[None]:
    """Send functions of the project's modules as they are: a worker has the libraries, but not the project's files."""
    import cloudpickle

    own = [
        module
        for name, module in list(sys.modules.items())
        if name != "__main__"
        and (file := getattr(module, "__file__", None))
        and Path(file).is_relative_to(project.root)
        and "site-packages" not in file
    ]
    for module in own:
        cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        for module in own:
            cloudpickle.unregister_pickle_by_value(module)
