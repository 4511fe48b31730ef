"""Looking at tracked runs, wherever they are: the project's own store by SQL, a team's server over REST."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from loopwright import parts
from loopwright.config import Project
from loopwright.errors import InvalidInput, NotFound, Unavailable
from loopwright.tracking import sqlite
from loopwright.tracking.rest import call, run_of
from loopwright.tracking.run import Dataset, History, Run
from loopwright.tracking.where import NEWEST, Condition, Order, parse_where

__all__ = ["Details", "Reader", "RestReader", "best", "details", "find", "open_reader"]


class Reader(Protocol):
    """What is asked of a store of runs."""

    def search(
        self, where: Iterable[Condition] = (), order: Order = NEWEST, limit: int = 50, experiment: str = ""
    ) -> list[Run]:
        """Return the runs that meet all conditions."""

    def candidates(self, text: str) -> list[Run]:
        """Return the runs whose id starts so or whose name is that, newest first."""

    def experiments(self) -> dict[str, str]:
        """Return the names of the experiments by their ids."""

    def histories(self, run: Run) -> list[History]:
        """Return how each metric of a run went."""

    def datasets(self, run: Run) -> list[Dataset]:
        """Return the datasets a run has read."""

    def versions(self, run: Run) -> list[str]:
        """Return the model versions made from a run."""


@dataclass(frozen=True, slots=True)
class Details:
    """A run with all that belongs to it. `page` is its address in MLflow, empty while no server runs."""

    run: Run
    experiment: str
    histories: tuple[History, ...]
    datasets: tuple[Dataset, ...]
    artifacts: tuple[str, ...]
    versions: tuple[str, ...]
    page: str


def open_reader(project: Project) -> Reader | None:
    """Return what reads the project's runs; None before its own store is made.

    Raises
    ------
    InvalidInput
        ``MLFLOW_TRACKING_URI`` is set to something that is neither a server nor a database.
    """
    address = parts.plain_url(os.environ.get("MLFLOW_TRACKING_URI", ""))
    own = not address or address == os.environ.get(parts.BUFFERED_VARIABLE) or address == _server(project)
    if own:
        address = project.tracking_url
    if address.startswith(("http://", "https://")):
        return RestReader(project)
    if not address.startswith(("sqlite:", "postgresql")):
        raise InvalidInput(
            f"The MLflow tracking URI {address!r} is neither a server nor a database.",
            valid="Valid: http://..., sqlite:///..., postgresql://...",
            hint="unset MLFLOW_TRACKING_URI   (the project's own store is used then)",
        )
    path = sqlite.path_of(address)
    if path and not path.exists():
        if own:
            return None
        raise NotFound(f"There is no tracking store {path}.", hint="echo $MLFLOW_TRACKING_URI")
    from loopwright.tracking.sql import SqlReader

    return SqlReader(address)


def _server(project: Project) -> str:
    try:
        return f"{parts.url(project, 'server')}/mlflow"
    except Unavailable:
        return ""


def find(reader: Reader, text: str) -> Run:
    """Return the run with this id, with the only id that starts so, or the newest with this name; ``last`` is the newest.

    Raises
    ------
    NotFound
        There is none; the message names the nearest of the newest runs.
    InvalidInput
        Several ids start so.
    """
    found = reader.candidates(text)
    whole = [run for run in found if run.run_id == text.lower()]
    named = [run for run in found if run.name == text]
    if whole or named:
        return (whole or named)[0]
    if len(found) > 1:
        raise InvalidInput(
            f"Several runs have an id that starts with {text!r}.",
            valid=f"They are: {', '.join(run.run_id for run in found[:5])}.",
            hint="give more of the id",
        )
    if not found:
        newest = reader.search(limit=50)
        if text == "last" and newest:
            return newest[0]
        known = dict.fromkeys(run.name or run.run_id for run in newest)
        raise NotFound.among("run", text, known, hint="loopwright run list")
    return found[0]


def best(reader: Reader, metric: str, where: str = "", *, lower: bool = False, limit: int = 1) -> list[Run]:
    """Return the runs with the best last values of a metric, the best one first.

    Raises
    ------
    NotFound
        No run has this metric.
    """
    runs = reader.search(parse_where(where), Order("metric", metric, not lower), limit)
    having = [run for run in runs if metric in run.metrics]
    if not having:
        known = sorted({name for run in reader.search(limit=50) for name in run.metrics})
        raise NotFound.among("metric", metric, known, hint="loopwright run list")
    return having


def details(project: Project, reader: Reader, run: Run) -> Details:
    """Return all that belongs to a run."""
    return Details(
        run=run,
        experiment=reader.experiments().get(run.experiment_id, run.experiment_id),
        histories=tuple(reader.histories(run)),
        datasets=tuple(reader.datasets(run)),
        artifacts=tuple(_artifacts(project, run)),
        versions=tuple(reader.versions(run)),
        page=_page(project, run),
    )


def _page(project: Project, run: Run) -> str:
    address = parts.plain_url(os.environ.get("MLFLOW_TRACKING_URI", "")) or _server(project)
    if not address.startswith("http"):
        return ""
    return f"{address.rstrip('/')}/#/experiments/{run.experiment_id}/runs/{run.run_id}"


def _artifacts(project: Project, run: Run) -> list[str]:
    """Return the files and folders directly below a run's artifacts; none where nobody can be asked for them."""
    folder = parts.local_path(run.artifact_uri)
    if folder is not None:
        if not folder.is_dir():
            return []
        return sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in folder.iterdir())
    try:
        found = call(project, "GET", "artifacts/list", {"run_id": run.run_id})
    except (InvalidInput, Unavailable):
        return []
    return [f"{item['path']}/" if item.get("is_dir") else item["path"] for item in found.get("files", [])]


class RestReader:
    """Reads the runs of an MLflow server, in the experiment of the project's name unless another is given."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def _call(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return call(self._project, method, path, body)

    def search(
        self, where: Iterable[Condition] = (), order: Order = NEWEST, limit: int = 50, experiment: str = ""
    ) -> list[Run]:
        """Return the runs that meet all conditions."""
        asked = {"experiment_name": experiment or self._project.name}
        try:
            found = self._call("GET", "experiments/get-by-name", asked)
        except NotFound:
            return []
        return self._search(
            [found["experiment"]["experiment_id"]], " and ".join(one.text() for one in where), order, limit
        )

    def _search(self, experiments: list[str], where: str, order: Order, limit: int) -> list[Run]:
        # MLflow refuses to sort twice by the same.
        newest = [] if order.name == NEWEST.name else [NEWEST.text()]
        body = {
            "experiment_ids": experiments,
            "filter": where,
            "order_by": [order.text(), *newest],
            "max_results": limit,
        }
        return [run_of(item) for item in self._call("POST", "runs/search", body).get("runs", [])]

    def candidates(self, text: str) -> list[Run]:
        """Return the runs whose id starts so or whose name is that, newest first."""
        everywhere = list(self.experiments())
        found = []
        if text.isalnum():
            found = self._search(everywhere, f"attributes.run_id LIKE '{text.lower()}%'", NEWEST, 20)
        quote = '"' if "'" in text else "'"
        return found + self._search(everywhere, f"attributes.run_name = {quote}{text}{quote}", NEWEST, 20)

    def experiments(self) -> dict[str, str]:
        """Return the names of the experiments by their ids."""
        found = self._call("POST", "experiments/search", {"max_results": 1000})
        return {item["experiment_id"]: item["name"] for item in found.get("experiments", [])}

    def histories(self, run: Run) -> list[History]:
        """Return how each metric of a run went."""
        found = []
        for metric in sorted(run.metrics):
            asked = {"run_id": run.run_id, "metric_key": metric, "max_results": 25000}
            points = self._call("GET", "metrics/get-history", asked).get("metrics", [])
            points.sort(key=lambda point: (int(point.get("step", 0)), int(point["timestamp"])))
            values = [float(point["value"]) for point in points if point["value"] != "NaN"]
            if values:
                found.append(History.of(metric, values))
        return found

    def datasets(self, run: Run) -> list[Dataset]:
        """Return the datasets a run has read."""
        found = self._call("GET", "runs/get", {"run_id": run.run_id})["run"].get("inputs", {})
        given = [item["dataset"] for item in found.get("dataset_inputs", [])]
        return [Dataset(one["name"], one["digest"], one.get("source", "")) for one in given]

    def versions(self, run: Run) -> list[str]:
        """Return the model versions made from a run."""
        found = self._call("GET", "model-versions/search", {"filter": f"run_id='{run.run_id}'"})
        return [f"{item['name']} version {item['version']}" for item in found.get("model_versions", [])]
